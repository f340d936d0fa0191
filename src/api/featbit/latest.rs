//! `latest-all`: the data for server SDKs, evaluated flags for client SDKs (FB 6.2 and 7).

use http::{HeaderMap, StatusCode};

use super::{Featbit, Found, Reply, reply};
use crate::evaluate::featbit::{EndUser, RequestFault};
use crate::key::query;
use crate::metrics::Source;

impl Featbit {
    /// `GET /api/public/sdk/server/latest-all?timestamp=`: everything, or what changed since; an empty 200 where
    /// nothing is newer.
    pub async fn server_latest_all(&self, headers: &HeaderMap, query: Option<&str>) -> Reply {
        let (caller, home) = match self.caller_at_home(headers) {
            Ok(found) => found,
            Err(code) => return unauthorized(code),
        };
        let Some(since) = timestamp(query) else {
            return made(reply::problem("timestamp is not an integer"));
        };
        match self.find(home, &caller).await {
            Found::Data(data) => {
                let held = self.environments.get(home.index, caller.id);
                let message = match (held, since) {
                    (Some(held), 0) => held.full_message(&data),
                    _ => data.to_data_sync(since).unwrap_or_default().into(),
                };
                Reply::Answer(reply::json(message), Source::Local)
            }
            other => without_data(&other, home.index),
        }
    }

    /// `POST /api/public/sdk/client/latest-all?timestamp=`: the flags evaluated for the user in `body`.
    pub async fn client_latest_all(&self, headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Reply {
        let (caller, home) = match self.caller_at_home(headers) {
            Ok(found) => found,
            Err(code) => return unauthorized(code),
        };
        if !reply::is_json(headers) {
            return made(reply::not_json());
        }
        let Some(since) = timestamp(query) else {
            return made(reply::problem("timestamp is not an integer"));
        };
        let user = match EndUser::parse(body) {
            Ok(user) => user,
            Err(RequestFault::NoUser) => {
                return made(reply::text(StatusCode::BAD_REQUEST, "invalid end user"));
            }
            Err(fault) => return made(reply::problem(&fault.to_string())),
        };
        match self.find(home, &caller).await {
            Found::Data(data) => {
                let message = data.client(&user, since).unwrap_or_default();
                Reply::Answer(reply::json(message), Source::Local)
            }
            other => without_data(&other, home.index),
        }
    }
}

fn without_data(found: &Found, home: usize) -> Reply {
    match found {
        Found::Rejected => unauthorized("revoked_environment_secret"),
        Found::Elsewhere => Reply::Forward(home),
        Found::Nothing | Found::Data(_) => made(reply::no_answer()),
    }
}

pub(super) fn unauthorized(code: &'static str) -> Reply {
    made(reply::unauthorized(code))
}

pub(super) fn made(response: http::Response<crate::api::answer::AnswerBody>) -> Reply {
    Reply::Answer(response, Source::None)
}

/// `timestamp` of a query: 0 where there is none, none where it is no integer.
fn timestamp(query: Option<&str>) -> Option<i64> {
    let pairs = query::pairs(query.unwrap_or_default()).ok()?;
    let given = pairs
        .iter()
        .find(|pair| pair.name.eq_ignore_ascii_case("timestamp"));
    given.map_or(Some(0), |pair| pair.value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_an_integer() {
        for (query, wanted) in [
            (None, Some(0)),
            (Some(""), Some(0)),
            (Some("other=1"), Some(0)),
            (Some("timestamp=12"), Some(12)),
            (Some("TimeStamp=%2012+"), Some(12)),
            (Some("timestamp=-1"), Some(-1)),
            (Some("timestamp="), None),
            (Some("timestamp=x"), None),
            (Some("timestamp=1.5"), None),
            (Some("timestamp=99999999999999999999"), None),
            (Some("timestamp=%zz"), None),
        ] {
            assert_eq!(timestamp(query), wanted, "{query:?}");
        }
    }
}
