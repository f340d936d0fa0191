//! Coalescing: one upstream request per question, however many wait for it.
//!
//! A flight is a fetch that has begun. Whoever begins it sees to it that it goes on when they leave, so that no waiter's
//! leaving cancels it; whoever asks the same meanwhile waits for its end. A flight that dies (its task
//! panicked or was dropped) tells its waiters so. Every waiter keeps its own clocks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::key::Key;

const SHARDS: usize = 16;

/// What a flight is told apart by: the question and the deployment's epoch when it began, so that nobody
/// who asks after a flag change waits for an answer from before it.
pub type FlightKey = (Key, u64);

/// All fetches under way. `T` is what they bring.
pub struct Flights<T> {
    shards: [Shard<T>; SHARDS],
}

type UnderWay<T> = HashMap<FlightKey, Arc<Course<T>>, foldhash::fast::RandomState>;

struct Shard<T> {
    under_way: Mutex<UnderWay<T>>,
    /// How many have ended.
    n_ended: AtomicU64,
}

/// What those who make a flight and those who wait for it share.
#[derive(Debug)]
struct Course<T> {
    /// Its end: what it brought; `None` when it died.
    end: OnceLock<Option<T>>,
    ended: Notify,
}

/// A place in a flight.
#[derive(Debug)]
pub enum Joined<T> {
    /// The fetch is yours to make: land it with the flight.
    Leads(Flight<T>, Waiter<T>),
    /// Somebody else makes it.
    Waits(Waiter<T>),
}

/// The end that the fetching task holds. Dropped without [`Flight::land`], it tells the waiters that it died.
pub struct Flight<T> {
    /// Where others find it; `None` for a flight that is alone.
    place: Option<(FlightKey, Arc<Flights<T>>)>,
    course: Arc<Course<T>>,
}

/// The end that a waiting request holds.
#[derive(Debug)]
pub struct Waiter<T>(Arc<Course<T>>);

impl<T: Clone> Waiter<T> {
    /// What the flight brought; `None` when it died. May be called again after it was cancelled.
    pub async fn landed(&mut self) -> Option<T> {
        // Whoever asks to be told, and then looks, misses nothing.
        let ended = pin!(self.0.ended.notified());
        if self.0.end.get().is_none() {
            ended.await;
        }
        self.0.end.get().cloned().flatten()
    }
}

impl<T> Course<T> {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            end: OnceLock::new(),
            ended: Notify::const_new(),
        })
    }

    /// The first end counts.
    fn end(&self, end: Option<T>) {
        if self.end.set(end).is_ok() {
            self.ended.notify_waiters();
        }
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard {
                under_way: Mutex::default(),
                n_ended: AtomicU64::new(0),
            }),
        }
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<T> Flights<T> {
    /// Joins the flight of `key`, or begins it.
    pub fn join(self: &Arc<Self>, key: FlightKey) -> Joined<T> {
        match self.shard(key.0).under_way().entry(key) {
            Entry::Occupied(flight) => Joined::Waits(Waiter(Arc::clone(flight.get()))),
            Entry::Vacant(place) => {
                let course = Course::begin();
                place.insert(Arc::clone(&course));
                let flight = Flight {
                    place: Some((key, Arc::clone(self))),
                    course: Arc::clone(&course),
                };
                Joined::Leads(flight, Waiter(course))
            }
        }
    }

    /// A number that grows whenever a flight of `key` ends, and at times when one of another key does. What was looked
    /// for and not found after it was read is still not there while it is the same.
    #[must_use]
    pub fn n_ended(&self, key: Key) -> u64 {
        self.shard(key).n_ended.load(Ordering::Acquire)
    }

    fn shard(&self, key: Key) -> &Shard<T> {
        &self.shards[key.shard() % SHARDS]
    }
}

impl<T> Shard<T> {
    fn under_way(&self) -> MutexGuard<'_, UnderWay<T>> {
        // Nothing between lock and unlock can leave a map half changed.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    /// A flight that nobody else can join.
    #[must_use]
    pub fn alone() -> (Self, Waiter<T>) {
        let course = Course::begin();
        let flight = Self {
            place: None,
            course: Arc::clone(&course),
        };
        (flight, Waiter(course))
    }

    /// How many would learn of its end now, the table's own place included.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        Arc::strong_count(&self.course) - 1
    }

    /// Ends the flight: it leaves the table, then every waiter gets `brought`.
    pub fn land(mut self, brought: T) {
        self.end(Some(brought));
    }

    fn end(&mut self, end: Option<T>) {
        // First the table no longer names it: whoever comes later begins a new flight.
        if let Some((key, flights)) = self.place.take() {
            let shard = flights.shard(key.0);
            let mut under_way = shard.under_way();
            under_way.remove(&key);
            shard.n_ended.fetch_add(1, Ordering::Release);
        }
        self.course.end(end);
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keyer;
    use crate::key::hash::Encoding;

    fn key() -> FlightKey {
        (Keyer::random().unwrap().key(&Encoding::default()), 0)
    }

    #[tokio::test]
    async fn all_who_ask_while_it_is_under_way_share_one_flight() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let key = key();
        let Joined::Leads(flight, mut leader) = flights.join(key) else {
            panic!("first")
        };
        let mut waiters: Vec<_> = (0..10)
            .map(|_| match flights.join(key) {
                Joined::Waits(waiter) => waiter,
                Joined::Leads(..) => panic!("second leader"),
            })
            .collect();
        flight.land(7);
        assert_eq!(leader.landed().await, Some(7));
        for waiter in &mut waiters {
            assert_eq!(waiter.landed().await, Some(7));
        }
        assert!(
            matches!(flights.join(key), Joined::Leads(..)),
            "it has left the table"
        );
    }

    #[tokio::test]
    async fn a_flight_that_dies_frees_its_waiters_and_its_place() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let key = key();
        let Joined::Leads(flight, mut waiter) = flights.join(key) else {
            panic!("first")
        };
        drop(flight);
        assert_eq!(waiter.landed().await, None);
        assert!(matches!(flights.join(key), Joined::Leads(..)));
    }

    #[tokio::test]
    async fn a_panicking_leader_frees_its_waiters() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let key = key();
        let Joined::Leads(flight, mut waiter) = flights.join(key) else {
            panic!("first")
        };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = flight;
            std::panic::resume_unwind(Box::new("the leader panics"));
        }));
        assert_eq!(waiter.landed().await, None);
    }

    #[tokio::test]
    async fn whoever_waits_in_vain_may_wait_again() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let (key, late) = (key(), std::time::Duration::from_millis(1));
        let Joined::Leads(flight, mut waiter) = flights.join(key) else {
            panic!("first")
        };
        assert!(tokio::time::timeout(late, waiter.landed()).await.is_err());
        flight.land(7);
        assert_eq!(waiter.landed().await, Some(7));
        assert_eq!(waiter.landed().await, Some(7));
    }

    #[tokio::test]
    async fn the_end_of_a_flight_is_counted_before_a_new_one_can_begin() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let key = key();
        let before = flights.n_ended(key.0);
        let Joined::Leads(flight, _) = flights.join(key) else {
            panic!("first")
        };
        assert_eq!(flights.n_ended(key.0), before, "it has not ended");
        flight.land(7);
        assert_eq!(flights.n_ended(key.0), before + 1);
        let Joined::Leads(died, _) = flights.join(key) else {
            panic!("it has left the table")
        };
        drop(died);
        assert_eq!(flights.n_ended(key.0), before + 2);
        drop(Flight::<u32>::alone());
        assert_eq!(flights.n_ended(key.0), before + 2, "nobody can look for it");
    }

    #[tokio::test]
    async fn a_new_epoch_begins_a_new_flight() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let (key, _) = key();
        let first = flights.join((key, 0));
        assert!(matches!(flights.join((key, 1)), Joined::Leads(..)));
        assert!(matches!(flights.join((key, 0)), Joined::Waits(..)));
        drop(first);
    }
}
