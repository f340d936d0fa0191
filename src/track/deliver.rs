//! Delivery: takes batches out of a queue and sends them, with pauses where upstream fails.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{Response, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::queue::{Batch, Queue};
use super::{Form, Outbound};
use crate::metrics::{EventDrop, Operation};
use crate::task::Stop;
use crate::telemetry::Suppress;
use crate::upstream::{Ask, Backoff, Client, Limits, UpstreamError, random_unit, retry_after};

/// Batches under way at once: usually, and when the process is about to end.
const PARALLEL: usize = 4;
const PARALLEL_AT_THE_END: usize = 32;
/// Longest pause that upstream may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Longest pause when the process is about to end.
const LAST_PAUSE_MAX: Duration = Duration::from_millis(250);
/// How often it is looked what has expired.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// Bytes of an answer; nobody reads it.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Lines about failures in ten seconds.
const FAILURE_LINES: u32 = 3;

/// Clocks of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For one attempt, see [`Limits::deadline`].
    pub attempt: Duration,
    /// For everything that is left once the process is to end.
    pub grace: Duration,
    /// Between two attempts of one lane.
    pub backoff: Backoff,
}

impl Default for Pace {
    /// 8 s for an attempt, 3 s in the end, 1 s to a minute between two attempts.
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(8),
            grace: Duration::from_secs(3),
            backoff: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
            },
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Sent,
    /// It may go better later, at the earliest after this long.
    Later(Option<Duration>),
    TooLarge,
    Rejected,
}

/// Delivers what is in `queue` until `stop` is requested, and then for at most [`Pace::grace`] what is left.
/// From `ending` on nothing lingers and pauses are short. What could not be delivered in the end is counted.
pub async fn deliver<F: Form>(
    queue: Arc<Queue<F::Lane>>,
    form: F,
    client: Arc<Client>,
    pace: Pace,
    ending: Stop,
    stop: Stop,
) {
    let failures = Suppress::new(FAILURE_LINES);
    let mut sending = FuturesUnordered::new();
    let mut expire_at = Instant::now() + EXPIRE_EVERY;
    let mut hurrying = false;
    let mut give_up_at = None;
    loop {
        let now = Instant::now();
        if !hurrying && (ending.is_requested() || stop.is_requested()) {
            hurrying = true;
            queue.hurry(now);
        }
        let parallel = if hurrying { PARALLEL_AT_THE_END } else { PARALLEL };
        while sending.len() < parallel {
            let Some(batch) = queue.take(now) else { break };
            sending.push(attempt(&form, &client, batch, pace.attempt, &failures));
        }
        if stop.is_requested() {
            let by = *give_up_at.get_or_insert(now + pace.grace);
            if queue.is_empty() || now >= by {
                break;
            }
        }
        if now >= expire_at {
            queue.expire(SystemTime::now());
            expire_at = now + EXPIRE_EVERY;
        }
        let due = queue.next_due().filter(|_| sending.len() < parallel);
        let wake_at = [due, give_up_at]
            .into_iter()
            .flatten()
            .fold(expire_at, Instant::min);
        tokio::select! {
            Some((batch, outcome)) = sending.next() => settle(&queue, batch, outcome, &pace.backoff, hurrying),
            () = queue.changed() => {}
            () = sleep_until(wake_at) => {}
            () = ending.requested(), if !hurrying => {}
            () = stop.requested(), if give_up_at.is_none() => {}
        }
    }
    drop(sending);
    let left = queue.abandon();
    if left > 0 {
        tracing::warn!(
            kind = F::KIND.as_str(),
            events = left,
            "events were lost: upstream did not take them before the end"
        );
    }
}

fn settle<L: Clone + Eq + std::hash::Hash>(
    queue: &Queue<L>,
    batch: Batch<L>,
    outcome: Outcome,
    backoff: &Backoff,
    hurrying: bool,
) {
    let now = Instant::now();
    match outcome {
        Outcome::Sent => queue.sent(batch, now),
        Outcome::TooLarge if batch.len() > 1 => queue.split(batch, now),
        Outcome::Rejected | Outcome::TooLarge => queue.dropped(batch, EventDrop::Rejected, now),
        Outcome::Later(after) => {
            let own = backoff.pause(batch.failures.saturating_add(1), random_unit());
            let pause = own.max(after.unwrap_or_default().min(RETRY_AFTER_MAX));
            let longest = if hurrying { LAST_PAUSE_MAX } else { pause };
            queue.later(batch, pause.min(longest), now);
        }
    }
}

async fn attempt<F: Form>(
    form: &F,
    client: &Client,
    batch: Batch<F::Lane>,
    within: Duration,
    failures: &Suppress,
) -> (Batch<F::Lane>, Outcome) {
    let Some(Outbound {
        origin,
        gate,
        request,
    }) = form.outbound(&batch.lane, &batch.texts())
    else {
        return (batch, Outcome::Rejected);
    };
    let limits = Limits {
        deadline: Instant::now() + within,
        max_answer: ANSWER_BYTES_MAX,
        idempotent: false,
    };
    let answered = client
        .fetch(&origin, &gate, Operation::Events, &Ask::of(&request), limits)
        .await;
    let outcome = judge(&answered, SystemTime::now());
    let (kind, events) = (F::KIND.as_str(), batch.len());
    let said = match &answered {
        Ok(response) => format!("it answered {}", response.status().as_u16()),
        Err(error) => error.to_string(),
    };
    match outcome {
        Outcome::Sent => {}
        // Each failure of the connection is told by the upstream side already.
        Outcome::Later(_) => tracing::debug!(kind, events, "events wait for upstream: {said}"),
        Outcome::TooLarge | Outcome::Rejected => {
            if let Some(suppressed) = failures.allow(StdInstant::now()) {
                tracing::warn!(
                    kind,
                    events,
                    suppressed,
                    environment = gate.name(),
                    "upstream does not want these events: {said}"
                );
            }
        }
    }
    (batch, outcome)
}

/// What an answer means for the batch.
fn judge(answered: &Result<Response<Bytes>, UpstreamError>, now: SystemTime) -> Outcome {
    let response = match answered {
        Ok(response) => response,
        // Nothing was sent that could ever be.
        Err(UpstreamError::Unsendable) => return Outcome::Rejected,
        Err(_) => return Outcome::Later(None),
    };
    match response.status() {
        status if status.is_success() => Outcome::Sent,
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge,
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Outcome::Later(retry_after(response.headers(), now)),
        status if status.is_server_error() => Outcome::Later(retry_after(response.headers(), now)),
        _ => Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests;
