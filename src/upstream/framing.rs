//! Where the body of an HTTP/1.1 answer ends (RFC 9112, 6 and 7).

use bytes::Bytes;
use http::{Method, StatusCode};

/// Bytes of a line that gives a chunk's size, or of all trailers.
const LINE_BYTES_MAX: usize = 4 * 1024;
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// Where the connection ends.
    UntilClose,
}

impl Framing {
    /// The framing of an answer, and whether the connection stays open after it. `version` is the minor one.
    ///
    /// # Errors
    ///
    /// When lengths contradict each other, or a transfer coding is not `chunked` alone.
    pub(super) fn of(
        method: &Method,
        status: StatusCode,
        version: Option<u8>,
        headers: &[httparse::Header<'_>],
    ) -> Result<(Self, bool), &'static str> {
        let (mut length, mut chunked) = (None, false);
        let mut stays_open = version == Some(1);
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let value = number(header.value).ok_or("a content length that is no number")?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return Err("two content lengths");
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err("a transfer coding other than chunked");
                }
                chunked = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                for option in header.value.split(|byte| *byte == b',') {
                    if option.trim_ascii().eq_ignore_ascii_case(b"close") {
                        stays_open = false;
                    } else if version == Some(0) && option.trim_ascii().eq_ignore_ascii_case(b"keep-alive") {
                        stays_open = true;
                    }
                }
            }
        }
        let bodiless =
            *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match (bodiless, chunked, length) {
            (true, ..) => (Self::Length(0), stays_open),
            // Whoever sends both may be two who disagree: nothing after it is trusted.
            (_, true, length) => (Self::Chunked, stays_open && length.is_none()),
            (_, _, Some(length)) => (Self::Length(length), stays_open),
            (_, _, None) => (Self::UntilClose, false),
        })
    }
}

/// Digits alone, at least one; a list of the same number counts as one.
fn number(value: &[u8]) -> Option<u64> {
    let mut number = None;
    for item in value.split(|byte| *byte == b',') {
        let item = item.trim_ascii();
        if item.is_empty() || !item.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let this = std::str::from_utf8(item).ok()?.parse().ok()?;
        if number.replace(this).is_some_and(|before: u64| before != this) {
            return None;
        }
    }
    number
}

/// Takes a chunked body apart as it comes.
pub(super) struct Chunks {
    body: Vec<u8>,
    limit: usize,
    state: State,
}

enum State {
    /// A line with a size comes.
    Size,
    /// So many bytes of a chunk come.
    Inside(usize),
    /// The line end after a chunk comes.
    After,
    /// Trailers come, of which so many bytes have been.
    Trailers(usize),
}

/// How far a body has been taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// To its end.
    All,
    /// More bytes are needed.
    More,
    /// It is longer than it may be.
    TooLarge,
    /// It is no chunked body.
    Malformed,
}

/// A line without its end, and the bytes it takes with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

impl Chunks {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            body: Vec::new(),
            limit,
            state: State::Size,
        }
    }

    /// Takes what can be taken from the beginning of `bytes`, and says how many those were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Taken) {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.state {
                State::Inside(0) => self.state = State::After,
                State::Inside(left) => {
                    let n = left.min(rest.len());
                    self.body.extend_from_slice(&rest[..n]);
                    used += n;
                    self.state = State::Inside(left - n);
                    if n < left {
                        return (used, Taken::More);
                    }
                }
                State::Size | State::After | State::Trailers(_) => {
                    let Some((line, n)) = line(rest) else {
                        let taken = if rest.len() > LINE_BYTES_MAX {
                            Taken::Malformed
                        } else {
                            Taken::More
                        };
                        return (used, taken);
                    };
                    if n > LINE_BYTES_MAX {
                        return (used, Taken::Malformed);
                    }
                    used += n;
                    if let Some(ended) = self.line(line, n) {
                        return (used, ended);
                    }
                }
            }
        }
    }

    /// What a line says; `Some`: it is over.
    fn line(&mut self, line: &[u8], n: usize) -> Option<Taken> {
        match self.state {
            State::After if line.is_empty() => self.state = State::Size,
            State::After => return Some(Taken::Malformed),
            State::Trailers(_) if line.is_empty() => return Some(Taken::All),
            State::Trailers(before) if before + n > TRAILER_BYTES_MAX => return Some(Taken::Malformed),
            State::Trailers(before) => self.state = State::Trailers(before + n),
            State::Size | State::Inside(_) => {
                let Some(size) = size(line) else {
                    return Some(Taken::Malformed);
                };
                if size > self.limit - self.body.len() {
                    return Some(Taken::TooLarge);
                }
                self.state = if size == 0 {
                    State::Trailers(0)
                } else {
                    State::Inside(size)
                };
            }
        }
        None
    }

    /// The body, in memory of its own size.
    pub(super) fn into_body(self) -> Bytes {
        if self.body.capacity() - self.body.len() > self.body.len() / 8 {
            Bytes::copy_from_slice(&self.body)
        } else {
            self.body.into()
        }
    }
}

/// The size at the beginning of a chunk's line; extensions after `;` mean nothing here.
fn size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(method: &Method, status: u16, version: u8, head: &str) -> Option<(Framing, bool)> {
        let text = format!("{head}\r\n\r\n");
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let Ok(httparse::Status::Complete((_, headers))) =
            httparse::parse_headers(text.as_bytes(), &mut headers)
        else {
            panic!("{head}")
        };
        Framing::of(
            method,
            StatusCode::from_u16(status).unwrap(),
            Some(version),
            headers,
        )
        .ok()
    }

    #[test]
    fn the_end_is_found_as_the_standard_says() {
        use Framing::{Chunked, Length, UntilClose};
        for (head, wanted) in [
            ("content-length: 3", Some((Length(3), true))),
            ("content-length: 3, 3", Some((Length(3), true))),
            ("content-length: 3\r\ncontent-length: 3", Some((Length(3), true))),
            ("content-length: 3\r\ncontent-length: 4", None),
            ("content-length: +3", None),
            ("content-length: 99999999999999999999", None),
            ("Transfer-Encoding: Chunked", Some((Chunked, true))),
            ("transfer-encoding: gzip, chunked", None),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", None),
            (
                "transfer-encoding: chunked\r\ncontent-length: 3",
                Some((Chunked, false)),
            ),
            (
                "connection: x, Close\r\ncontent-length: 0",
                Some((Length(0), false)),
            ),
            ("x: y", Some((UntilClose, false))),
        ] {
            assert_eq!(framing(&Method::GET, 200, 1, head), wanted, "{head}");
        }
        for (method, status, version, head, wanted) in [
            (Method::GET, 200, 0, "content-length: 1", (Length(1), false)),
            (
                Method::GET,
                200,
                0,
                "connection: Keep-Alive\r\ncontent-length: 1",
                (Length(1), true),
            ),
            (Method::GET, 204, 1, "x: y", (Length(0), true)),
            (Method::GET, 304, 1, "content-length: 9", (Length(0), true)),
            (Method::HEAD, 200, 1, "content-length: 9", (Length(0), true)),
        ] {
            assert_eq!(
                framing(&method, status, version, head),
                Some(wanted),
                "{status} {head}"
            );
        }
    }

    /// Feeds `text` in pieces of `step` bytes.
    fn fed(text: &[u8], step: usize, limit: usize) -> (Taken, Bytes, usize) {
        let mut chunks = Chunks::new(limit);
        let (mut buffer, mut used_in_all) = (Vec::new(), 0);
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            let (used, taken) = chunks.take(&buffer);
            buffer.drain(..used);
            used_in_all += used;
            if taken != Taken::More {
                return (taken, chunks.into_body(), used_in_all);
            }
        }
        (Taken::More, chunks.into_body(), used_in_all)
    }

    #[test]
    fn chunks_are_joined_however_they_come() {
        let long = [b"1;".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
        for (text, limit, taken, body, left) in [
            (
                &b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"[..],
                5,
                Taken::All,
                "abcde",
                0,
            ),
            (b"0\r\n\r\nHTTP", 5, Taken::All, "", 4),
            (b"1\r\na\r\n0\r\nt: v\r\nu: w\r\n\r\n", 5, Taken::All, "a", 0),
            (b"A\r\n0123456789\r\n0\r\n\r\n", 9, Taken::TooLarge, "", 0),
            (b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", 5, Taken::TooLarge, "abc", 0),
            (b"3\r\nabcX\r\n", 9, Taken::Malformed, "abc", 0),
            (b"-1\r\n", 9, Taken::Malformed, "", 0),
            (b"\r\n", 9, Taken::Malformed, "", 0),
            (b"ffffffffffffffff\r\n", 9, Taken::Malformed, "", 0),
            (&long, 9, Taken::Malformed, "", 0),
            (b"3\r\nab", 9, Taken::More, "ab", 0),
        ] {
            for step in [1, 2, 3, 7, 8192] {
                let (how, bytes, used) = fed(text, step, limit);
                assert_eq!(
                    (how, &bytes[..]),
                    (taken, body.as_bytes()),
                    "{:?} by {step}",
                    text.escape_ascii()
                );
                assert!(taken != Taken::All || used + left == text.len() || step > 1);
            }
        }
    }
}
