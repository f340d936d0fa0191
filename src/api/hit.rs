//! Fresh stored responses as responses: the hot path. Nothing here decodes, formats or allocates what could
//! be prepared.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use http::{Response, StatusCode};

use crate::cache::{self, Freshness, Lifetimes, Stored};
use crate::key::raw::{Noted, RawParts};
use crate::metrics::{self, CacheResult, Code, Source};

use super::Worker;
use super::answer::{AnswerBody, CACHE_STATUS, NO_CACHE, NO_STORE, is_request_id, matches_etag, text};

/// The value of `Cache-Status` before the seconds left.
const HIT: &str = "flagside; hit; ttl=";
/// Bodies from here on are not copied behind their head but written beside it.
pub(crate) const COPIED_BYTES_MAX: usize = 8 * 1024;
/// How often the `Date` line is made anew.
const DATE_MILLIS: u128 = 500;

/// Per worker: what would otherwise be formatted per hit. Numbers are not: writing one takes no longer than finding it.
#[derive(Debug)]
pub(super) struct Prepared {
    started: Instant,
    /// Which half second the `Date` line is of.
    dated: Cell<u128>,
    date: RefCell<[u8; 29]>,
}

/// A request as a connection read it: the forms that nearly every SDK sends.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'r> {
    /// Its method.
    pub method: PlainMethod,
    /// Path, beginning with `/`.
    pub path: &'r [u8],
    /// Query without `?`.
    pub query: &'r [u8],
    /// Whole body; empty unless it is a POST.
    pub body: &'r [u8],
}

/// The methods of [`Plain`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlainMethod {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
}

/// What is left to write behind the bytes that were appended.
#[derive(Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// This body.
    Body(Bytes),
}

impl Prepared {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            dated: Cell::new(u128::MAX),
            date: RefCell::new(*b"Thu, 01 Jan 1970 00:00:00 GMT"),
        }
    }

    /// Appends the value of a `Date` header, at most a second old.
    pub(super) fn date(&self, now: Instant, out: &mut Vec<u8>) {
        let due = now.saturating_duration_since(self.started).as_millis() / DATE_MILLIS;
        let mut date = self.date.borrow_mut();
        if self.dated.replace(due) != due {
            let text = httpdate::fmt_http_date(SystemTime::now());
            if let Ok(fresh) = <[u8; 29]>::try_from(text.as_bytes()) {
                *date = fresh;
            }
        }
        out.extend_from_slice(&*date);
    }
}

/// Seconds of freshness that a hit reports.
fn seconds_left(stored: &Stored, lifetimes: &Lifetimes, now: Instant) -> u64 {
    u64::try_from(stored.ttl(lifetimes, now)).unwrap_or(0)
}

impl Worker {
    /// Appends the whole response to a request whose raw parts are known and whose entry is fresh.
    ///
    /// `None` for every other request, with nothing appended: it takes the long way. A large body is not
    /// appended but handed back.
    #[inline]
    pub fn recall_plain<'r>(
        &self,
        plain: &Plain<'r>,
        headers: impl Iterator<Item = (&'r [u8], &'r [u8])>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Rest> {
        let mut scratch = self.scratch.borrow_mut();
        let is_post = plain.method == PlainMethod::Post;
        let mut parts = RawParts::begin(&mut scratch, is_post, plain.path, plain.query);
        headers.for_each(|(name, value)| parts.header(name, value));
        let noted = parts.end(plain.body);
        if noted.n_hosts != 1 || noted.head_bytes > self.proxy.max_headers {
            return None;
        }
        // What a browser with a listed origin or a validator wants is put together the long way.
        if (noted.origin.is_some() && !self.proxy.cors.allows_all()) || noted.if_none_match.is_some() {
            return None;
        }
        let stored = self.find(&scratch, now)?;
        self.metrics.started();
        if is_post {
            self.metrics.request_body(stored.route, plain.body.len() as u64);
        }
        self.write_hit(&stored, &noted, now, out);
        let method = match plain.method {
            PlainMethod::Get => metrics::Method::Get,
            PlainMethod::Head => metrics::Method::Head,
            PlainMethod::Post => metrics::Method::Post,
        };
        let length = stored.body.len();
        let rest = match plain.method {
            PlainMethod::Head => Rest::Nothing,
            _ if length > COPIED_BYTES_MAX => Rest::Body(stored.sent()),
            _ => {
                out.extend_from_slice(&stored.body);
                Rest::Nothing
            }
        };
        self.metrics.answered(
            stored.route,
            method,
            Code::C200,
            Source::Hit,
            now.elapsed(),
            length as u64,
        );
        if let Some(tracer) = &self.proxy.tracer {
            tracer.hit(noted.traceparent, method.as_str(), stored.route, now);
        }
        Some(rest)
    }

    /// The head of a hit. Every line in it was checked when it was stored or prepared.
    fn write_hit(&self, stored: &Stored, noted: &Noted<'_>, now: Instant, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: ");
        out.extend_from_slice(stored.content_type.value().as_bytes());
        let left = seconds_left(stored, &self.proxy.lifetimes, now);
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"\r\ncache-status: ");
        out.extend_from_slice(HIT.as_bytes());
        out.extend_from_slice(digits.format(left).as_bytes());
        out.extend_from_slice(b"\r\nage: ");
        out.extend_from_slice(digits.format(stored.age(now)).as_bytes());
        if let Some(etag) = &stored.etag {
            out.extend_from_slice(b"\r\ncache-control: private, no-cache\r\netag: ");
            out.extend_from_slice(etag.as_bytes());
        } else {
            out.extend_from_slice(b"\r\ncache-control: private, no-store");
        }
        if noted.origin.is_some() {
            out.extend_from_slice(b"\r\naccess-control-allow-origin: *");
        }
        if let Some(id) = noted.request_id.filter(|id| is_request_id(id)) {
            out.extend_from_slice(b"\r\nx-request-id: ");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(stored.body.len()).as_bytes());
        out.extend_from_slice(b"\r\ndate: ");
        self.prepared.date(now, out);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// The fresh entry that these raw parts lead to. What the memo finds is checked as any entry is.
    #[inline]
    pub(super) fn find(&self, raw: &[u8], now: Instant) -> Option<Arc<Stored>> {
        let found = self.memo.borrow_mut().find(self.proxy.keyer.fingerprint(raw))?;
        let stored = found.stored;
        if stored.is_superseded() || stored.freshness(&self.proxy.lifetimes, now) != Freshness::Fresh {
            return None;
        }
        if found.touch {
            self.proxy.cache.touch(found.key);
        }
        self.metrics.cache(cache::name_of(stored.route), CacheResult::Hit);
        Some(stored)
    }

    /// A hit as a response, for requests that came another way.
    pub(super) fn hit(&self, stored: &Arc<Stored>, noted: &Noted<'_>, now: Instant) -> Response<AnswerBody> {
        let matched = match (&stored.etag, noted.if_none_match) {
            (Some(etag), Some(wanted)) => matches_etag(wanted, etag),
            _ => false,
        };
        let body = if matched { Bytes::new() } else { stored.sent() };
        let mut response = Response::new(AnswerBody::full(body));
        if matched {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.reserve(8);
        if !matched {
            headers.append(CONTENT_TYPE, stored.content_type.value().clone());
        }
        let left = seconds_left(stored, &self.proxy.lifetimes, now);
        headers.append(CACHE_STATUS, text(&format!("{HIT}{left}")));
        headers.append(AGE, HeaderValue::from(stored.age(now)));
        if let Some(etag) = &stored.etag {
            headers.append(CACHE_CONTROL, NO_CACHE);
            headers.append(ETAG, HeaderValue::clone(etag));
        } else {
            headers.append(CACHE_CONTROL, NO_STORE);
        }
        response
    }
}
