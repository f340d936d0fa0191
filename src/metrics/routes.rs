//! Which label tuples a request can reach, route by route, and where the others are counted.
//!
//! Workers count every tuple in a dense array; only the tuples declared here are exposed, so that the
//! number of series is known before the first request (OPS 8, design 11). A tuple that nobody foresaw
//! is folded into its nearest declared neighbour at scrape: nothing is lost, and no request can make a
//! new series. Of request counts the class stands in for the code, `other` for the method, and the route
//! `other` with method `other`, which has every class, for all else.

use super::labels::{Code, Engine, Method, Route, Source};

use Code::{
    C200, C204, C304, C400, C401, C403, C404, C405, C408, C413, C414, C415, C429, C431, C499, C500, C501,
    C502, C503, C504, ClientError, Informational, Redirect, ServerError, Success,
};

/// The codes that a route answers a method with.
type Declared = &'static [(Method, &'static [Code])];

const VARDATA: Declared = &[
    (
        Method::Get,
        &[C200, C400, C401, C403, C499, C503, ClientError, ServerError],
    ),
    (
        Method::Post,
        &[
            C200,
            C400,
            C401,
            C403,
            C408,
            C413,
            C499,
            C503,
            ClientError,
            ServerError,
        ],
    ),
    (Method::Head, &[C200, ClientError, ServerError]),
    (Method::Options, &[C204]),
    (Method::Other, &[C405, ClientError]),
];

const FLAGS: Declared = &[
    (
        Method::Get,
        &[C200, C304, C400, C401, C403, C499, C503, ClientError, ServerError],
    ),
    (Method::Post, &[C405]),
    (Method::Head, &[C200, C304, ClientError, ServerError]),
    (Method::Options, &[C204]),
    (Method::Other, &[C405, ClientError]),
];

const COHORT: Declared = &[
    (
        Method::Get,
        &[
            C200,
            C204,
            C400,
            C401,
            C403,
            C404,
            C413,
            C499,
            C503,
            Success,
            Redirect,
            ClientError,
            ServerError,
        ],
    ),
    (Method::Post, &[C405]),
    (Method::Options, &[C204]),
    (
        Method::Other,
        &[C405, Success, Redirect, ClientError, ServerError],
    ),
];

const STREAM: Declared = &[
    (
        Method::Get,
        &[
            C200,
            C400,
            C401,
            C403,
            C499,
            C501,
            C503,
            Success,
            Redirect,
            ClientError,
            ServerError,
        ],
    ),
    (Method::Options, &[C204]),
    (Method::Other, &[C405, ClientError, ServerError]),
];

const WEB_CONFIGS: Declared = &[
    (
        Method::Get,
        &[
            C200,
            C304,
            C404,
            C499,
            C503,
            Success,
            Redirect,
            ClientError,
            ServerError,
        ],
    ),
    (Method::Options, &[C204]),
    (Method::Other, &[Success, Redirect, ClientError, ServerError]),
];

#[rustfmt::skip]
const PASSTHROUGH: Declared = &[
    (Method::Get, &[
        C200, C304, C400, C401, C403, C404, C429, C499, C502, C503, C504, Success, Redirect, ClientError,
        ServerError,
    ]),
    (Method::Post, &[
        C200, C400, C401, C403, C404, C413, C429, C499, C502, C503, C504, Success, Redirect, ClientError,
        ServerError,
    ]),
    (Method::Options, &[C204]),
    (Method::Other, &[Success, Redirect, ClientError, ServerError]),
];

#[rustfmt::skip]
const FB_EVALUATE: Declared = &[
    (Method::Post, &[
        C200, C400, C401, C403, C408, C413, C415, C499, C500, C503, ClientError, ServerError,
    ]),
    (Method::Options, &[C204]),
    (Method::Other, &[C401, C405, ClientError]),
];

#[rustfmt::skip]
const FB_SDK: Declared = &[
    (Method::Get, &[C200, C400, C401, C499, C503, Informational, ClientError, ServerError]),
    (Method::Post, &[C200, C400, C401, C413, C415, C499, C503, ClientError, ServerError]),
    (Method::Options, &[C204]),
    (Method::Other, &[C401, C405, ClientError]),
];

#[rustfmt::skip]
const FB_EVENTS: Declared = &[
    (Method::Post, &[C200, C400, C401, C413, C415, C499, ClientError, ServerError]),
    (Method::Options, &[C204]),
    (Method::Other, &[C401, C405, ClientError]),
];

const STATUS: Declared = &[
    (Method::Get, &[C200]),
    (Method::Head, &[C200]),
    (Method::Options, &[C204]),
    (Method::Other, &[C405]),
];

#[rustfmt::skip]
const OTHER: Declared = &[
    (Method::Get, &[C404, C499]),
    (Method::Post, &[C404, C413]),
    (Method::Head, &[C404]),
    (Method::Options, &[C204]),
    (Method::Other, &[
        C400, C404, C405, C408, C414, C431, C500, C501, C503, Informational, Success, Redirect, ClientError,
        ServerError,
    ]),
];

const fn codes(route: Route) -> Declared {
    match route {
        Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 => VARDATA,
        Route::FlagsV1 | Route::FlagsV2 => FLAGS,
        Route::Cohort | Route::Memberships => COHORT,
        Route::Stream => STREAM,
        Route::WebConfigs => WEB_CONFIGS,
        Route::FbEvaluate => FB_EVALUATE,
        Route::FbSdk => FB_SDK,
        Route::FbEvents => FB_EVENTS,
        Route::Passthrough => PASSTHROUGH,
        Route::Status => STATUS,
        Route::Other => OTHER,
    }
}

/// Whose route it is; none for those that are there whatever is configured.
pub(super) const fn engine(route: Route) -> Option<Engine> {
    match route {
        Route::VardataV1
        | Route::VardataLegacy
        | Route::VardataV2
        | Route::FlagsV1
        | Route::FlagsV2
        | Route::Cohort
        | Route::Memberships
        | Route::Stream
        | Route::WebConfigs => Some(Engine::Amplitude),
        Route::FbEvaluate | Route::FbSdk | Route::FbEvents => Some(Engine::Featbit),
        Route::Passthrough | Route::Status | Route::Other => None,
    }
}

/// Every `(route, method, code)` that `flagside_http_requests_total` has.
pub(super) fn requests() -> impl Iterator<Item = (Route, Method, Code)> {
    Route::ALL.into_iter().flat_map(|route| {
        codes(route)
            .iter()
            .flat_map(move |(method, codes)| codes.iter().map(move |code| (route, *method, *code)))
    })
}

/// Where a request is counted: `(route, method, code)` itself if it is declared, else its neighbour.
pub(super) fn request(route: Route, method: Method, code: Code) -> (Route, Method, Code) {
    let candidates = [
        (route, method, code),
        (route, method, code.class()),
        (route, Method::Other, code),
        (route, Method::Other, code.class()),
    ];
    candidates
        .into_iter()
        .find(|it| is_declared(*it))
        .unwrap_or((Route::Other, Method::Other, code.class()))
}

fn is_declared((route, method, code): (Route, Method, Code)) -> bool {
    codes(route)
        .iter()
        .any(|(declared, codes)| *declared == method && codes.contains(&code))
}

/// Every `(route, source)` that `flagside_http_responses_total` has.
pub(super) fn responses() -> impl Iterator<Item = (Route, Source)> {
    Route::ALL
        .into_iter()
        .flat_map(|route| sources(route).iter().map(move |source| (route, *source)))
}

/// The sources that a route's answers can come from.
const fn sources(route: Route) -> &'static [Source] {
    match route {
        Route::VardataV1
        | Route::VardataLegacy
        | Route::VardataV2
        | Route::FlagsV1
        | Route::FlagsV2
        | Route::FbEvaluate => &Source::ALL,
        Route::FbSdk => &[Source::Local, Source::Passthrough, Source::None],
        Route::Cohort | Route::Memberships | Route::Stream | Route::WebConfigs | Route::Passthrough => {
            &[Source::Passthrough, Source::None]
        }
        Route::FbEvents | Route::Status | Route::Other => &[Source::None],
    }
}

/// Where an answer is counted: `(route, source)` itself if it is declared, else under the last source of its
/// route, which is `none`.
pub(super) fn response(route: Route, source: Source) -> (Route, Source) {
    let declared = sources(route);
    if declared.contains(&source) {
        (route, source)
    } else {
        (route, Source::None)
    }
}

/// Where a duration is counted. Only vardata routes are told apart by source (what is relayed unstored waits for
/// upstream as a miss does); flags routes by whether upstream was waited for, all else by route family.
pub(super) const fn duration(route: Route, source: Source) -> (Route, Source) {
    match route {
        Route::VardataV1 | Route::VardataLegacy | Route::VardataV2 | Route::FbEvaluate => match source {
            Source::Passthrough => (route, Source::Miss),
            _ => (route, source),
        },
        Route::FlagsV1 | Route::FlagsV2 => match source {
            Source::Hit | Source::Stale | Source::StaleError | Source::Local => (route, Source::Hit),
            // An answer of our own may come after a long wait, so it must not look like a quick one.
            Source::Miss | Source::Coalesced | Source::Passthrough | Source::None => (route, Source::Miss),
        },
        Route::Cohort | Route::Memberships => (Route::Cohort, Source::Passthrough),
        Route::Stream | Route::WebConfigs | Route::Passthrough => (Route::Passthrough, Source::Passthrough),
        Route::FbSdk | Route::FbEvents => (Route::FbSdk, Source::Local),
        Route::Status | Route::Other => (Route::Other, Source::None),
    }
}

/// Where the size of a request body is counted: only vardata routes and those passed through take one.
pub(super) const fn request_body(route: Route) -> Route {
    match route {
        Route::VardataV1
        | Route::VardataLegacy
        | Route::VardataV2
        | Route::FbEvaluate
        | Route::FbSdk
        | Route::FbEvents => route,
        _ => Route::Passthrough,
    }
}

/// Where the size of a response body is counted.
pub(super) const fn response_body(route: Route) -> Route {
    duration(route, Source::None).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_tuple_has_a_declared_place_and_declared_ones_keep_theirs() {
        for route in Route::ALL {
            for method in Method::ALL {
                for code in Code::ALL {
                    let place = request(route, method, code);
                    assert!(is_declared(place), "{route:?} {method:?} {code:?} -> {place:?}");
                    assert_eq!(
                        request(place.0, place.1, place.2),
                        place,
                        "{place:?} is moved again"
                    );
                    assert_eq!(
                        place.2.class(),
                        code.class(),
                        "{code:?} changed its class: {place:?}"
                    );
                }
            }
            for source in Source::ALL {
                let (declared, at) = response(route, source);
                assert_eq!(response(declared, at), (declared, at));
                let (declared, at) = duration(route, source);
                assert_eq!(duration(declared, at), (declared, at));
            }
            assert_eq!(request_body(request_body(route)), request_body(route));
            assert_eq!(response_body(response_body(route)), response_body(route));
        }
    }

    #[test]
    fn neighbours_are_near() {
        let table = [
            (
                (Route::VardataV2, Method::Get, Code::C200),
                (Route::VardataV2, Method::Get, Code::C200),
            ),
            (
                (Route::VardataV2, Method::Get, Code::C404),
                (Route::VardataV2, Method::Get, Code::ClientError),
            ),
            (
                (Route::FlagsV1, Method::Post, Code::C401),
                (Route::FlagsV1, Method::Other, Code::ClientError),
            ),
            (
                (Route::Status, Method::Get, Code::C500),
                (Route::Other, Method::Other, Code::ServerError),
            ),
        ];
        for (tuple, wanted) in table {
            assert_eq!(request(tuple.0, tuple.1, tuple.2), wanted, "{tuple:?}");
        }
    }

    #[test]
    fn no_tuple_is_declared_twice() {
        let all: Vec<_> = requests().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let all: Vec<_> = responses().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn codes_follow_from_the_status() {
        for (status, wanted) in [
            (100, Code::Informational),
            (200, Code::C200),
            (201, Code::Success),
            (304, Code::C304),
            (302, Code::Redirect),
            (402, Code::ClientError),
            (418, Code::ClientError),
            (503, Code::C503),
            (599, Code::ServerError),
            (700, Code::ServerError),
        ] {
            assert_eq!(Code::from_status(status), wanted, "{status}");
        }
    }
}
