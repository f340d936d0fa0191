//! The integration suite: the real program over real sockets, one behaviour per test.
//!
//! Each file is a theme and each test a sentence. [`support`] holds what they stand on: a fake Amplitude
//! cloud that can fail in every way a network knows, the program under test as a child process, and a raw
//! HTTP/1.1 client. Ports are 0, nothing leaves the loopback interface, and nothing sleeps for luck: a test
//! waits for an event that it can see, and fails when that does not come in time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test and its support fail by panicking; the lint's own exception covers test functions only"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "nothing in a test program is public; `pub` says what a support module offers to the tests"
)]

mod support;

mod admin;
mod cache;
mod cli;
mod coalescing;
mod cors;
mod drain;
mod errors;
mod featbit;
mod featbit_streams;
mod flags;
mod http;
mod keys;
mod ladder;
mod outage;
mod passthrough;
mod revocation;
