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

impl<'p> Target<'p> {
    /// Routes a path.
    #[must_use]
    pub fn of(path: &'p str, prefix: &str) -> Self {
        let path = clean(path);
        let path = match strip_prefix(&path, prefix) {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => path,
        };
        Self {
            route: route(&path),
            path,
        }
    }
}

fn strip_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    if prefix.is_empty() {
        return None;
    }
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

fn clean(path: &str) -> Cow<'_, str> {
    let path = path.trim_end_matches('/');
    if path.starts_with('/') && !path.contains("//") {
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

fn route(path: &str) -> Route {
    match path {
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
        _ => Route::Other,
    }
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
            let target = Target::of(path, "");
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
            assert_eq!(Target::of(path, "/flags").route, route, "{path}");
        }
    }
}
