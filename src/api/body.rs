//! Bodies of requests that are read whole.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::metrics::Route;

use super::Worker;
use super::error::RequestError;

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A request body: here already, or still coming.
#[derive(Debug)]
pub enum Arriving {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Stream(Incoming),
}

impl Arriving {
    /// Whether it came, or comes, after its head.
    pub(super) const fn is_late(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// The whole body, if it is no longer than `max` and comes in time.
pub(super) async fn read_body(
    headers: &http::HeaderMap,
    arriving: Arriving,
    max: usize,
) -> Result<Bytes, RequestError> {
    let incoming = match arriving {
        Arriving::Whole(body) if body.len() > max => return Err(RequestError::BodyTooLarge),
        Arriving::Whole(body) => return Ok(body),
        Arriving::Stream(incoming) => incoming,
    };
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max as u64) {
        return Err(RequestError::BodyTooLarge);
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(incoming, max).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(RequestError::BodyTooLarge),
        Ok(Err(_)) => Err(RequestError::BrokenBody),
        Err(_) => Err(RequestError::BodyTimeout),
    }
}

impl Worker {
    /// Takes the body out of a request, and counts it.
    ///
    /// # Errors
    /// When it is too long, broken, or does not come in time.
    pub(super) async fn body_of(
        &self,
        request: &mut Request<Arriving>,
        route: Route,
    ) -> Result<Bytes, RequestError> {
        let arriving = std::mem::replace(request.body_mut(), Arriving::Whole(Bytes::new()));
        let body = match arriving {
            Arriving::Whole(body) if body.len() <= self.proxy.max_body => body,
            other => Box::pin(read_body(request.headers(), other, self.proxy.max_body)).await?,
        };
        self.metrics.request_body(route, body.len() as u64);
        Ok(body)
    }
}
