//! W3C Trace Context: `traceparent` and `tracestate` of requests.

use std::cell::Cell;
use std::fmt;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of `tracestate` that are passed on (OPS 10.3).
const TRACESTATE_MAX: usize = 512;

/// Where in which trace something happens. Neither id is zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Context {
    /// The trace.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// Whether whoever made it records it.
    pub sampled: bool,
}

impl Context {
    /// Reads a `traceparent`: version 00 exactly, a higher one by its first four fields.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let version = hex(text.get(..2)?)?;
        let fits = match version {
            0 => text.len() == 55,
            0xff => false,
            _ => text.len() == 55 || text.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace_id = hex(&text[3..35])?;
        let span_id = u64::try_from(hex(&text[36..52])?).ok()?;
        let flags = hex(&text[53..55])?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// The context of a request, if it has exactly one and that can be read.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            _ => None,
        }
    }

    /// A new trace.
    #[must_use]
    pub fn new(sampled: bool) -> Self {
        let trace_id = u128::from(random()) << 64 | u128::from(random());
        Self {
            trace_id,
            span_id: random(),
            sampled,
        }
    }

    /// A new span in the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: random(),
            ..*self
        }
    }

    /// Puts it into the headers of a request.
    pub fn put(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

/// As `traceparent`, version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            sampled,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled))
    }
}

/// Takes away what must not be passed on: a `traceparent` that cannot be read, a `tracestate` without one or of more
/// than 512 bytes.
pub fn clean(headers: &mut HeaderMap) {
    // Most requests have neither, and one look at all names costs less than a search for each.
    if !headers
        .keys()
        .any(|name| *name == TRACEPARENT || *name == TRACESTATE)
    {
        return;
    }
    if headers.contains_key(TRACEPARENT) && Context::of(headers).is_none() {
        headers.remove(TRACEPARENT);
    }
    let length: usize = headers.get_all(TRACESTATE).iter().map(HeaderValue::len).sum();
    if length > TRACESTATE_MAX || !headers.contains_key(TRACEPARENT) {
        headers.remove(TRACESTATE);
    }
}

/// A number in lower-case hexadecimal digits, all of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// A number that is not zero, from a generator of this thread (`SplitMix64`); ids need be unlikely to meet, no more.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(getrandom::u64().unwrap_or(0x5851_F42D_4C95_7F2D));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31).max(1)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparents_are_read_strictly() {
        let read = Context::parse(GOOD.as_bytes()).unwrap();
        assert!(read.sampled);
        assert_eq!(read.to_string(), GOOD);
        assert!(
            !Context::parse(GOOD.replace("-01", "-02").as_bytes())
                .unwrap()
                .sampled
        );
        let higher = GOOD.replacen("00", "01", 1);
        assert!(Context::parse(higher.as_bytes()).is_some());
        assert!(Context::parse(format!("{higher}-more").as_bytes()).is_some());
        for wrong in [
            String::new(),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            format!("{higher}more"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD[..54].to_owned(),
            format!(" {GOOD}"),
            "00-a-b-01".to_owned(),
        ] {
            assert_eq!(Context::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_can_be_read_is_passed_on() {
        let long = "a=".to_owned() + &"b".repeat(511);
        for (parents, state, wanted) in [
            (vec![GOOD], "a=b", (true, true)),
            (vec![GOOD], &long, (true, false)),
            (vec!["nonsense"], "a=b", (false, false)),
            (vec![GOOD, GOOD], "a=b", (false, false)),
            (vec![], "a=b", (false, false)),
        ] {
            let mut headers = HeaderMap::new();
            for parent in &parents {
                headers.append(TRACEPARENT, parent.parse().unwrap());
            }
            headers.insert(TRACESTATE, state.parse().unwrap());
            clean(&mut headers);
            let left = (
                headers.contains_key(TRACEPARENT),
                headers.contains_key(TRACESTATE),
            );
            assert_eq!(left, wanted, "{parents:?}");
        }
    }

    #[test]
    fn children_stay_in_the_trace() {
        let parent = Context::new(true);
        let child = parent.child();
        assert_eq!((child.trace_id, child.sampled), (parent.trace_id, true));
        assert_ne!(child.span_id, parent.span_id);
        assert_ne!(Context::new(true).trace_id, parent.trace_id);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f-]{0,60}|\\PC{0,60}") {
            if let Some(context) = Context::parse(text.as_bytes()) {
                prop_assert_eq!(Context::parse(context.to_string().as_bytes()), Some(context));
            }
        }
    }
}
