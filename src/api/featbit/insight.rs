//! `insight/track`: events of applications, taken on at once (FB 7).

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::latest::{made, unauthorized};
use super::{Featbit, Reply, reply};
use crate::track::{InsightLane, insight};

impl Featbit {
    /// `POST /api/public/insight/track`: 200 with an empty body, whatever becomes of the events later. A secret that
    /// upstream rejected is none of this route's business: some SDKs never send again after a 401.
    #[must_use]
    pub fn track(&self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let (caller, home) = match self.caller_at_home(headers) {
            Ok(found) => found,
            Err(code) => return unauthorized(code),
        };
        if !reply::is_json(headers) {
            return made(reply::not_json());
        }
        let events = match insight::elements(body) {
            Ok(events) => events,
            Err(unreadable) => return made(reply::problem(&unreadable.to_string())),
        };
        if home.has_upstream && !events.is_empty() {
            let lane = InsightLane {
                environment: home.index,
                authorization: Arc::from(String::from_utf8_lossy(caller.key.expose())),
            };
            self.events.push(&lane, events, Instant::now());
        }
        made(reply::json(Bytes::new()))
    }
}
