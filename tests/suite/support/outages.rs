//! The kinds of outage that an application must not notice.

use std::time::Duration;

use super::upstream::{Door, FakeUpstream, Fault, Route};

/// A kind of outage.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// What it is called in a failed test.
    pub name: &'static str,
    /// Puts the cloud into it.
    pub strike: fn(&FakeUpstream),
    /// Whether upstream keeps a request waiting instead of failing it.
    pub silent: bool,
}

const fn loud(name: &'static str, strike: fn(&FakeUpstream)) -> Outage {
    Outage {
        name,
        strike,
        silent: false,
    }
}

const fn silent(name: &'static str, strike: fn(&FakeUpstream)) -> Outage {
    Outage {
        name,
        strike,
        silent: true,
    }
}

/// Every kind there is. All of them are failures, none a verdict (design 5).
pub const OUTAGES: &[Outage] = &[
    loud("refused", |cloud| cloud.go_down()),
    loud("reset_at_accept", |cloud| cloud.set_door(Door::Reset)),
    loud("reset_after_the_request", |cloud| cloud.fail(Fault::Reset)),
    loud("closed_without_an_answer", |cloud| cloud.fail(Fault::Close)),
    silent("accepted_and_never_read", |cloud| cloud.set_door(Door::Mute)),
    silent("never_accepted", |cloud| cloud.set_door(Door::Unaccepted)),
    silent("accept_queue_full", |cloud| cloud.set_door(Door::Full)),
    silent("never_answered", |cloud| cloud.fail(Fault::Hang)),
    silent("stalled_after_the_head", |cloud| {
        cloud.fail(Fault::StallAfterHead)
    }),
    silent("stalled_in_the_body", |cloud| cloud.fail(Fault::StallMidBody)),
    silent("a_byte_at_a_time", |cloud| {
        cloud.fail(Fault::Drip(Duration::from_millis(50)))
    }),
    silent("late", |cloud| cloud.fail(Fault::Late(Duration::from_secs(30)))),
    loud("length_too_long", |cloud| cloud.fail(Fault::LengthTooLong)),
    loud("length_too_short", |cloud| cloud.fail(Fault::LengthTooShort)),
    loud("chunks_cut_off", |cloud| cloud.fail(Fault::TruncatedChunks)),
    loud("chunks_malformed", |cloud| cloud.fail(Fault::BadChunks)),
    loud("not_http", |cloud| cloud.fail(Fault::Garbage)),
    loud("half_a_head", |cloud| cloud.fail(Fault::HalfHead)),
    loud("html", |cloud| cloud.fail(Fault::html())),
    loud("not_json", |cloud| {
        cloud.fail(Fault::body("{\"theme\":{\"key\":"))
    }),
    loud("empty_body", |cloud| cloud.fail(Fault::body(""))),
    loud("null", |cloud| cloud.fail(Fault::body("null"))),
    loud("wrong_shape", |cloud| {
        cloud.fail(Fault::body("[]"));
        cloud.fail_on(Route::Flags, Fault::body("{}"));
    }),
    loud("wrong_members", |cloud| {
        cloud.fail(Fault::body(r#"{"theme":"on"}"#));
        cloud.fail_on(Route::Flags, Fault::body(r#"["theme"]"#));
    }),
    loud("error_in_a_200", |cloud| {
        cloud.fail(Fault::body(r#"{"error":{"code":503,"message":"unwell"}}"#));
    }),
    loud("too_large", |cloud| cloud.fail(Fault::Huge(9 << 20))),
    loud("redirect", |cloud| {
        cloud.fail(Fault::redirect(302, "http://127.0.0.1:9/elsewhere"))
    }),
    loud("not_found", |cloud| cloud.fail(Fault::status(404))),
    loud("no_content", |cloud| cloud.fail(Fault::status(204))),
    loud("throttled", |cloud| cloud.fail(Fault::throttled(30))),
    loud("request_timeout", |cloud| cloud.fail(Fault::status(408))),
    loud("misdirected", |cloud| cloud.fail(Fault::status(421))),
    loud("internal_error", |cloud| cloud.fail(Fault::status(500))),
    loud("bad_gateway", |cloud| cloud.fail(Fault::status(502))),
    loud("unavailable", |cloud| cloud.fail(Fault::status(503))),
    loud("gateway_timeout", |cloud| cloud.fail(Fault::status(504))),
];

/// The outage of this name; panics when there is none.
pub fn outage(name: &str) -> Outage {
    *OUTAGES
        .iter()
        .find(|outage| outage.name == name)
        .unwrap_or_else(|| panic!("there is no outage {name}"))
}
