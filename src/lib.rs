//! flagside: a caching reverse proxy and sidecar for feature flags and experiments.
//!
//! The modules in the order a request flows through them; a lower one never names a higher one:
//! `run -> server -> api -> key, cache, upstream, sync -> store -> evaluate`.
//!
//! [`evaluate`] is pure (no I/O, no clock, no randomness) and builds alone with
//! `--no-default-features`; everything else stands behind the feature `proxy`.

pub mod evaluate;

#[cfg(feature = "proxy")]
pub mod api;
#[cfg(feature = "proxy")]
pub mod cache;
#[cfg(feature = "proxy")]
pub mod command;
#[cfg(feature = "proxy")]
pub mod config;
#[cfg(feature = "proxy")]
pub mod inject;
#[cfg(feature = "proxy")]
pub mod key;
#[cfg(feature = "proxy")]
pub mod metrics;
#[cfg(feature = "proxy")]
pub mod run;
#[cfg(feature = "proxy")]
pub mod server;
#[cfg(feature = "proxy")]
pub mod store;
#[cfg(feature = "proxy")]
pub mod sync;
#[cfg(feature = "proxy")]
pub mod task;
#[cfg(feature = "proxy")]
pub mod telemetry;
#[cfg(feature = "proxy")]
pub mod trace;
#[cfg(feature = "proxy")]
pub mod track;
#[cfg(feature = "proxy")]
pub mod upstream;
