//! Content types of stored responses: the usual ones take no memory of their own.

use http::HeaderValue;

/// JSON, as Amplitude labels it.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// JSON, as FeatBit's server labels it.
pub const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

static OF_JSON: HeaderValue = JSON;
static OF_JSON_UTF8: HeaderValue = JSON_UTF8;

/// The content type of a stored response.
#[derive(Debug)]
pub enum Label {
    /// [`JSON`]
    Json,
    /// [`JSON_UTF8`]
    JsonUtf8,
    /// Any other.
    Other(Box<HeaderValue>),
}

impl Label {
    /// As a header's value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        match self {
            Self::Json => &OF_JSON,
            Self::JsonUtf8 => &OF_JSON_UTF8,
            Self::Other(value) => value,
        }
    }

    /// Bytes it holds beyond itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Json | Self::JsonUtf8 => 0,
            Self::Other(value) => size_of::<HeaderValue>() + value.len(),
        }
    }
}

impl From<HeaderValue> for Label {
    fn from(value: HeaderValue) -> Self {
        if value == OF_JSON {
            Self::Json
        } else if value == OF_JSON_UTF8 {
            Self::JsonUtf8
        } else {
            Self::Other(Box::new(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_as_they_came() {
        for text in [
            "application/json",
            "application/json; charset=utf-8",
            "application/json;charset=UTF-8",
            "Application/JSON",
            "",
        ] {
            let value = HeaderValue::from_static(text);
            assert_eq!(Label::from(value.clone()).value(), value, "{text}");
        }
        assert_eq!(Label::from(JSON).bytes(), 0);
        assert!(Label::from(HeaderValue::from_static("text/json")).bytes() > 9);
    }
}
