//! The support, tested by itself: the raw client against the fake cloud, without the program in between.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{Alphabet, Ask};
use super::caller::{Caller, Outcome, Response, at_once, exchange};
use super::codec;
use super::flags::flags;
use super::malformed::malformed;
use super::near_misses::near_misses;
use super::outages::{OUTAGES, outage};
use super::spellings::{rest_spellings, sdk_spellings};
use super::upstream::{COHORT_SECRET, Door, FakeUpstream, Fault, KEY, Route};

fn ask(cloud: &FakeUpstream, ask: &Ask) -> Response {
    Caller::new(cloud.address()).ask(ask)
}

#[test]
fn codecs_agree_with_the_published_vectors() {
    let user = r#"{"user_id":"u-1","device_id":"d?~>","user_properties":{"plan":"pro"}}"#;
    let standard =
        "eyJ1c2VyX2lkIjoidS0xIiwiZGV2aWNlX2lkIjoiZD9+PiIsInVzZXJfcHJvcGVydGllcyI6eyJwbGFuIjoicHJvIn19";
    assert_eq!(codec::base64(user.as_bytes()), standard);
    assert_eq!(Alphabet::UrlSafeUnpadded.encode(user), standard.replace('+', "-"));
    assert_eq!(
        Alphabet::Standard.encode(r#"["checkout","theme"]"#),
        "WyJjaGVja291dCIsInRoZW1lIl0="
    );
    for text in ["", "a", "ab", "abc", "abcd", "?~>\u{e9}"] {
        for alphabet in [Alphabet::Standard, Alphabet::UrlSafe, Alphabet::UrlSafeUnpadded] {
            assert_eq!(
                codec::unbase64(&alphabet.encode(text)).unwrap(),
                text.as_bytes(),
                "{alphabet:?} {text:?}"
            );
        }
    }
    assert_eq!(codec::unbase64("a!b"), None);
    assert_eq!(
        codec::form_decode("S%C3%a3o+Tom%"),
        Some("S\u{e3}o Tom%".to_owned())
    );
    assert_eq!(
        codec::query_pairs("&a=1&&b=%26&c"),
        [("a", "1"), ("b", "&"), ("c", "")].map(|(a, b)| (a.into(), b.into()))
    );
    // CRC-32 of "a" is e8b7be43.
    assert_eq!(codec::gzip(b"a")[16..20], [0x43, 0xbe, 0xb7, 0xe8]);
}

#[test]
fn the_cloud_answers_each_user_differently_in_both_shapes() {
    let cloud = FakeUpstream::start();
    let pro = json!({"user_id": "u-1", "device_id": "d-1", "user_properties": {"plan": "pro"}}).to_string();
    let v2 = ask(&cloud, &Ask::sdk_get(&pro)).json();
    assert_eq!(v2["theme"]["payload"], json!({"version": 1}));
    assert_eq!(v2["banner"]["key"], "off");
    assert_eq!(v2["beta"]["key"], "on", "it depends on theme");
    assert_eq!(
        v2["who"]["payload"]["user"],
        serde_json::from_str::<Value>(&pro).unwrap()
    );
    let v1 = ask(&cloud, &Ask::post("/v1/vardata", pro)).json();
    assert_eq!(v1["checkout"]["expKey"], "exp-1");
    assert!(v1.get("banner").is_none() && v1.get("hidden").is_none(), "{v1}");
    assert_eq!(
        v1,
        ask(
            &cloud,
            &Ask::v1(
                "user_id=u-1&device_id=d-1&context=%7B%22user_properties%22:%7B%22plan%22:%22pro%22%7D%7D"
            )
        )
        .json()
    );
    let splits: BTreeSet<_> = (0..40)
        .map(|number| {
            ask(&cloud, &Ask::about(&format!("user {number}"))).json()["checkout"]["key"].to_string()
        })
        .collect();
    assert_eq!(splits.len(), 2, "both halves of the split are met");
}

#[test]
fn the_cloud_answers_the_other_routes_of_the_contract() {
    let cloud = FakeUpstream::start();
    let keys = |response: Response| -> Vec<String> {
        response
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        keys(ask(&cloud, &Ask::flags())),
        ["theme", "layout", "beta", "hidden"]
    );
    assert_eq!(
        keys(ask(&cloud, &Ask::get("/sdk/v2/flags?v=0&eval_mode=remote"))).len(),
        6
    );
    assert_eq!(
        keys(ask(&cloud, &Ask::get("/v1/flags?flag_keys=theme"))),
        ["theme"]
    );
    let basic = format!("Basic {}", codec::base64(COHORT_SECRET.as_bytes()));
    let cohort = ask(
        &cloud,
        &Ask::new("GET", "/sdk/v1/cohort/c1?maxCohortSize=10").header("Authorization", &basic),
    );
    assert_eq!(cohort.json()["memberIds"], json!(["u-1", "u-2"]));
    assert_eq!(
        ask(&cloud, &Ask::get("/web/v1/configs")).header("x-cloud"),
        Some("here")
    );
    assert_eq!(ask(&cloud, &Ask::get("/sdk/other")).status, 404);
    assert_eq!(ask(&cloud, &Ask::flags().key("unknown")).status, 401);
    assert_eq!(ask(&cloud, &Ask::about("a").without("Authorization")).status, 401);
    assert_eq!(ask(&cloud, &Ask::sdk_get("[]")).status, 400);
    assert_eq!(cloud.count(Route::Flags), 4);
    assert_eq!(cloud.count(Route::RemoteFlags), 1);
}

#[test]
fn the_cloud_honours_if_none_match_when_told_to_use_etags() {
    let cloud = FakeUpstream::start();
    assert_eq!(ask(&cloud, &Ask::flags()).header("etag"), None);
    cloud.use_etags();
    let etag = ask(&cloud, &Ask::flags()).header("etag").unwrap().to_owned();
    assert_eq!(
        ask(&cloud, &Ask::flags().header("If-None-Match", &etag)).status,
        304
    );
    cloud.set_flags(flags(2));
    assert_eq!(
        ask(&cloud, &Ask::flags().header("If-None-Match", &etag)).status,
        200
    );
}

#[test]
fn the_cloud_keeps_connections_and_records_them() {
    let cloud = FakeUpstream::start();
    let mut caller = Caller::new(cloud.address());
    for _ in 0..3 {
        assert_eq!(caller.ask(&Ask::about("a")).status, 200);
    }
    cloud.close_idle();
    cloud.wait_for_open_at_most(0);
    caller.ask(&Ask::about("a"));
    let connections: Vec<_> = cloud
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(connections, [1, 1, 1, 2]);
    assert_eq!(cloud.requests()[0].header("HOST"), Some("127.0.0.1:3546"));
}

#[test]
fn the_cloud_revokes_and_restores_keys() {
    let cloud = FakeUpstream::start();
    cloud.revoke(KEY);
    assert_eq!(ask(&cloud, &Ask::about("a")).status, 401);
    cloud.restore(KEY);
    assert_eq!(ask(&cloud, &Ask::about("a")).status, 200);
    cloud.accept_keys(&["one"]);
    assert_eq!(ask(&cloud, &Ask::about("a")).status, 401);
    assert_eq!(ask(&cloud, &Ask::about("a").key("one")).status, 200);
}

#[test]
fn faults_strike_their_route_as_often_as_they_are_told() {
    let cloud = FakeUpstream::start();
    cloud.fail_on(Route::Flags, Fault::status(503));
    cloud.fail_times(Route::Vardata, Fault::status(500), 1);
    cloud.fail_after(2, Route::Other, Fault::throttled(7));
    let statuses = |asked: &Ask| [0; 3].map(|_| ask(&cloud, asked).status);
    assert_eq!(statuses(&Ask::flags()), [503, 503, 503]);
    assert_eq!(statuses(&Ask::about("a")), [500, 200, 200]);
    assert_eq!(statuses(&Ask::get("/web/v1/configs")), [200, 200, 429]);
    assert_eq!(
        ask(&cloud, &Ask::get("/web/v1/configs")).header("retry-after"),
        Some("7")
    );
    cloud.heal();
    assert_eq!(statuses(&Ask::flags()), [200, 200, 200]);
}

#[test]
fn every_outage_keeps_a_proper_answer_from_the_client_and_ends_when_healed() {
    at_once(OUTAGES.len(), |number| {
        let outage = OUTAGES[number];
        let cloud = FakeUpstream::start();
        let proper = ask(&cloud, &Ask::about("a")).json();
        (outage.strike)(&cloud);
        let patience = Duration::from_millis(300);
        let outcome = match std::net::TcpStream::connect_timeout(&cloud.address(), patience) {
            Ok(_) => exchange(cloud.address(), &Ask::about("a").bytes(), patience),
            Err(_) => Outcome::Closed,
        };
        match &outcome {
            Outcome::Answer(answer) => {
                let proper = serde_json::from_slice(&answer.body).is_ok_and(|body: Value| body == proper);
                assert!(!proper && !outage.silent, "{}: {answer:?}", outage.name);
            }
            Outcome::Silence | Outcome::Broken(_) | Outcome::Closed => {}
        }
        cloud.heal();
        assert_eq!(ask(&cloud, &Ask::about("a")).json(), proper, "{}", outage.name);
    });
}

#[test]
fn a_refusing_cloud_comes_back_on_its_port() {
    let cloud = FakeUpstream::start();
    let mut caller = Caller::new(cloud.address());
    caller.ask(&Ask::about("a"));
    (outage("refused").strike)(&cloud);
    assert!(caller.is_closed_by_peer());
    assert!(std::net::TcpStream::connect(cloud.address()).is_err());
    cloud.heal();
    assert_eq!(caller.ask(&Ask::about("a")).status, 200);
}

#[test]
fn a_full_accept_queue_lets_nobody_connect() {
    let cloud = FakeUpstream::start();
    cloud.set_door(Door::Full);
    let connected = std::net::TcpStream::connect_timeout(&cloud.address(), Duration::from_millis(200));
    assert!(connected.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut));
}

#[test]
fn held_answers_are_those_of_the_moment_they_were_asked() {
    let cloud = FakeUpstream::start();
    cloud.fail_on(Route::Vardata, Fault::Hold);
    let pro = r#"{"user_id":"a","user_properties":{"plan":"pro"}}"#;
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ask(&cloud, &Ask::sdk_get(pro)).json());
        cloud.wait_for(Route::Vardata, 1);
        cloud.set_flags(flags(2));
        cloud.release();
        assert_eq!(held.join().unwrap()["theme"]["payload"]["version"], 1);
    });
    assert_eq!(
        ask(&cloud, &Ask::sdk_get(pro)).json()["theme"]["payload"]["version"],
        2
    );
}

#[test]
fn a_stream_begins_with_the_flags_and_carries_what_is_pushed() {
    let cloud = FakeUpstream::start();
    let mut caller = Caller::new(cloud.address());
    caller.send(&Ask::get("/sdk/stream/v1/flags").bytes());
    caller.read_until("\"key\":\"hidden\"");
    cloud.push("[]");
    caller.read_until("data: []\n\n");
}

#[test]
fn all_spellings_ask_the_cloud_the_same_question() {
    let user = sample_user();
    for (spellings, least) in [
        (sdk_spellings(&user, &["theme", "checkout"]), 24),
        (rest_spellings(&user, &["theme", "checkout"]), 12),
    ] {
        assert!(spellings.len() >= least, "{}", spellings.len());
        let cloud = FakeUpstream::start();
        for spelling in &spellings {
            // The cloud itself knows no slashes but the right ones, and no absolute targets.
            if spelling.name.contains("slash") || spelling.name.contains("absolute") {
                continue;
            }
            let answer = exchange(cloud.address(), &spelling.bytes, Duration::from_secs(10))
                .expect_answer(&spelling.bytes);
            assert_eq!(answer.status, 200, "{}: {}", spelling.name, answer.text());
            let mut who = answer.json()["who"]["payload"].clone();
            assert_eq!(who["user"], user, "{}", spelling.name);
            let keys: BTreeSet<String> = serde_json::from_value(who["flag_keys"].take()).unwrap();
            assert_eq!(
                keys,
                ["checkout", "theme"].map(str::to_owned).into(),
                "{}",
                spelling.name
            );
        }
    }
}

#[test]
fn near_misses_are_many_and_differ() {
    let pairs = near_misses();
    assert!(pairs.len() >= 40, "{}", pairs.len());
    let names: BTreeSet<_> = pairs.iter().map(|pair| pair.name).collect();
    assert_eq!(names.len(), pairs.len(), "names are unique");
    for pair in &pairs {
        assert_ne!(pair.one.bytes(), pair.other.bytes(), "{}", pair.name);
    }
}

#[test]
fn the_cloud_itself_refuses_malformed_questions() {
    let cases = malformed();
    assert!(cases.len() >= 60, "{}", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");
    let cloud = FakeUpstream::start();
    for case in cases
        .iter()
        .filter(|case| case.wanted == super::malformed::Wanted::Status(400))
        .take(39)
    {
        let answer =
            exchange(cloud.address(), &case.bytes, Duration::from_secs(10)).expect_answer(&case.bytes);
        assert_eq!(answer.status, 400, "{}: {}", case.name, answer.text());
    }
}

#[test]
fn the_source_of_an_answer_is_read_from_cache_status() {
    for (status, wanted) in [
        (Some("flagside; hit; ttl=41"), "hit"),
        (Some("flagside; fwd=uri-miss; stored"), "miss"),
        (Some("flagside; fwd=uri-miss; collapsed"), "coalesced"),
        (Some("flagside; hit; ttl=-12; detail=stale"), "stale"),
        (Some("flagside; hit; ttl=-12; detail=stale_error"), "stale_error"),
        (Some("flagside; fwd=miss; fwd-status=503; detail=local"), "local"),
        (Some("flagside; fwd=bypass"), "passthrough"),
        (None, "none"),
    ] {
        let headers = status
            .map(|status| ("cache-status".to_owned(), status.to_owned()))
            .into_iter()
            .collect();
        let response = Response {
            status: 200,
            headers,
            body: Vec::new(),
            took: Duration::ZERO,
        };
        assert_eq!(response.source(), wanted, "{status:?}");
    }
}

/// A user with every kind of value, whose base64 holds `+` and `/`.
fn sample_user() -> Value {
    serde_json::from_str(
        r#"{"user_id":"u-caf\u00e9","device_id":"d?~>","country":"DE",
            "user_properties":{"plan":"pro","n":1.0,"big":12345678901234567890123,"html":"<a href='/x'>&","l":[2,1,2],
                "o":{"y":1,"x":2},"none":null,"empty":"","yes":true,"smile":"\ud83d\ude00"},
            "groups":{"org":["acme","b"],"team":["x"]},
            "group_properties":{"org":{"acme":{"size":10,"tier":"gold"}}}}"#,
    )
    .unwrap()
}
