//! The client of one worker runtime.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsConnector;

use super::ask::Ask;
use super::attempt::{Attempt, refuse};
use super::direct::{KEPT, Lost};
use super::error::{Phase, UpstreamError};
use super::exchange::{BoxError, Outgoing, within};
use super::gate::{Lane, Slot};
use super::headers::clean_response;
use super::pool::{Checkout, Lease, Pool};
use super::relay::RelayBody;
use super::{Gate, Origin, Shared, lock};
use crate::metrics::Operation;

/// A failed attempt, or a request on a kept connection, is repeated only if it failed this fast: a retry must not double the time until a
/// stand-in is used.
const REPEAT_WITHIN: Duration = Duration::from_millis(250);

/// Connections closed beforehand that one attempt may meet.
const LOST_MAX: u32 = 3;

/// A request longer than this leaves no room behind.
const SCRATCH_BYTES_MAX: usize = 32 * 1024;

/// Bytes reserved at once for an announced body; a larger one grows as it arrives.
const RESERVE_BYTES_MAX: usize = 1024 * 1024;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When it is over, retries included.
    pub deadline: Instant,
    /// Bytes of the answer's body.
    pub max_answer: usize,
    /// Whether upstream may see the request twice.
    pub idempotent: bool,
}

/// Calls upstreams from one runtime. Its connections are driven by tasks of that runtime, so it is used on
/// that runtime alone.
pub struct Client {
    shared: Arc<Shared>,
    tls: TlsConnector,
    /// By [`Origin::index`].
    pools: Mutex<Vec<Option<Arc<Pool>>>>,
    /// Room to write requests in; taken by whoever writes one.
    scratch: Mutex<Vec<u8>>,
}

impl Client {
    /// A client without connections.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        let tls = TlsConnector::from(Arc::clone(&shared.tls));
        Self {
            shared: Arc::clone(shared),
            tls,
            pools: Mutex::new(Vec::new()),
            scratch: Mutex::default(),
        }
    }

    /// Sends a request to `origin` and returns the whole answer, of whatever status, with those headers alone
    /// that say what it is and when to come back.
    ///
    /// Retries, if the budget of `gate` has them, are within `limits`. Dropping the future ends the exchange.
    ///
    /// # Errors
    ///
    /// When there is no whole answer by the deadline; see [`UpstreamError`].
    pub async fn fetch(
        &self,
        origin: &Arc<Origin>,
        gate: &Arc<Gate>,
        operation: Operation,
        ask: &Ask<'_>,
        limits: Limits,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let mut now = Instant::now();
        let _slot = self.enter(origin, gate, operation, Lane::Exchange, now)?;
        ask.check()?;
        let mut timer = pin!(sleep_until(self.head_by(now, limits.deadline)));
        let mut retries_left = self.shared.settings.retries;
        let mut attempt = self.begin_first(origin, gate, operation, now)?;
        loop {
            let result = self.exchange(origin, ask, timer.as_mut(), limits, now).await;
            now = Instant::now();
            let repeat = retries_left > 0
                && limits.idempotent
                && attempt.took(now) <= REPEAT_WITHIN
                && is_worth_repeating(&result)
                && now < limits.deadline;
            match &result {
                Ok(response) => attempt.answered(response.status(), now),
                Err(error) => attempt.failed(error, now),
            }
            if !repeat || !gate.budget.take(now) {
                return result;
            }
            // If the breaker opened meanwhile, the failure that opened it is the better answer.
            let Some(next) = self.begin(origin, gate, operation, now) else {
                return result;
            };
            self.shared.observer.retried(origin, operation);
            retries_left -= 1;
            attempt = next;
        }
    }

    /// Sends `request` to `origin` and returns the answer as soon as its head is there; bodies are
    /// streamed both ways, and nothing bounds the time of the answer's.
    ///
    /// `head_deadline` bounds the time to the head, the sending of the request included. There are no
    /// retries, but a request that met a connection just closed is sent again if that is safe.
    ///
    /// # Errors
    ///
    /// When there is no head in time; see [`UpstreamError`].
    pub async fn relay<B>(
        &self,
        origin: &Arc<Origin>,
        gate: &Arc<Gate>,
        operation: Operation,
        request: Request<B>,
        head_deadline: Duration,
    ) -> Result<Response<RelayBody>, UpstreamError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let now = Instant::now();
        let deadline = now + head_deadline;
        let slot = self.enter(origin, gate, operation, Lane::Relay, now)?;
        let mut outgoing = Outgoing::streamed(origin, request)?;
        let timer = pin!(sleep_until(deadline));
        let attempt = self.begin_first(origin, gate, operation, now)?;
        match self
            .respond(origin, &mut outgoing, timer, deadline, head_deadline, None)
            .await
        {
            Err(error) => {
                attempt.relay_failed(&error, Instant::now());
                Err(error)
            }
            Ok((lease, response)) => {
                attempt.answered(response.status(), Instant::now());
                // A stream of events may last for days; only its beginning takes a slot.
                let slot = (operation != Operation::Stream).then_some(slot);
                Ok(response.map(|body| RelayBody::new(body, lease, slot)))
            }
        }
    }

    /// Closes connections that have been idle for long. Calling it now and then keeps a quiet proxy small;
    /// not calling it breaks nothing.
    pub fn close_idle(&self, now: Instant) {
        let pools: Vec<_> = lock(&self.pools).iter().flatten().cloned().collect();
        for pool in pools {
            pool.close_idle(now);
        }
    }

    fn enter(
        &self,
        origin: &Arc<Origin>,
        gate: &Arc<Gate>,
        operation: Operation,
        lane: Lane,
        now: Instant,
    ) -> Result<Slot, UpstreamError> {
        origin.resolver().touch(now);
        let observer = self.shared.observer.as_ref();
        gate.enter(lane, now)
            .ok_or_else(|| refuse(origin, operation, observer, UpstreamError::Busy))
    }

    fn begin<'a>(
        &'a self,
        origin: &'a Arc<Origin>,
        gate: &'a Arc<Gate>,
        operation: Operation,
        now: Instant,
    ) -> Option<Attempt<'a>> {
        Attempt::begin(origin, gate, operation, self.shared.observer.as_ref(), now)
    }

    fn begin_first<'a>(
        &'a self,
        origin: &'a Arc<Origin>,
        gate: &'a Arc<Gate>,
        operation: Operation,
        now: Instant,
    ) -> Result<Attempt<'a>, UpstreamError> {
        let observer = self.shared.observer.as_ref();
        self.begin(origin, gate, operation, now)
            .ok_or_else(|| refuse(origin, operation, observer, UpstreamError::CircuitOpen))
    }

    /// When the head of a response to a request sent now must be there.
    fn head_by(&self, now: Instant, deadline: Instant) -> Instant {
        deadline.min(now + self.shared.settings.request_timeout)
    }

    fn pool(&self, origin: &Arc<Origin>) -> Arc<Pool> {
        let mut pools = lock(&self.pools);
        if pools.len() <= origin.index() {
            pools.resize(origin.index() + 1, None);
        }
        let pool = pools[origin.index()].get_or_insert_with(|| {
            let settings = &self.shared.settings;
            Pool::new(
                origin,
                self.tls.clone(),
                settings.connect_timeout,
                settings.pool_max_idle,
            )
        });
        Arc::clone(pool)
    }

    /// One attempt of a fetch: request, head, body.
    async fn exchange(
        &self,
        origin: &Arc<Origin>,
        ask: &Ask<'_>,
        mut timer: Pin<&mut Sleep>,
        limits: Limits,
        mut now: Instant,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let pool = self.pool(origin);
        let mut n_lost = 0;
        loop {
            let mut lease = take(&pool, n_lost > 0, timer.as_mut(), limits.deadline, &mut now).await?;
            let sent_at = now;
            match self
                .exchange_directly(origin, ask, timer.as_mut(), limits, &mut lease, sent_at)
                .await?
            {
                Directly::Answered(response) => return Ok(response),
                Directly::NotFit => {
                    // Rare, and too large to be a part of every exchange.
                    return Box::pin(self.exchange_by_library(origin, ask, timer, limits, lease)).await;
                }
                Directly::Lost(lost) => {
                    // A connection closed beforehand fails at once; one that fails later failed for this request.
                    // Whoever waits for a new one may be handed another that was used before.
                    n_lost += 1;
                    let beforehand = lease.is_reused() && sent_at.elapsed() <= REPEAT_WITHIN;
                    let is_safe = lost.unsent || (lost.closed && limits.idempotent);
                    if !(beforehand && is_safe && n_lost <= LOST_MAX) {
                        return Err(lost.error);
                    }
                    now = Instant::now();
                }
            }
        }
    }

    /// Over a connection whose bytes are read here. Whatever ends it early leaves the connection unusable.
    async fn exchange_directly(
        &self,
        origin: &Arc<Origin>,
        ask: &Ask<'_>,
        mut timer: Pin<&mut Sleep>,
        limits: Limits,
        lease: &mut Lease,
        now: Instant,
    ) -> Result<Directly, UpstreamError> {
        let Some(direct) = lease.direct() else {
            return Ok(Directly::NotFit);
        };
        let mut request = std::mem::take(&mut *lock(&self.scratch));
        request.clear();
        if !ask.write(origin, &mut request) {
            return Ok(Directly::NotFit);
        }
        let head_by = self.head_by(now, limits.deadline);
        let head = within(timer.as_mut(), head_by, pin!(direct.ask(ask.method, &request))).await;
        if request.capacity() <= SCRATCH_BYTES_MAX {
            *lock(&self.scratch) = request;
        }
        let head = match head {
            Ok(Ok(head)) => head,
            Ok(Err(lost)) => return Ok(Directly::Lost(lost)),
            Err(_) => return Err(UpstreamError::Timeout(Phase::Head)),
        };
        if is_encoded(&head.headers) {
            return Err(UpstreamError::Encoded);
        }
        let body = within(
            timer,
            limits.deadline,
            pin!(direct.body(&head, limits.max_answer)),
        )
        .await
        .map_err(|_| UpstreamError::Timeout(Phase::Body))??;
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(Directly::Answered(response))
    }

    /// Over a connection of the HTTP library: HTTP/2, and requests that are not for the other way.
    async fn exchange_by_library(
        &self,
        origin: &Arc<Origin>,
        ask: &Ask<'_>,
        mut timer: Pin<&mut Sleep>,
        limits: Limits,
        lease: Lease,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let request_timeout = self.shared.settings.request_timeout;
        let mut outgoing = Outgoing::whole(origin, ask, limits.idempotent)?;
        let (lease, response) = self
            .respond(
                origin,
                &mut outgoing,
                timer.as_mut(),
                limits.deadline,
                request_timeout,
                Some(lease),
            )
            .await?;
        let (mut parts, body) = response.into_parts();
        keep(&mut parts.headers);
        if is_encoded(&parts.headers) {
            return Err(UpstreamError::Encoded);
        }
        match within(timer, limits.deadline, pin!(collect(body, limits.max_answer))).await {
            Ok(Ok(body)) => {
                lease.finish();
                Ok(Response::from_parts(parts, body))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                lease.discard();
                Err(UpstreamError::Timeout(Phase::Body))
            }
        }
    }

    /// Sends a request and waits for the head of its response. A request that met a connection which
    /// upstream had closed in the meantime is sent again, once, over a new one.
    async fn respond(
        &self,
        origin: &Arc<Origin>,
        outgoing: &mut Outgoing,
        mut timer: Pin<&mut Sleep>,
        deadline: Instant,
        request_timeout: Duration,
        mut first: Option<Lease>,
    ) -> Result<(Lease, Response<Incoming>), UpstreamError> {
        let pool = self.pool(origin);
        let mut fresh = false;
        loop {
            let mut lease = match first.take() {
                Some(lease) => lease,
                None => take(&pool, fresh, timer.as_mut(), deadline, &mut Instant::now()).await?,
            };
            lease.prepare().await?;
            let request = outgoing.build(origin, &lease)?;
            let sent_at = Instant::now();
            let head_by = deadline.min(sent_at + request_timeout);
            let Ok(sent) = within(timer.as_mut(), head_by, pin!(lease.send(request))).await else {
                lease.discard();
                return Err(UpstreamError::Timeout(Phase::Head));
            };
            let lost = match sent {
                Ok(response) => return Ok((lease, checked(response)?)),
                Err(lost) => lost,
            };
            // A connection closed beforehand fails at once; one that fails later failed for this request.
            let again = !fresh && lease.is_reused() && sent_at.elapsed() <= REPEAT_WITHIN;
            let broken = lease.is_broken();
            if broken || lost.unsent.is_some() {
                lease.discard();
            }
            match lost.unsent {
                Some(request) if again => outgoing.restore(request),
                None if again && broken && outgoing.is_repeatable() && is_closed(&lost.error) => {}
                _ => return Err(UpstreamError::before_head(lost.error)),
            }
            fresh = true;
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// How an exchange over a connection whose bytes are read here went.
enum Directly {
    Answered(Response<Bytes>),
    /// Nothing was sent: the connection or the request is not for this way.
    NotFit,
    Lost(Lost),
}

/// A connection, opened if none is idle; then `now` is when it was.
async fn take(
    pool: &Arc<Pool>,
    fresh: bool,
    timer: Pin<&mut Sleep>,
    deadline: Instant,
    now: &mut Instant,
) -> Result<Lease, UpstreamError> {
    match pool.checkout(fresh, *now) {
        Checkout::Ready(lease) => Ok(lease),
        Checkout::Wait(opening) => {
            let opened = within(timer, deadline, pin!(opening)).await;
            *now = Instant::now();
            match opened {
                Ok(Ok(opened)) => opened,
                // The runtime is going down, or no connection came in time.
                Ok(Err(_)) | Err(_) => Err(UpstreamError::Timeout(Phase::Connect)),
            }
        }
    }
}

/// A head that may be passed on, cleaned.
fn checked(mut response: Response<Incoming>) -> Result<Response<Incoming>, UpstreamError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpstreamError::Upgraded);
    }
    clean_response(response.headers_mut());
    response.extensions_mut().clear();
    Ok(response)
}

/// Whether a connection ended without a byte of a response.
fn is_closed(error: &hyper::Error) -> bool {
    !(error.is_parse() || error.is_parse_too_large() || error.is_user() || error.is_body_write_aborted())
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether another replica might do better: the connection failed, or a gateway had nobody to ask. Not 504,
/// whose wait would double, and not when upstream says when to come back.
fn is_worth_repeating(result: &Result<Response<Bytes>, UpstreamError>) -> bool {
    match result {
        Err(error) => error.is_retryable(),
        Ok(response) => {
            matches!(
                response.status(),
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
            ) && !response.headers().contains_key(RETRY_AFTER)
        }
    }
}

/// The whole body, in memory of its own: pieces are parts of the connection's read buffer, which an answer that
/// is kept for long would keep whole, many times its own size.
async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, UpstreamError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(UpstreamError::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(UpstreamError::in_body)?.into_data() else {
            continue;
        };
        if first.len() + all.len() + piece.len() > limit {
            return Err(UpstreamError::TooLarge { limit });
        }
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.min(RESERVE_BYTES_MAX).max(first.len() + piece.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
    if all.is_empty() {
        return Ok(Bytes::copy_from_slice(&first));
    }
    let spare = all.capacity() - all.len();
    Ok(if spare > all.len() / 8 {
        Bytes::copy_from_slice(&all)
    } else {
        all.freeze()
    })
}

/// Leaves the headers that are looked at, with values in memory of their own, for the same reason.
fn keep(headers: &mut HeaderMap) {
    let mut kept = HeaderMap::new();
    for name in &KEPT {
        for value in headers.get_all(name) {
            if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
                kept.append(name.clone(), own);
            }
        }
    }
    *headers = kept;
}
