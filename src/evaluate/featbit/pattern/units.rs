//! Texts as the UTF-16 that .NET matches.

use std::borrow::Cow;

/// The first and the last surrogate.
pub(super) const SURROGATES: (u16, u16) = (0xD800, 0xDFFF);

/// Where surrogates stand instead, which are no characters: in a plane of private characters. A text with
/// characters beyond the basic plane is rewritten before it is matched, so that none of its own are there.
const STAND_INS: u32 = 0x10_0000;

/// The character for a unit.
pub(super) fn as_char(unit: u16) -> char {
    let code = u32::from(unit);
    char::from_u32(code)
        .or_else(|| char::from_u32(STAND_INS + code))
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The text with every character beyond the basic plane as two.
pub(super) fn of_text(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte < 0xF0) {
        return Cow::Borrowed(text);
    }
    text.encode_utf16().map(as_char).collect::<String>().into()
}
