//! Coalescing: one upstream request per question, however many wait for it.
//!
//! A flight is a fetch that has begun. Whoever begins it sees to it that it goes on when they leave, so that no waiter's
//! leaving cancels it; whoever asks the same meanwhile waits for its end. A flight that dies (its task
//! panicked or was dropped) tells its waiters so. Every waiter keeps its own clocks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::key::Key;

const SHARDS: usize = 16;

/// What a flight is told apart by: the question and the deployment's epoch when it began, so that nobody
/// who asks after a flag change waits for an answer from before it.
pub type FlightKey = (Key, u64);

/// All fetches under way. `T` is what they bring.
pub struct Flights<T> {
    shards: [Mutex<HashMap<FlightKey, watch::Receiver<Option<T>>>>; SHARDS],
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
    sender: watch::Sender<Option<T>>,
}

/// The end that a waiting request holds.
#[derive(Debug)]
pub struct Waiter<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Waiter<T> {
    /// What the flight brought; `None` when it died. May be called again after it was cancelled.
    pub async fn landed(&mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
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
        let mut shard = self.shard(key);
        match shard.entry(key) {
            Entry::Occupied(flight) => Joined::Waits(Waiter(flight.get().clone())),
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                place.insert(receiver.clone());
                let flight = Flight {
                    place: Some((key, Arc::clone(self))),
                    sender,
                };
                Joined::Leads(flight, Waiter(receiver))
            }
        }
    }

    fn shard(
        &self,
        key: FlightKey,
    ) -> std::sync::MutexGuard<'_, HashMap<FlightKey, watch::Receiver<Option<T>>>> {
        let shard = &self.shards[key.0.shard() % SHARDS];
        // Nothing between lock and unlock can leave a map half changed.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    /// A flight that nobody else can join.
    #[must_use]
    pub fn alone() -> (Self, Waiter<T>) {
        let (sender, receiver) = watch::channel(None);
        (Self { place: None, sender }, Waiter(receiver))
    }

    /// How many would learn of its end now, the table's own place included.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Ends the flight: it leaves the table, then every waiter gets `brought`.
    pub fn land(mut self, brought: T) {
        self.leave();
        // The table no longer names it: whoever comes later begins a new flight.
        let _ = self.sender.send(Some(brought));
    }

    fn leave(&mut self) {
        if let Some((key, flights)) = self.place.take() {
            flights.shard(key).remove(&key);
        }
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.leave();
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
    async fn a_new_epoch_begins_a_new_flight() {
        let flights: Arc<Flights<u32>> = Arc::default();
        let (key, _) = key();
        let first = flights.join((key, 0));
        assert!(matches!(flights.join((key, 1)), Joined::Leads(..)));
        assert!(matches!(flights.join((key, 0)), Joined::Waits(..)));
        drop(first);
    }
}
