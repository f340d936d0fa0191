//! `insight/track`: events of applications, taken on at once (FB 7).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::latest::{made, unauthorized};
use super::{Caller, Featbit, Reply, reply};
use crate::track::{InsightLane, insight};

impl Featbit {
    /// `POST /api/public/insight/track`: 200 with an empty body, whatever becomes of the events later. A secret that
    /// upstream rejected is none of this route's business: some SDKs never send again after a 401.
    #[must_use]
    pub fn track(&self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let Some(caller) = Caller::of(headers) else {
            return unauthorized("missing_environment_secret");
        };
        let Some(home) = self.home_of(&caller) else {
            return unauthorized("unknown_environment_secret");
        };
        if !reply::is_json(headers) {
            return made(reply::bare(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
            ));
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
