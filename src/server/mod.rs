//! Listeners, connections, limits, drain.
//!
//! Every data worker is a thread with a single-threaded runtime and listeners of its own (`SO_REUSEPORT`), so
//! that nothing is shared on the way of a request but the cache and read-mostly state. The admin listener has
//! its own thread (see [`admin`]).

pub mod admin;
pub mod connection;
mod lane;
pub mod listen;
pub mod roster;
pub mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Open data connections over all workers, and how many there may be.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    max: usize,
}

impl Connections {
    /// No connections, at most `max`.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max,
        }
    }

    /// Takes a place, if there is one.
    #[must_use]
    pub fn enter(&self) -> bool {
        let entered = self.open.fetch_add(1, Ordering::AcqRel) < self.max;
        if !entered {
            self.leave();
        }
        entered
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
