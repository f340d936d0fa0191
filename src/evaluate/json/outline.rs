//! What is directly in a text, learnt without a tree: for checking that an answer has the promised shape.

use super::scan::next_special;
use super::{Document, JsonError, Kind};

/// Deepest nesting that is followed without a tree.
const DEPTH_MAX: usize = 512;

/// What the values directly in a root must be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Each is an object that has a member of one of these names …
    pub names: &'w [&'w str],
    /// … or, if this is true, no member at all.
    pub may_be_empty: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outline {
    /// The root's kind.
    pub kind: Kind,
    /// Whether everything directly in it is as wanted. True of a root that holds nothing.
    pub fits: bool,
}

impl Outline {
    /// Reads a whole text, which must be as [`Document::parse`] wants it.
    ///
    /// # Errors
    /// Those of [`Document::parse`].
    pub fn of(text: &[u8], max_depth: usize, wanted: Wanted<'_>) -> Result<Self, JsonError> {
        let quick = std::str::from_utf8(text)
            .ok()
            .filter(|_| max_depth <= DEPTH_MAX)
            .and_then(|text| Scan::new(text.as_bytes(), max_depth, wanted).run());
        match quick {
            Some(outline) => Ok(outline),
            // What is rare or wrong: the parser decides, and says what is wrong.
            None => Document::parse(text, max_depth).map(|document| Self::of_tree(&document, wanted)),
        }
    }

    fn of_tree(document: &Document<'_>, wanted: Wanted<'_>) -> Self {
        let root = document.root();
        let mut values = root.members().map(|(_, value)| value).chain(root.elements());
        Self {
            kind: root.kind(),
            fits: values.all(|value| {
                value.kind() == Kind::Object
                    && ((wanted.may_be_empty && value.members().next().is_none())
                        || wanted.names.iter().any(|name| value.get(name).is_some()))
            }),
        }
    }
}

/// One pass that remembers only what is open. `None` from any step: not for this pass.
struct Scan<'s> {
    text: &'s [u8],
    at: usize,
    max_depth: usize,
    wanted: Wanted<'s>,
    depth: usize,
    /// Whether the innermost container is an object.
    is_object: bool,
    /// Whether the containers around it are, a bit for each depth.
    objects: [u64; DEPTH_MAX / 64 + 1],
    /// Whether the object at depth 2 has one of the names.
    is_named: bool,
    fits: bool,
}

impl<'s> Scan<'s> {
    fn new(text: &'s [u8], max_depth: usize, wanted: Wanted<'s>) -> Self {
        Self {
            text,
            at: 0,
            max_depth,
            wanted,
            depth: 0,
            is_object: false,
            objects: [0; DEPTH_MAX / 64 + 1],
            is_named: false,
            fits: true,
        }
    }

    fn run(mut self) -> Option<Outline> {
        self.skip_white_space();
        let kind = match self.peek()? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            _ => return None,
        };
        let mut is_item_due = self.open(kind == Kind::Object)?;
        while self.depth > 0 {
            is_item_due = if is_item_due { self.item()? } else { self.next()? };
        }
        self.skip_white_space();
        (self.at == self.text.len()).then_some(Outline {
            kind,
            fits: self.fits,
        })
    }

    /// What follows a value in the innermost container; says whether that is an item.
    #[inline(always)]
    fn next(&mut self) -> Option<bool> {
        self.skip_white_space();
        let byte = self.peek()?;
        self.at += 1;
        if byte == b',' {
            self.skip_white_space();
            return Some(true);
        }
        (byte == self.bracket()).then_some(())?;
        self.close(false);
        Some(false)
    }

    /// A member or an element, of a container only the beginning; says whether an item follows at once.
    #[inline(always)]
    fn item(&mut self) -> Option<bool> {
        if self.is_object {
            let start = self.at + 1;
            let is_escaped = self.string()?;
            if self.depth == 2 && !self.is_named {
                if is_escaped {
                    return None;
                }
                let name = self.text.get(start..self.at - 1)?;
                self.is_named = self.wanted.names.iter().any(|wanted| wanted.as_bytes() == name);
            }
            self.skip_white_space();
            self.take(b':')?;
            self.skip_white_space();
        }
        let first = self.peek()?;
        if self.depth == 1 && first != b'{' {
            self.fits = false;
        }
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => return self.open(first == b'{'),
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Some(false)
    }

    /// An opening bracket; says whether an item follows.
    #[inline(always)]
    fn open(&mut self, is_object: bool) -> Option<bool> {
        if self.depth >= self.max_depth {
            return None;
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        if self.is_object {
            self.objects[word] |= bit;
        } else {
            self.objects[word] &= !bit;
        }
        self.is_object = is_object;
        self.depth += 1;
        self.at += 1;
        if self.depth == 2 {
            self.is_named = false;
        }
        self.skip_white_space();
        if self.peek()? == self.bracket() {
            self.at += 1;
            self.close(true);
            return Some(false);
        }
        Some(true)
    }

    /// What the closing bracket that was just read means.
    #[inline(always)]
    fn close(&mut self, is_empty: bool) {
        if self.depth == 2 && !self.is_named && !(is_empty && self.wanted.may_be_empty) {
            self.fits = false;
        }
        self.depth -= 1;
        self.is_object = self.objects[self.depth / 64] & (1 << (self.depth % 64)) != 0;
    }

    fn bracket(&self) -> u8 {
        if self.is_object { b'}' } else { b']' }
    }

    /// A string; says whether it has an escape.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        self.take(b'"')?;
        self.at = next_special(self.text, self.at)?;
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Some(false);
        }
        self.escaped().map(|()| true)
    }

    /// The rest of a string from its first escape on.
    #[inline(never)]
    fn escaped(&mut self) -> Option<()> {
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    // Halves of surrogate pairs are the parser's affair.
                    if !matches!(
                        self.text.get(self.at + 1)?,
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'
                    ) {
                        return None;
                    }
                    self.at = next_special(self.text, self.at + 2)?;
                }
                _ => return None,
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then_some(())?;
        self.at += word.len();
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek()? == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek()?, b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more. A number never ends the text: its container does.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek()?.is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then_some(())?;
        self.at += 1;
        Some(())
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VARIANTS: Wanted<'_> = Wanted {
        names: &["key", "value"],
        may_be_empty: true,
    };
    const FLAGS: Wanted<'_> = Wanted {
        names: &["key"],
        may_be_empty: false,
    };

    fn by_tree(text: &[u8], wanted: Wanted<'_>) -> Option<Outline> {
        let document = Document::parse(text, 8).ok()?;
        Some(Outline::of_tree(&document, wanted))
    }

    #[test]
    fn shapes_are_told_apart() {
        for (text, kind, fits_variants, fits_flags) in [
            ("{}", Kind::Object, true, true),
            (" [ ] ", Kind::Array, true, true),
            (
                r#"{"a":{"key":"on"},"b":{"x":[1,{}],"value":null}}"#,
                Kind::Object,
                true,
                false,
            ),
            (r#"{"a":{}}"#, Kind::Object, true, false),
            (
                r#"[{"key":"a","x":{"deep":[{}]}},{"a":0,"key":"b"}]"#,
                Kind::Array,
                true,
                true,
            ),
            (r#"[{"key":"a"},{}]"#, Kind::Array, true, false),
            (r#"{"error":{"code":503}}"#, Kind::Object, false, false),
            (r#"{"a":{"b":{"key":1}}}"#, Kind::Object, false, false),
            (r#"{"a":"key"}"#, Kind::Object, false, false),
            (r#"[["key"]]"#, Kind::Array, false, false),
            (r#"{"a":{"\u006bey":1}}"#, Kind::Object, true, true),
            ("0", Kind::Number, true, true),
        ] {
            let [variants, flags] =
                [VARIANTS, FLAGS].map(|wanted| Outline::of(text.as_bytes(), 8, wanted).unwrap());
            assert_eq!((variants.kind, variants.fits), (kind, fits_variants), "{text}");
            assert_eq!(
                flags.fits,
                fits_flags && by_tree(text.as_bytes(), FLAGS).unwrap().fits,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in [
            "",
            "{",
            "[1,]",
            r#"{"a":01}"#,
            r#"{"a":{}"#,
            r#"{"a":1}}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            r#"["\x"]"#,
            r#"["\ud800"]"#,
            "[\"\n\"]",
            "[tru]",
            "[-]",
            "[1.]",
            "[1e]",
            "[[[[[[[[[]]]]]]]]]",
            "[\u{1}]",
        ] {
            assert!(Outline::of(text.as_bytes(), 8, VARIANTS).is_err(), "{text}");
        }
        assert!(Outline::of(b"[\"\xff\"]", 8, VARIANTS).is_err());
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_the_tree_shows(
            text in r#"([\[\]{}:, ]|"key"|"a"|"\\n"|"\\u0061"|"é"|1|-0\.5e3|true|null|\{"key":1\}|\{\}){0,12}"#
        ) {
            for wanted in [VARIANTS, FLAGS] {
                // Of members with one name the tree shows the last alone.
                if let Some(by_pass) = Scan::new(text.as_bytes(), 8, wanted).run() {
                    let by_tree = by_tree(text.as_bytes(), wanted);
                    prop_assert!(by_tree.is_some());
                    prop_assert_eq!(by_tree.map(|outline| outline.kind), Some(by_pass.kind));
                    prop_assert!(!by_pass.fits || by_tree.is_some_and(|outline| outline.fits));
                }
                let is_json = Outline::of(text.as_bytes(), 8, wanted).is_ok();
                prop_assert_eq!(is_json, by_tree(text.as_bytes(), wanted).is_some());
            }
        }
    }
}
