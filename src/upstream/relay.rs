//! The body of a relayed answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::UpstreamError;
use super::gate::Slot;
use super::pool::Lease;

/// An answer's body as it comes from upstream, without trailers. Dropped before its end, the connection
/// (or the HTTP/2 stream) is closed.
pub struct RelayBody {
    body: Incoming,
    /// Gone at the end of the body.
    held: Option<(Lease, Option<Slot>)>,
}

impl RelayBody {
    pub(super) fn new(body: Incoming, lease: Lease, slot: Option<Slot>) -> Self {
        let mut relayed = Self {
            body,
            held: Some((lease, slot)),
        };
        if relayed.body.is_end_stream() {
            relayed.finish();
        }
        relayed
    }

    fn finish(&mut self) {
        if let Some((lease, _slot)) = self.held.take() {
            lease.finish();
        }
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            return match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                Poll::Ready(Some(Ok(frame))) => {
                    if self.body.is_end_stream() {
                        self.finish();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => {
                    self.held = None;
                    Poll::Ready(Some(Err(UpstreamError::in_body(error))))
                }
                Poll::Ready(None) => {
                    self.finish();
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for RelayBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayBody")
            .field("ended", &self.held.is_none())
            .finish_non_exhaustive()
    }
}
