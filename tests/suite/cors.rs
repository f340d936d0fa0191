//! Browsers: preflights, and headers without which a browser hides an answer (API 3.9).

use crate::support::{Ask, FakeUpstream, Response, Route, Sidecar};

const ORIGIN: &str = "https://shop.example";

fn preflight(path: &str) -> Ask {
    Ask::new("OPTIONS", path)
        .header("Origin", ORIGIN)
        .header("Access-Control-Request-Method", "GET")
        .header(
            "Access-Control-Request-Headers",
            "authorization,x-amp-exp-user,x-own",
        )
}

fn list(response: &Response, name: &str) -> Vec<String> {
    let values = response
        .headers
        .iter()
        .filter(|(other, _)| other == name)
        .flat_map(|(_, value)| value.split(','));
    values.map(|value| value.trim().to_ascii_lowercase()).collect()
}

#[test]
fn a_preflight_is_answered_here_without_a_key() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    for path in [
        "/v1/vardata",
        "/sdk/vardata",
        "/sdk/v2/vardata?v=0",
        "/v1/flags",
        "/sdk/v2/flags",
        "/web/v1/configs",
    ] {
        let answer = sidecar.ask(&preflight(path));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-max-age"), Some("86400"), "{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{path}");
        assert_eq!(answer.header("content-length"), None, "{path}: a 204 has none");
        let methods = list(&answer, "access-control-allow-methods");
        assert!(
            ["get", "post", "options"]
                .iter()
                .all(|method| methods.iter().any(|other| other == method)),
            "{methods:?}"
        );
        let headers = list(&answer, "access-control-allow-headers");
        for header in [
            "authorization",
            "content-type",
            "x-amp-exp-user",
            "x-amp-exp-flag-keys",
            "x-amp-exp-track",
            "x-amp-exp-exposure-track",
            "x-amp-exp-library",
            "x-own",
        ] {
            assert!(
                headers.iter().any(|other| other == header),
                "{path}: {header} in {headers:?}"
            );
        }
        let vary = list(&answer, "vary");
        assert!(
            vary.contains(&"origin".to_owned())
                && vary.contains(&"access-control-request-headers".to_owned())
        );
    }
    assert_eq!(cloud.count(Route::All), 0);
}

#[test]
fn answers_and_errors_are_visible_to_browsers() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::start(&cloud);
    let asks = [
        ("a miss", Ask::about("u"), 200),
        ("a hit", Ask::about("u"), 200),
        ("flags", Ask::flags(), 200),
        ("no key", Ask::about("u").without("Authorization"), 401),
        ("a rejected key", Ask::about("u").key("nobody"), 401),
        ("a wrong method", Ask::new("PUT", "/sdk/v2/vardata"), 405),
        ("an unknown path", Ask::get("/nowhere"), 404),
        ("a malformed user", Ask::sdk_get("[]"), 400),
        ("a pass-through", Ask::get("/web/v1/configs"), 200),
    ];
    for (name, ask, status) in asks {
        let answer = sidecar.ask(&ask.header("Origin", ORIGIN));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("*"),
            "{name}: {answer:?}"
        );
    }
    cloud.go_down();
    let answer = sidecar.ask(&Ask::about("u").key("server-new").header("Origin", ORIGIN));
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (503, Some("*")),
        "{answer:?}"
    );
}

#[test]
fn configured_origins_are_the_only_ones() {
    let cloud = FakeUpstream::start();
    let sidecar = Sidecar::in_front_of(&cloud)
        .set("listen.cors.origins", ORIGIN)
        .start();
    for _ in 0..2 {
        let ours = sidecar.ask(&Ask::about("u").header("Origin", ORIGIN));
        assert_eq!(ours.header("access-control-allow-origin"), Some(ORIGIN));
        assert!(list(&ours, "vary").contains(&"origin".to_owned()), "{ours:?}");
        let foreign = sidecar.ask(&Ask::about("u").header("Origin", "https://evil.example"));
        assert_eq!(foreign.status, 200);
        assert_eq!(foreign.header("access-control-allow-origin"), None);
    }
    assert_eq!(
        sidecar
            .ask(&preflight("/sdk/v2/vardata"))
            .header("access-control-allow-origin"),
        Some(ORIGIN)
    );
    let foreign = preflight("/sdk/v2/vardata")
        .without("Origin")
        .header("Origin", "https://evil.example");
    assert_eq!(sidecar.ask(&foreign).header("access-control-allow-origin"), None);
}

#[test]
fn private_networks_are_open_to_listed_origins_alone() {
    let cloud = FakeUpstream::start();
    let ask = preflight("/sdk/v2/vardata").header("Access-Control-Request-Private-Network", "true");
    let open = Sidecar::start(&cloud);
    assert_eq!(
        open.ask(&ask).header("access-control-allow-private-network"),
        None,
        "any origin is no listed origin"
    );
    let listed = Sidecar::in_front_of(&cloud)
        .set("listen.cors.origins", ORIGIN)
        .start();
    assert_eq!(
        listed.ask(&ask).header("access-control-allow-private-network"),
        Some("true")
    );
    assert_eq!(
        listed
            .ask(&preflight("/sdk/v2/vardata"))
            .header("access-control-allow-private-network"),
        None
    );
}
