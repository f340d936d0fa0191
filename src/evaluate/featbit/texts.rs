//! Sets of texts, for looking up only, that take little memory.

use std::hash::Hasher;

use crate::evaluate::quick_map::QuickHasher;

/// Up to this many texts are compared one by one.
const FEW: usize = 4;

/// A set of texts: the contents one after the other, and a table of where they stand.
///
/// Bounded by 4 GiB of contents, which no readable document exceeds.
#[derive(Debug, Default)]
pub(super) struct Texts {
    contents: Box<str>,
    /// Where each text ends.
    ends: Box<[u32]>,
    /// Open addressing: one more than the number of a text, or 0. Empty for sets that are small; else a
    /// power of two of places, half of them free at least.
    table: Box<[u32]>,
}

impl Texts {
    /// The set of `texts`; repeated ones do no harm.
    pub(super) fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut contents = String::new();
        let mut ends = Vec::new();
        for text in texts {
            contents.push_str(text);
            // A text that does not fit stays out, and so does its end.
            match u32::try_from(contents.len()) {
                Ok(end) => ends.push(end),
                Err(_) => contents.truncate(contents.len() - text.len()),
            }
        }
        let mut set = Self {
            contents: contents.into_boxed_str(),
            ends: ends.into_boxed_slice(),
            table: Box::default(),
        };
        if set.ends.len() > FEW {
            set.index();
        }
        set
    }

    fn index(&mut self) {
        let places = (self.ends.len() * 2).next_power_of_two();
        let mut table = vec![0u32; places].into_boxed_slice();
        for number in 0..self.ends.len() {
            let text = self.text(number);
            let mut place = place(text, places);
            loop {
                match table[place] as usize {
                    0 => {
                        table[place] = u32::try_from(number + 1).unwrap_or(0);
                        break;
                    }
                    // A repeated text must not make every later one probe past it.
                    known if self.text(known - 1) == text => break,
                    _ => place = (place + 1) & (places - 1),
                }
            }
        }
        self.table = table;
    }

    /// Whether `text` is one of the texts, exactly.
    pub(super) fn contains(&self, text: &str) -> bool {
        if self.table.is_empty() {
            return self.iter().any(|known| known == text);
        }
        let mut place = place(text, self.table.len());
        loop {
            match self.table[place] as usize {
                0 => return false,
                number if self.text(number - 1) == text => return true,
                _ => place = (place + 1) & (self.table.len() - 1),
            }
        }
    }

    /// The texts in the order given.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|number| self.text(number))
    }

    fn text(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.contents[start as usize..self.ends[number] as usize]
    }
}

/// Where a text is first looked for in a table of `places`, a power of two.
#[allow(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
fn place(text: &str, places: usize) -> usize {
    let mut hasher = QuickHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish() as usize & (places - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_every_size_know_their_texts() {
        for size in [0, 1, 4, 5, 63, 64, 65, 3_000] {
            let texts: Vec<String> = (0..size).map(|number| format!("user-{number}")).collect();
            let set = Texts::new(texts.iter().chain(texts.first()).map(String::as_str));
            assert!(texts.iter().all(|text| set.contains(text)), "{size}");
            for other in ["", "user-", "user-3000", "User-0"] {
                assert!(!set.contains(other), "{size} {other}");
            }
        }
        assert!(Texts::new(["", "a"]).contains(""));
    }
}
