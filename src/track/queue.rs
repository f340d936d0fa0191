//! What waits to be delivered: one bounded queue, ordered within each lane.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{EventDrop, EventMetrics};

/// What an event costs beside its text, about.
const EVENT_OVERHEAD_BYTES: usize = 96;

/// Bounds of a queue and of the batches that are made of it.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Events that may wait, those under way included.
    pub max_events: usize,
    /// Their bytes.
    pub max_bytes: usize,
    /// An event that waited longer is dropped.
    pub max_age: Duration,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
    /// Events of one batch.
    pub batch_events: usize,
    /// Bytes of one batch; a single event may be larger.
    pub batch_bytes: usize,
}

impl Default for QueueLimits {
    /// 10,000 events (design 9) of 16 MiB for at most a day; batches of 500 events or 256 KiB, 500 ms of linger:
    /// SDKs have gathered their events for a second or more already.
    fn default() -> Self {
        Self {
            max_events: 10_000,
            max_bytes: 16 << 20,
            max_age: Duration::from_secs(24 * 3600),
            linger: Duration::from_millis(500),
            batch_events: 500,
            batch_bytes: 256 << 10,
        }
    }
}

/// Events that wait, by lane. May be filled from any thread.
pub struct Queue<L> {
    limits: QueueLimits,
    metrics: Arc<EventMetrics>,
    state: Mutex<State<L>>,
    changed: Notify,
}

struct State<L> {
    lanes: HashMap<L, LaneState>,
    /// Lanes from which nothing is under way, by when their next batch is due.
    schedule: BTreeMap<Turn, L>,
    /// Events that wait or are under way, and their bytes.
    events: usize,
    bytes: usize,
    next_turn: u64,
    /// Nothing lingers any more.
    hurrying: bool,
}

/// When a lane's next batch is due; the number makes it unique.
type Turn = (Instant, u64);

struct LaneState {
    waiting: VecDeque<Event>,
    bytes: usize,
    /// Its place in the schedule; none while a batch of it is under way.
    turn: Option<Turn>,
    failures: u32,
    /// Events of its next batch, where upstream found one too large.
    batch_events: usize,
}

#[derive(Clone, Debug)]
struct Event {
    came: SystemTime,
    text: Bytes,
}

impl Event {
    fn cost(&self) -> usize {
        self.text.len() + EVENT_OVERHEAD_BYTES
    }
}

/// Events of one lane on their way to upstream. It must come back to [`Queue`] in one of three ways: sent, later,
/// dropped; one that does not blocks its lane.
#[derive(Debug)]
pub struct Batch<L> {
    /// Whose.
    pub lane: L,
    /// How often in a row the lane has failed before.
    pub failures: u32,
    events: Vec<Event>,
}

impl<L> Batch<L> {
    /// The events, oldest first.
    #[must_use]
    pub fn texts(&self) -> Vec<Bytes> {
        self.events.iter().map(|event| event.text.clone()).collect()
    }

    /// Their number, at least 1.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// Never true of a batch that a queue gave out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl<L: Clone + Eq + Hash> Queue<L> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits, metrics: Arc<EventMetrics>) -> Self {
        metrics.set_capacity(limits.max_events as u64);
        Self {
            limits,
            metrics,
            state: Mutex::new(State {
                lanes: HashMap::new(),
                schedule: BTreeMap::new(),
                events: 0,
                bytes: 0,
                next_turn: 0,
                hurrying: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Takes events on, in their order; those for which there is no room are dropped. Says how many were taken.
    pub fn push(&self, lane: &L, texts: impl IntoIterator<Item = Bytes>, now: Instant) -> usize {
        let came = SystemTime::now();
        let (mut received, mut taken) = (0, 0);
        let mut state = self.state();
        for text in texts {
            received += 1;
            let event = Event { came, text };
            let full =
                state.events >= self.limits.max_events || state.bytes + event.cost() > self.limits.max_bytes;
            if full {
                continue;
            }
            state.add(lane, event, &self.limits, now);
            taken += 1;
        }
        self.metrics.received(received as u64);
        self.metrics
            .dropped(EventDrop::QueueFull, (received - taken) as u64);
        if taken > 0 {
            self.told(&state);
            drop(state);
            self.changed.notify_one();
        }
        taken
    }

    /// Takes the next batch that is due out of its lane.
    #[must_use]
    pub fn take(&self, now: Instant) -> Option<Batch<L>> {
        self.state().take(&self.limits, now)
    }

    /// When the next batch is due; none while nothing waits that is not under way.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.state().schedule.keys().next().map(|(due, _)| *due)
    }

    /// A batch was delivered.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a batch that came back must not be used again"
    )]
    pub fn sent(&self, batch: Batch<L>, now: Instant) {
        self.metrics.sent(batch.len() as u64);
        let mut state = self.state();
        state.forget(&batch.events);
        state.back(&batch.lane, now, |lane| {
            lane.failures = 0;
            lane.batch_events = self.limits.batch_events.min(lane.batch_events.saturating_mul(2));
        });
        self.told(&state);
    }

    /// A batch is given up.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a batch that came back must not be used again"
    )]
    pub fn dropped(&self, batch: Batch<L>, reason: EventDrop, now: Instant) {
        self.metrics.dropped(reason, batch.len() as u64);
        let mut state = self.state();
        state.forget(&batch.events);
        state.back(&batch.lane, now, |lane| lane.failures = 0);
        self.told(&state);
    }

    /// A batch could not be delivered: it goes back to the front of its lane, which pauses.
    pub fn later(&self, batch: Batch<L>, pause: Duration, now: Instant) {
        self.put_back(batch, now + pause, |lane| {
            lane.failures = lane.failures.saturating_add(1);
        });
    }

    /// A batch of more than one event was too large for upstream: it is tried again in smaller ones.
    pub fn split(&self, batch: Batch<L>, now: Instant) {
        let half = (batch.len() / 2).max(1);
        self.put_back(batch, now, |lane| lane.batch_events = half);
    }

    fn put_back(&self, batch: Batch<L>, due: Instant, change: impl FnOnce(&mut LaneState)) {
        let mut state = self.state();
        state.back(&batch.lane, due, |lane| {
            for event in batch.events.into_iter().rev() {
                lane.bytes += event.cost();
                lane.waiting.push_front(event);
            }
            change(lane);
        });
    }

    /// Makes every lane due, and ends lingering: the process is about to end.
    pub fn hurry(&self, now: Instant) {
        let mut state = self.state();
        state.hurrying = true;
        for (_, lane) in std::mem::take(&mut state.schedule) {
            state.schedule(&lane, now);
        }
    }

    /// Drops what waited too long and tells the metrics how old the oldest event is. To be called now and then.
    pub fn expire(&self, now: SystemTime) {
        let mut state = self.state();
        let expired = state.expire(now, self.limits.max_age);
        self.metrics.dropped(EventDrop::Expired, expired as u64);
        self.told(&state);
    }

    /// Drops everything that waits, and says how much that was.
    pub fn abandon(&self) -> usize {
        let mut state = self.state();
        let left = state.events;
        self.metrics.dropped(EventDrop::Shutdown, left as u64);
        state.lanes.clear();
        state.schedule.clear();
        (state.events, state.bytes) = (0, 0);
        self.metrics.set_waiting(0, None);
        left
    }

    /// Waits until events came. One wait may stand for many.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Events that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().events
    }

    /// Whether everything was delivered or dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, state: &State<L>) {
        // Lanes in the order of their turns are nearly in the order of their oldest events.
        let first = state.schedule.values().next();
        let oldest = first.and_then(|lane| Some(state.lanes.get(lane)?.waiting.front()?.came));
        self.metrics.set_waiting(state.events as u64, oldest);
    }
}

impl<L> fmt::Debug for Queue<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<L: Clone + Eq + Hash> State<L> {
    fn add(&mut self, name: &L, event: Event, limits: &QueueLimits, now: Instant) {
        if !self.lanes.contains_key(name) {
            let lane = LaneState {
                waiting: VecDeque::new(),
                bytes: 0,
                turn: None,
                failures: 0,
                batch_events: limits.batch_events,
            };
            self.lanes.insert(name.clone(), lane);
            let linger = if self.hurrying {
                Duration::ZERO
            } else {
                limits.linger
            };
            self.schedule(name, now + linger);
        }
        self.events += 1;
        self.bytes += event.cost();
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        lane.bytes += event.cost();
        lane.waiting.push_back(event);
        let full = lane.waiting.len() >= lane.batch_events || lane.bytes >= limits.batch_bytes;
        if full && lane.failures == 0 && lane.turn.is_some_and(|(due, _)| due > now) {
            self.schedule(name, now);
        }
    }

    /// Gives a lane a turn, instead of the one it has.
    fn schedule(&mut self, name: &L, due: Instant) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        let turn = (due, self.next_turn);
        self.next_turn += 1;
        if let Some(before) = lane.turn.replace(turn) {
            self.schedule.remove(&before);
        }
        self.schedule.insert(turn, name.clone());
    }

    fn take(&mut self, limits: &QueueLimits, now: Instant) -> Option<Batch<L>> {
        let first = self.schedule.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let name = first.remove();
        let lane = self.lanes.get_mut(&name)?;
        lane.turn = None;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(event) = lane.waiting.front() {
            let over = bytes + event.text.len() > limits.batch_bytes || events.len() >= lane.batch_events;
            if over && !events.is_empty() {
                break;
            }
            bytes += event.text.len();
            lane.bytes -= event.cost();
            events.extend(lane.waiting.pop_front());
        }
        let failures = lane.failures;
        if events.is_empty() {
            // All of it had expired.
            self.lanes.remove(&name);
            return None;
        }
        Some(Batch {
            lane: name,
            failures,
            events,
        })
    }

    /// A batch of the lane is no longer under way: `change` it; it goes on at `due`, or ends if nothing waits.
    fn back(&mut self, name: &L, due: Instant, change: impl FnOnce(&mut LaneState)) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        change(lane);
        if lane.waiting.is_empty() {
            self.lanes.remove(name);
        } else {
            self.schedule(name, due);
        }
    }

    fn forget(&mut self, events: &[Event]) {
        self.events = self.events.saturating_sub(events.len());
        let bytes: usize = events.iter().map(Event::cost).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn expire(&mut self, now: SystemTime, max_age: Duration) -> usize {
        let mut gone = Vec::new();
        for lane in self.lanes.values_mut() {
            while let Some(event) = lane.waiting.front()
                && now.duration_since(event.came).is_ok_and(|age| age > max_age)
            {
                lane.bytes -= event.cost();
                gone.extend(lane.waiting.pop_front());
            }
        }
        self.forget(&gone);
        gone.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> QueueLimits {
        QueueLimits {
            max_events: 6,
            max_bytes: 10_000,
            max_age: Duration::from_secs(60),
            linger: Duration::from_secs(1),
            batch_events: 3,
            batch_bytes: 1_000,
        }
    }

    fn queue(limits: QueueLimits) -> (Queue<&'static str>, Arc<EventMetrics>) {
        let metrics: Arc<EventMetrics> = Arc::default();
        (Queue::new(limits, Arc::clone(&metrics)), metrics)
    }

    fn texts(texts: &[&'static str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    fn taken(queue: &Queue<&'static str>, now: Instant) -> Option<(&'static str, Vec<Bytes>)> {
        let batch = queue.take(now)?;
        let taken = (batch.lane, batch.texts());
        queue.sent(batch, now);
        Some(taken)
    }

    #[test]
    fn events_linger_for_others_and_a_full_batch_goes_at_once() {
        let (queue, metrics) = queue(limits());
        let now = Instant::now();
        queue.push(&"a", texts(&["1", "2"]), now);
        assert!(queue.take(now).is_none(), "others may come");
        assert_eq!(queue.next_due(), Some(now + limits().linger));
        queue.push(&"a", texts(&["3", "4"]), now);
        assert_eq!(taken(&queue, now), Some(("a", texts(&["1", "2", "3"]))));
        assert_eq!(taken(&queue, now), Some(("a", texts(&["4"]))));
        assert!(queue.is_empty() && queue.next_due().is_none());
        assert_eq!(metrics.sent_total(), 4);
    }

    #[test]
    fn a_full_queue_refuses_what_is_new() {
        let (queue, metrics) = queue(limits());
        let now = Instant::now();
        assert_eq!(queue.push(&"a", texts(&["1", "2", "3", "4"]), now), 4);
        assert_eq!(queue.push(&"b", texts(&["5", "6", "7"]), now), 2);
        assert_eq!(metrics.dropped_total(EventDrop::QueueFull), 1);
        let large = vec![Bytes::from(vec![b'x'; 10_000])];
        let (queue, _) = self::queue(limits());
        assert_eq!(queue.push(&"a", large, now), 0, "too many bytes");
        assert_eq!(queue.push(&"a", texts(&["1"]), now), 1);
    }

    #[test]
    fn what_is_under_way_takes_room_and_blocks_its_lane_alone() {
        let (queue, _) = queue(limits());
        let now = Instant::now();
        queue.push(&"a", texts(&["1", "2", "3", "4"]), now);
        queue.push(&"b", texts(&["5", "6"]), now);
        let batch = queue.take(now).unwrap();
        let later = now + limits().linger;
        assert_eq!(queue.push(&"c", texts(&["7"]), now), 0, "six are waiting still");
        assert_eq!(taken(&queue, later), Some(("b", texts(&["5", "6"]))));
        assert!(queue.take(later).is_none(), "a's first batch is under way");
        queue.later(batch, Duration::from_secs(5), later);
        assert!(queue.take(later).is_none(), "it pauses");
        let again = queue.take(later + Duration::from_secs(5)).unwrap();
        assert_eq!((again.failures, again.texts()), (1, texts(&["1", "2", "3"])));
        queue.dropped(again, EventDrop::Rejected, later);
        assert_eq!(taken(&queue, later), Some(("a", texts(&["4"]))));
    }

    #[test]
    fn a_pausing_lane_is_not_hurried_by_new_events_but_by_the_end() {
        let (queue, _) = queue(limits());
        let now = Instant::now();
        queue.push(&"a", texts(&["1", "2", "3"]), now);
        let batch = queue.take(now).unwrap();
        queue.later(batch, Duration::from_secs(60), now);
        queue.push(&"a", texts(&["4"]), now);
        assert!(queue.take(now).is_none());
        queue.hurry(now);
        assert_eq!(taken(&queue, now), Some(("a", texts(&["1", "2", "3"]))));
        queue.push(&"b", texts(&["5"]), now);
        assert_eq!(taken(&queue, now), Some(("a", texts(&["4"]))));
        assert_eq!(
            taken(&queue, now),
            Some(("b", texts(&["5"]))),
            "without lingering"
        );
    }

    #[test]
    fn batches_are_bounded_by_bytes_and_a_large_event_goes_alone() {
        let (queue, _) = queue(limits());
        let now = Instant::now();
        let event = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        queue.push(&"a", [event(600), event(600), event(2_000), event(1)], now);
        for wanted in [vec![600], vec![600], vec![2_000], vec![1]] {
            let (_, batch) = taken(&queue, now + limits().linger).unwrap();
            assert_eq!(batch.iter().map(Bytes::len).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_batch_that_is_too_large_is_halved_and_grows_again() {
        let (queue, _) = queue(limits());
        let now = Instant::now();
        queue.push(&"a", texts(&["1", "2", "3", "4", "5"]), now);
        let batch = queue.take(now).unwrap();
        queue.split(batch, now);
        assert_eq!(taken(&queue, now), Some(("a", texts(&["1"]))));
        assert_eq!(taken(&queue, now), Some(("a", texts(&["2", "3"]))));
        assert_eq!(taken(&queue, now), Some(("a", texts(&["4", "5"]))));
    }

    #[test]
    fn what_waits_too_long_expires() {
        let (queue, metrics) = queue(limits());
        let now = Instant::now();
        queue.push(&"a", texts(&["1", "2"]), now);
        queue.expire(SystemTime::now() + Duration::from_secs(30));
        assert_eq!(queue.len(), 2);
        queue.expire(SystemTime::now() + Duration::from_secs(61));
        assert_eq!((queue.len(), metrics.dropped_total(EventDrop::Expired)), (0, 2));
        assert!(queue.take(now + limits().linger).is_none());
        queue.push(&"a", texts(&["3"]), now);
        assert!(queue.next_due().is_some(), "the lane begins anew");
    }

    #[test]
    fn what_is_left_at_the_end_is_counted() {
        let (queue, metrics) = queue(limits());
        queue.push(&"a", texts(&["1", "2"]), Instant::now());
        assert_eq!(queue.abandon(), 2);
        assert_eq!(metrics.dropped_total(EventDrop::Shutdown), 2);
        assert!(queue.is_empty());
    }
}
