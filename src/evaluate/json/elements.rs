//! A text that is one array, read element by element: what a tree of the whole would need much memory for.

use super::scan::Parser;
use super::{Document, JsonError};

/// Reads the elements of an array one after the other and holds one at a time.
///
/// Faults are those that [`Document::parse`] finds in the whole text, at the same places. An element's places are those in
/// the whole text.
pub(crate) struct Elementwise<'a> {
    parser: Parser<'a>,
    is_first: bool,
}

impl<'a> Elementwise<'a> {
    /// Begins to read `text`, whose arrays and objects may stand `max_depth` deep inside each other. `None` if it
    /// begins like no array, or none may be in it.
    ///
    /// # Errors
    /// Texts from 4 GiB on are refused.
    pub(crate) fn new(text: &'a str, max_depth: usize) -> Result<Option<Self>, JsonError> {
        let mut parser = Parser::of_elements(text, max_depth);
        Ok(parser.enter_array()?.then_some(Self {
            parser,
            is_first: true,
        }))
    }

    /// The next element; `None` after the last.
    ///
    /// # Errors
    /// What is no JSON up to the end of the element, or after the array.
    pub(crate) fn next(&mut self) -> Result<Option<&Document<'a>>, JsonError> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        self.parser.element(is_first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::json_text;
    use super::*;

    /// Elements as written, with their places.
    type Elements = Result<Vec<(usize, Vec<u8>)>, JsonError>;

    fn one_by_one(text: &str, max_depth: usize) -> Option<Elements> {
        let mut elements = Elementwise::new(text, max_depth).unwrap()?;
        let mut found = Vec::new();
        loop {
            match elements.next() {
                Ok(Some(element)) => {
                    let mut out = Vec::new();
                    element.root().write_compact(&mut out);
                    found.push((element.root().span().start, out));
                }
                Ok(None) => return Some(Ok(found)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn by_tree(text: &str, max_depth: usize) -> Elements {
        let document = Document::parse(text.as_bytes(), max_depth)?;
        let elements = document.root().elements().map(|element| {
            let mut out = Vec::new();
            element.write_compact(&mut out);
            (element.span().start, out)
        });
        Ok(elements.collect())
    }

    #[test]
    fn other_texts_than_arrays_are_not_begun() {
        for text in ["", " ", "{}", "1", "\"[]\"", "]"] {
            assert!(one_by_one(text, 8).is_none(), "{text}");
        }
        assert!(one_by_one("[]", 0).is_none());
    }

    proptest! {
        #[test]
        fn elements_and_faults_are_those_of_the_whole(
            elements in prop::collection::vec(json_text(), 0..4),
            edit in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(&b"[]{},:\"\\0-.e \n"[..]))),
            max_depth in 1_usize..6,
        ) {
            let mut text = format!(" [{}] ", elements.join(","));
            if let Some((index, byte)) = edit {
                let at = index.index(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.replace_range(at..=at, &char::from(byte).to_string());
                }
            }
            if let Some(found) = one_by_one(&text, max_depth) {
                prop_assert_eq!(found, by_tree(&text, max_depth), "{}", text);
            }
        }
    }
}
