//! The body of a client's request on its way to upstream, and what became of it: whether the client is to blame
//! for an exchange that failed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::Arriving;
use super::error::RequestError;

/// A body that is no longer than may be, and reports how it ended.
#[derive(Debug)]
pub(super) struct Upload {
    body: Limited<Either<Full<Bytes>, Incoming>>,
    fate: Fate,
}

/// What became of an [`Upload`]; shared with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

const UNDER_WAY: u8 = 0;
const WHOLE: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;

impl Upload {
    /// `body`, of at most `max_bytes`.
    pub(super) fn new(body: Arriving, max_bytes: usize) -> (Self, Fate) {
        let fate = Fate::default();
        let body = match body {
            Arriving::Whole(body) => Either::Left(Full::new(body)),
            Arriving::Stream(body) => Either::Right(body),
        };
        if body.is_end_stream() {
            fate.set(WHOLE);
        }
        let body = Limited::new(body, max_bytes);
        let upload = Self {
            body,
            fate: fate.clone(),
        };
        (upload, fate)
    }
}

impl Fate {
    fn set(&self, fate: u8) {
        self.0.store(fate, Ordering::Relaxed);
    }

    /// The error to answer with, if the exchange failed because of this body.
    pub(super) fn blame(&self) -> Option<RequestError> {
        match self.0.load(Ordering::Relaxed) {
            TOO_LARGE => Some(RequestError::BodyTooLarge),
            BROKEN => Some(RequestError::BrokenBody),
            _ => None,
        }
    }

    /// Whether the client has not sent all of it.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNDER_WAY
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            Some(Ok(_)) if self.body.is_end_stream() => self.fate.set(WHOLE),
            Some(Ok(_)) => {}
            Some(Err(error)) if error.is::<LengthLimitError>() => self.fate.set(TOO_LARGE),
            Some(Err(_)) => self.fate.set(BROKEN),
            None => self.fate.set(WHOLE),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
