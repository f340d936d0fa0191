//! The open connections of a listener that has few clients.
//!
//! It admits everybody: once all places are taken the oldest connection gives way, so that nobody can keep others
//! out by holding connections. Never more than `max` entries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::task::{Stop, Stopper};

/// Who is connected.
#[derive(Debug)]
pub struct Roster {
    max: usize,
    open: Mutex<Open>,
}

/// Oldest first. Dropping an entry tells its connection to end.
#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    stoppers: BTreeMap<u64, Stopper>,
}

/// The place of one connection, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    roster: Arc<Roster>,
    id: u64,
    closed: Stop,
}

impl Roster {
    /// Nobody yet, at most `max`; 0 is taken as 1.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: Mutex::default(),
        })
    }

    /// A place for a new connection, if need be that of the oldest one.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Place {
        let stopper = Stopper::new();
        let closed = stopper.stop();
        let mut open = self.open();
        let oldest = if open.stoppers.len() < self.max {
            None
        } else {
            open.stoppers.pop_first()
        };
        let id = open.next_id;
        open.next_id += 1;
        open.stoppers.insert(id, stopper);
        // Whoever is woken does not wait for the lock.
        drop(open);
        drop(oldest);
        Place {
            roster: Arc::clone(self),
            id,
            closed,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code that can panic runs under this lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Asked for once the connection must make room.
    #[must_use]
    pub const fn closed(&self) -> &Stop {
        &self.closed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.roster.open().stoppers.remove(&self.id);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_to_end(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.closed().is_requested()).collect()
    }

    #[test]
    fn the_oldest_one_gives_way_once_all_places_are_taken() {
        let roster = Roster::new(2);
        let mut places = vec![roster.admit(), roster.admit()];
        assert_eq!(told_to_end(&places), [false, false]);
        places.push(roster.admit());
        assert_eq!(told_to_end(&places), [true, false, false]);
        places.push(roster.admit());
        assert_eq!(told_to_end(&places), [true, true, false, false]);
        assert_eq!(roster.open().stoppers.len(), 2);
    }

    #[test]
    fn who_leaves_makes_room() {
        let roster = Roster::new(2);
        let mut places = vec![roster.admit(), roster.admit()];
        places.remove(1);
        places.push(roster.admit());
        assert_eq!(told_to_end(&places), [false, false]);
    }

    #[test]
    fn who_gave_way_takes_no_other_place_along() {
        let roster = Roster::new(1);
        let first = roster.admit();
        let second = roster.admit();
        drop(first);
        assert!(!second.closed().is_requested());
        assert_eq!(roster.open().stoppers.len(), 1);
        drop(second);
        assert!(roster.open().stoppers.is_empty());
    }

    #[test]
    fn a_roster_without_places_has_one() {
        let roster = Roster::new(0);
        let places = [roster.admit(), roster.admit()];
        assert_eq!(told_to_end(&places), [true, false]);
    }
}
