//! Environments and their flags, kept up to date.
//!
//! Invariants: what was synced last stays in use until something newer is whole and valid; a failed sync
//! changes nothing; syncing never happens on a data worker, except where a request must wait for it.

pub mod environment;
pub mod featbit;
pub mod flags;

pub use environment::{Environment, Origins};
pub use flags::{FlagSync, SyncError, Synced};
