//! Request targets: which route a path means.

use std::borrow::Cow;

use crate::metrics::Route;

/// A route and its path as it goes to upstream: repeated slashes collapsed, one trailing slash and the
/// configured prefix removed (API 2.1). Scheme and authority of absolute-form targets were never looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target<'p> {
    /// What is asked for.
    pub route: Route,
    /// Clean path.
    pub path: Cow<'p, str>,
}

/// Which paths there are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Routing {
    /// Prefix that is stripped from paths.
    pub prefix: String,
    /// Whether Amplitude's paths are there.
    pub amplitude: bool,
    /// Whether FeatBit's are.
    pub featbit: bool,
}

impl Routing {
    /// Routes a path. Paths of a backend that is not configured are nobody's.
    #[must_use]
    pub fn target<'p>(&self, path: &'p str) -> Target<'p> {
        let path = clean(path);
        let path = match strip_prefix(&path, &self.prefix) {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => path,
        };
        let route = match amplitude(&path) {
            Some(route) if self.amplitude || route == Route::Status => route,
            None if self.featbit => featbit(&path).unwrap_or(Route::Other),
            Some(_) | None => Route::Other,
        };
        Target { route, path }
    }
}

/// Whether a path that is passed through goes to FeatBit (design 5, "Backends").
#[must_use]
pub fn is_featbits(path: &str) -> bool {
    FEATBIT_ROOTS.iter().any(|root| {
        path.get(..root.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(root))
    })
}

const FEATBIT_ROOTS: [&str; 2] = ["/api/public/", "/health/"];

fn strip_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    if prefix.is_empty() {
        return None;
    }
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn clean(path: &str) -> Cow<'_, str> {
    let path = path.trim_end_matches('/');
    // Paths are short: looking at each pair costs less than setting up a search.
    if path.starts_with('/') && !path.as_bytes().windows(2).any(|pair| pair == b"//") {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 1);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

fn amplitude(path: &str) -> Option<Route> {
    Some(match path {
        "/v1/vardata" => Route::VardataV1,
        "/sdk/vardata" => Route::VardataLegacy,
        "/sdk/v2/vardata" => Route::VardataV2,
        "/v1/flags" => Route::FlagsV1,
        "/sdk/v2/flags" => Route::FlagsV2,
        "/sdk/stream/v1/flags" | "/sdk/stream/v1/vardata" => Route::Stream,
        "/web/v1/configs" => Route::WebConfigs,
        "/status" => Route::Status,
        // A path with dot segments could mean another one upstream than here.
        _ if path.split('/').any(is_dots) => Route::Other,
        _ if path.starts_with("/sdk/v1/cohort/") => Route::Cohort,
        _ if path.starts_with("/sdk/v2/memberships/") => Route::Memberships,
        _ if path.starts_with("/sdk/stream/") => Route::Stream,
        _ if ["/v1/", "/sdk/", "/web/"]
            .iter()
            .any(|root| path.starts_with(root)) =>
        {
            Route::Passthrough
        }
        _ => return None,
    })
}

/// FeatBit's server does not look at the case of paths.
fn featbit(path: &str) -> Option<Route> {
    if path.eq_ignore_ascii_case("/streaming") {
        return Some(Route::FbSdk);
    }
    if !is_featbits(path) {
        return None;
    }
    Some(match path.to_ascii_lowercase().as_str() {
        "/api/public/featureflag/evaluate" => Route::FbEvaluate,
        "/api/public/sdk/server/latest-all"
        | "/api/public/sdk/client/latest-all"
        | "/health/liveness"
        | "/health/readiness" => Route::FbSdk,
        "/api/public/insight/track" => Route::FbEvents,
        _ => Route::Passthrough,
    })
}

/// Whether a path segment is `.` or `..`, percent-encoded or not.
fn is_dots(part: &str) -> bool {
    part.len() <= 6 && {
        let plain = part.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_routed() {
        for (path, clean, route) in [
            ("/v1/vardata", "/v1/vardata", Route::VardataV1),
            ("//sdk/v2/vardata", "/sdk/v2/vardata", Route::VardataV2),
            ("/sdk//v2///vardata/", "/sdk/v2/vardata", Route::VardataV2),
            ("/sdk/v2/vardata//", "/sdk/v2/vardata", Route::VardataV2),
            ("/sdk/vardata", "/sdk/vardata", Route::VardataLegacy),
            ("/sdk/v2/flags/", "/sdk/v2/flags", Route::FlagsV2),
            ("/v1/flags", "/v1/flags", Route::FlagsV1),
            ("/sdk/v1/cohort/c1", "/sdk/v1/cohort/c1", Route::Cohort),
            (
                "/sdk/v2/memberships/User/org/42",
                "/sdk/v2/memberships/User/org/42",
                Route::Memberships,
            ),
            ("/sdk/stream/v1/flags", "/sdk/stream/v1/flags", Route::Stream),
            ("/web/v1/configs", "/web/v1/configs", Route::WebConfigs),
            ("/v1/anything", "/v1/anything", Route::Passthrough),
            ("/sdk/rules", "/sdk/rules", Route::Passthrough),
            ("/status", "/status", Route::Status),
            ("/shutdown", "/shutdown", Route::Other),
            ("/", "/", Route::Other),
            ("//", "/", Route::Other),
            ("", "/", Route::Other),
            ("*", "/*", Route::Other),
            ("/V1/vardata", "/V1/vardata", Route::Other),
            (
                "/sdk/v1/cohort/../../shutdown",
                "/sdk/v1/cohort/../../shutdown",
                Route::Other,
            ),
            ("/v1/%2e%2E/x", "/v1/%2e%2E/x", Route::Other),
            ("/v1", "/v1", Route::Other),
        ] {
            let routing = Routing {
                amplitude: true,
                ..Routing::default()
            };
            let target = routing.target(path);
            assert_eq!((target.path.as_ref(), target.route), (clean, route), "{path}");
        }
    }

    #[test]
    fn a_prefix_is_stripped_where_it_is() {
        for (path, route) in [
            ("/flags/v1/vardata", Route::VardataV1),
            ("/v1/vardata", Route::VardataV1),
            ("/flagsv1/vardata", Route::Other),
            ("/flags", Route::Other),
        ] {
            let routing = Routing {
                prefix: "/flags".to_owned(),
                amplitude: true,
                featbit: false,
            };
            assert_eq!(routing.target(path).route, route, "{path}");
        }
    }

    #[test]
    fn each_backend_has_its_paths() {
        for (path, amplitude, featbit) in [
            ("/v1/vardata", Route::VardataV1, Route::Other),
            ("/sdk/v2/flags", Route::FlagsV2, Route::Other),
            ("/status", Route::Status, Route::Status),
            (
                "/api/public/featureflag/evaluate",
                Route::Other,
                Route::FbEvaluate,
            ),
            (
                "/API/Public/FeatureFlag/Evaluate/",
                Route::Other,
                Route::FbEvaluate,
            ),
            ("/api/public/sdk/server/latest-all", Route::Other, Route::FbSdk),
            ("/api/public/sdk/client/latest-all", Route::Other, Route::FbSdk),
            ("/streaming", Route::Other, Route::FbSdk),
            ("/api/public/insight/track", Route::Other, Route::FbEvents),
            ("/health/liveness", Route::Other, Route::FbSdk),
            ("/api/public/agent/register", Route::Other, Route::Passthrough),
            ("/api/public/../secret", Route::Other, Route::Other),
            ("/api/private", Route::Other, Route::Other),
            ("/streaming/x", Route::Other, Route::Other),
        ] {
            let of = |amplitude: bool, featbit: bool| Routing {
                amplitude,
                featbit,
                ..Routing::default()
            };
            assert_eq!(of(true, false).target(path).route, amplitude, "{path}");
            assert_eq!(of(false, true).target(path).route, featbit, "{path}");
            let both = if amplitude == Route::Other {
                featbit
            } else {
                amplitude
            };
            assert_eq!(of(true, true).target(path).route, both, "{path}");
        }
    }
}
