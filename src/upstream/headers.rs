//! What never crosses the proxy, in either direction.
//!
//! The last guard: callers already choose what they forward; whatever they choose, these stay behind.

use http::header::{CONNECTION, HeaderMap, HeaderName};

/// Removes from a request what belongs to the client's connection, what would let a client say where it
/// comes from or rewrite the target, cookies, and what frames the body (that is set anew).
pub(super) fn clean_request(headers: &mut HeaderMap) {
    remove(headers, |name| !crosses(name));
}

/// Whether a header goes on to upstream, in a request without `Connection`.
pub(super) fn crosses_to_upstream(name: &HeaderName) -> bool {
    crosses(name.as_str())
}

fn crosses(name: &str) -> bool {
    !is_hop_by_hop(name) && !is_private_to_client(name)
}

/// Removes from a response what belongs to upstream's connection, and what a browser would hold against
/// the proxy's own host.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    remove(headers, |name| is_hop_by_hop(name) || is_bound_to_host(name));
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let mut gone: Vec<HeaderName> = Vec::new();
    // Headers that `Connection` names are hop-by-hop too (RFC 9110, 7.6.1).
    for value in headers.get_all(CONNECTION) {
        let names = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        gone.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    gone.extend(headers.keys().filter(|name| unwanted(name.as_str())).cloned());
    for name in gone {
        headers.remove(name);
    }
}

/// Names are in lower case, as `HeaderName` holds them.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "http2-settings"
    ) || name.starts_with("proxy-")
}

fn is_private_to_client(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "cookie"
            | "cookie2"
            | "expect"
            | "content-length"
            | "forwarded"
            | "via"
            | "client-ip"
            | "cf-connecting-ip"
            | "cf-connecting-ipv6"
            | "cf-ipcountry"
            | "cf-pseudo-ipv4"
            | "cf-visitor"
            | "cloudfront-viewer-address"
            | "fastly-client-ip"
            | "fly-client-ip"
            | "true-client-ip"
            | "x-appengine-user-ip"
            | "x-azure-clientip"
            | "x-azure-socketip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-envoy-external-address"
            | "x-original-forwarded-for"
            | "x-original-host"
            | "x-original-url"
            | "x-real-ip"
            | "x-remote-addr"
            | "x-remote-ip"
            | "x-rewrite-url"
    ) || name.starts_with("x-forwarded")
}

fn is_bound_to_host(name: &str) -> bool {
    matches!(
        name,
        "alt-svc"
            | "clear-site-data"
            | "expect-ct"
            | "nel"
            | "public-key-pins"
            | "report-to"
            | "set-cookie"
            | "set-cookie2"
            | "strict-transport-security"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn left(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_the_client_stays_behind() {
        let stripped = [
            "host",
            "cookie",
            "expect",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-authorization",
            "proxy-connection",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
            "cf-connecting-ip",
            "true-client-ip",
            "fastly-client-ip",
            "x-original-url",
        ];
        for name in stripped {
            let mut headers = map(&[
                (name, "x"),
                ("authorization", "Api-Key k"),
                ("traceparent", "00-1"),
            ]);
            clean_request(&mut headers);
            assert_eq!(left(&headers), ["authorization", "traceparent"], "{name}");
        }
    }

    #[test]
    fn headers_that_connection_names_go_with_it() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop"),
            ("connection", "x-other ,, \"bad name\""),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("x-stays", "3"),
        ]);
        clean_request(&mut headers);
        assert_eq!(left(&headers), ["x-stays"]);
    }

    #[test]
    fn what_is_bound_to_upstreams_host_stays_behind() {
        for name in [
            "set-cookie",
            "alt-svc",
            "strict-transport-security",
            "keep-alive",
            "transfer-encoding",
        ] {
            let mut headers = map(&[
                (name, "x"),
                (name, "y"),
                ("etag", "\"a\""),
                ("content-length", "3"),
            ]);
            clean_response(&mut headers);
            assert_eq!(left(&headers), ["content-length", "etag"], "{name}");
        }
    }
}
