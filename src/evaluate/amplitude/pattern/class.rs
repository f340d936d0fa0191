//! Character classes: Java's predefined ones and properties, spelt as the inside of a Rust class.

/// Java's line terminators.
pub(super) const LINE_ENDS: &str = r"\n\r\x{85}\x{2028}\x{2029}";

/// The class of an escape such as `\d`; `unicode` is Java's flag `U`.
pub(super) fn predefined(escape: char, unicode: bool) -> Option<String> {
    let body = match (escape.to_ascii_lowercase(), unicode) {
        ('d', false) => "0-9",
        ('d', true) => r"\p{Nd}",
        ('w', false) => "a-zA-Z0-9_",
        ('w', true) => r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}",
        ('s', false) => r"\x20\t\n\x0B\x0C\r",
        ('s', true) => r"\p{White_Space}",
        ('h', _) => r"\x20\t\x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}",
        ('v', _) => r"\n\x0B\x0C\r\x{85}\x{2028}\x{2029}",
        _ => return None,
    };
    Some(if escape.is_ascii_uppercase() {
        format!("[^{body}]")
    } else {
        body.to_owned()
    })
}

/// The class of `\p{name}` (or, if `negated`, `\P{name}`); `fold` is Java's flag `i`.
pub(super) fn property(name: &str, negated: bool, fold: bool) -> Result<String, String> {
    let body = match name.split_once('=') {
        Some((kind, value)) => match kind.to_ascii_lowercase().as_str() {
            "sc" | "script" => format!(r"\p{{sc={}}}", word(value)?),
            "gc" | "general_category" => category(value, fold).ok_or_else(|| unknown(name))?,
            "blk" | "block" => block(value).ok_or_else(|| unknown(name))?,
            _ => return Err(unknown(name)),
        },
        None => simple_property(name, fold)?,
    };
    Ok(if negated { format!("[^{body}]") } else { body })
}

fn simple_property(name: &str, fold: bool) -> Result<String, String> {
    if let Some(known) = posix(name, fold).or_else(|| java_property(name, fold)) {
        return Ok(known.to_owned());
    }
    if let Some(category) = category(name, fold) {
        return Ok(category);
    }
    if let Some(name) = name.strip_prefix("In") {
        return block(name).ok_or_else(|| unknown(name));
    }
    let Some(rest) = name.strip_prefix("Is") else {
        return Err(unknown(name));
    };
    if let Some(category) = category(rest, fold) {
        return Ok(category);
    }
    Ok(match rest.to_ascii_lowercase().as_str() {
        "letter" => r"\p{L}".to_owned(),
        "lowercase" | "uppercase" | "titlecase" if fold => CASED.to_owned(),
        "titlecase" => r"\p{Lt}".to_owned(),
        "punctuation" => r"\p{P}".to_owned(),
        "control" => r"\p{Cc}".to_owned(),
        "digit" => r"\p{Nd}".to_owned(),
        "assigned" => r"[^\p{Cn}]".to_owned(),
        // Scripts and the remaining binary properties have the names of Unicode.
        _ => format!(r"\p{{{}}}", word(rest)?),
    })
}

const CASED: &str = r"\p{Lu}\p{Ll}\p{Lt}";

/// The POSIX classes, which are ASCII.
fn posix(name: &str, fold: bool) -> Option<&'static str> {
    Some(match name {
        "Lower" | "Upper" if fold => "a-zA-Z",
        "Lower" => "a-z",
        "Upper" => "A-Z",
        "ASCII" => r"\x00-\x7F",
        "Alpha" => "a-zA-Z",
        "Digit" => "0-9",
        "Alnum" => "a-zA-Z0-9",
        "Punct" => r"\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E",
        "Graph" => r"\x21-\x7E",
        "Print" => r"\x20-\x7E",
        "Blank" => r"\x20\t",
        "Cntrl" => r"\x00-\x1F\x7F",
        "XDigit" => "0-9a-fA-F",
        "Space" => r"\x20\t\n\x0B\x0C\r",
        _ => return None,
    })
}

fn java_property(name: &str, fold: bool) -> Option<&'static str> {
    Some(match name {
        "javaLowerCase" | "javaUpperCase" | "javaTitleCase" if fold => CASED,
        "javaLowerCase" => r"\p{Lowercase}",
        "javaUpperCase" => r"\p{Uppercase}",
        "javaTitleCase" => r"\p{Lt}",
        "javaAlphabetic" => r"\p{Alphabetic}",
        "javaLetter" => r"\p{L}",
        "javaDigit" => r"\p{Nd}",
        "javaLetterOrDigit" => r"\p{L}\p{Nd}",
        "javaSpaceChar" => r"\p{Z}",
        "javaISOControl" => r"\x00-\x1F\x7F-\x{9F}",
        "javaWhitespace" => r"[\p{Z}&&[^\x{A0}\x{2007}\x{202F}]]\t-\r\x1C-\x1F",
        _ => return None,
    })
}

/// A general category by its short name.
fn category(name: &str, fold: bool) -> Option<String> {
    const SHORT: &str = "|L|M|N|P|S|Z|C|Lu|Ll|Lt|Lm|Lo|Mn|Mc|Me|Nd|Nl|No|Pc|Pd|Ps|Pe|Pi|Pf|Po|Sm|Sc|Sk|So|Zs|Zl|Zp|Cc|Cf|Co|Cn|";
    match name {
        "Lu" | "Ll" | "Lt" if fold => Some(CASED.to_owned()),
        "LC" => Some(CASED.to_owned()),
        "LD" => Some(r"\p{L}\p{Nd}".to_owned()),
        "L1" => Some(r"\x00-\x{FF}".to_owned()),
        "all" => Some(r"\x00-\x{10FFFF}".to_owned()),
        // Surrogates are no characters of a text.
        "Cs" => Some(r"[a&&b]".to_owned()),
        _ if name.contains('|') => None,
        _ => SHORT
            .contains(&format!("|{name}|"))
            .then(|| format!(r"\p{{{name}}}")),
    }
}

/// The common blocks; Rust's classes know none.
fn block(name: &str) -> Option<String> {
    let plain: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect();
    let (first, last) = match plain.to_ascii_lowercase().as_str() {
        "basiclatin" => (0, 0x7F),
        "latin1supplement" => (0x80, 0xFF),
        "latinextendeda" => (0x100, 0x17F),
        "latinextendedb" => (0x180, 0x24F),
        "greek" | "greekandcoptic" => (0x370, 0x3FF),
        "cyrillic" => (0x400, 0x4FF),
        "armenian" => (0x530, 0x58F),
        "hebrew" => (0x590, 0x5FF),
        "arabic" => (0x600, 0x6FF),
        "devanagari" => (0x900, 0x97F),
        "thai" => (0xE00, 0xE7F),
        "hiragana" => (0x3040, 0x309F),
        "katakana" => (0x30A0, 0x30FF),
        "cjkunifiedideographs" => (0x4E00, 0x9FFF),
        "hangulsyllables" => (0xAC00, 0xD7AF),
        "emoticons" => (0x1F600, 0x1F64F),
        _ => return None,
    };
    Some(format!(r"\x{{{first:X}}}-\x{{{last:X}}}"))
}

fn word(name: &str) -> Result<&str, String> {
    let valid = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte));
    if valid { Ok(name) } else { Err(unknown(name)) }
}

fn unknown(name: &str) -> String {
    format!("unknown character property {name:?}")
}
