//! Plain requests: data, insights, health.

use super::*;

#[tokio::test(start_paused = true)]
async fn whole_requests_are_answered_as_upstream_does() {
    let file: Value = serde_json::from_str(HTTP).unwrap();
    let mut n_seen = 0;
    for case in file["cases"].as_array().unwrap() {
        let path = case["path"].as_str().unwrap();
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let lines = case["headers"].as_object().unwrap();
        let lines: Vec<(&str, &str)> = lines
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let (headers, body) = (headers(&lines), case["body"].as_str().unwrap_or_default());
        let secrets = [secret_of("server"), secret_of("client")];
        let scene = Scene::start(&secrets.each_ref().map(String::as_str));
        scene.sync_all();
        let reply = match path {
            "/api/public/insight/track" => scene.featbit.track(&headers, body.as_bytes()),
            "/api/public/sdk/server/latest-all" => scene.featbit.server_latest_all(&headers, query).await,
            "/api/public/sdk/client/latest-all" => {
                let (featbit, body) = (&scene.featbit, body.as_bytes());
                featbit.client_latest_all(&headers, query, body).await
            }
            "/health/liveness" => Featbit::liveness(),
            _ => continue,
        };
        n_seen += 1;
        let (status, headers, body) = taken(reply).await;
        let (id, wanted) = (&case["id"], &case["expect"]);
        assert_eq!(json!(status.as_u16()), wanted["status"], "{id}");
        if wanted["emptyBody"] == true {
            assert_eq!(body, "", "{id}");
        } else {
            assert_eq!(json!(body), wanted["text"], "{id}");
        }
        assert!(!headers.contains_key("www-authenticate") && !headers.contains_key(ETAG));
    }
    assert_eq!(n_seen, 9);
}

#[tokio::test(start_paused = true)]
async fn servers_get_the_data_unchanged() {
    let secret = secret_of("server");
    let scene = Scene::start(&[&secret]);
    scene.sync_all();
    let asked = headers(&[("authorization", &format!(" {secret} "))]);
    let latest = async |query: &str| {
        let (status, headers, body) = taken(scene.featbit.server_latest_all(&asked, Some(query)).await).await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key(ETAG));
        assert_eq!(headers[CACHE_CONTROL], "private, no-store");
        (headers.get(CONTENT_TYPE).cloned(), body)
    };
    let (content_type, all) = latest("timestamp=0").await;
    assert_eq!(content_type.unwrap(), "application/json; charset=utf-8");
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all["data"]["eventType"], "full");
    let sorted = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        list.sort_by_key(|item| item["id"].as_str().unwrap().to_owned());
        list
    };
    for name in ["featureFlags", "segments"] {
        assert_eq!(
            sorted(&all["data"][name]),
            sorted(&env()["payload"]["data"][name]),
            "{name}"
        );
    }
    let version = scene.held.data().unwrap().version();
    let (_, newer) = latest(&format!("timestamp={}", version - 1)).await;
    let newer: Value = serde_json::from_str(&newer).unwrap();
    assert_eq!(newer["data"]["eventType"], "patch");
    assert_eq!(
        latest(&format!("timestamp={version}")).await,
        (None, String::new())
    );
}

#[tokio::test(start_paused = true)]
async fn data_go_only_to_those_who_may_have_them() {
    let secret = secret_of("server");
    let asked = headers(&[("authorization", &secret)]);
    let status = async |scene: &Scene| {
        let reply = scene.featbit.server_latest_all(&asked, None).await;
        match reply {
            Reply::Answer(..) => taken(reply).await.0.as_u16(),
            Reply::Forward(3) => 1,
            Reply::Forward(_) => 0,
        }
    };
    let scene = Scene::start(&[]);
    assert_eq!(
        status(&scene).await,
        503,
        "nothing is there, and upstream says nothing"
    );
    scene.sync_all();
    assert_eq!(status(&scene).await, 503, "upstream says nothing of the secret");
    scene.accept(&secret);
    assert_eq!(status(&scene).await, 200);
    scene.reject(&secret);
    assert_eq!(status(&scene).await, 401);
    let scene = Scene::start(&[]);
    scene.sync(&json!({"messageType": "data-sync", "data": {"eventType": "full", "featureFlags": []}}));
    assert_eq!(
        status(&scene).await,
        1,
        "an empty environment: upstream may know better"
    );
    let scene = Scene::start_with(&[], false, 1);
    assert_eq!(status(&scene).await, 503, "there is no upstream");
    let scene = Scene::start(&[&secret]);
    let (found, ()) = tokio::join!(status(&scene), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.sync_all();
    });
    assert_eq!(found, 200, "the first sync is waited for");
    let scene = Scene::start(&[&secret]);
    let began = Instant::now();
    let (found, ()) = tokio::join!(status(&scene), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.held.sync_failed();
    });
    assert_eq!(
        (found, began.elapsed().as_secs()),
        (503, 1),
        "there is nothing to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn insights_are_taken_on_at_once() {
    let scene = Scene::start(&[]);
    let secret = secret_of("client");
    let json = ("content-type", "application/json");
    let asked = headers(&[("authorization", &secret), json]);
    let body = br#"[{"user":{"keyId":"a"},"variations":[]},{"user":{}},{"user":{"keyId":"b"}}]"#;
    let (status, _, text) = taken(scene.featbit.track(&asked, body)).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, ""));
    assert_eq!(scene.featbit.events.len(), 2);
    assert!(format!("{:?}", scene.events).contains("received: Count(2)"));
    let (status, headers, _) = taken(scene.featbit.track(&asked, b"[1,")).await;
    assert_eq!(status, 400);
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json; charset=utf-8");
    let asked = self::headers(&[("authorization", &secret), ("content-type", "text/plain")]);
    assert_eq!(taken(scene.featbit.track(&asked, body)).await.0, 415);
}

#[tokio::test(start_paused = true)]
async fn readiness_says_whether_the_data_are_there() {
    let secret = secret_of("server");
    let readiness = async |scene: &Scene| {
        let (status, _, text) = taken(scene.featbit.readiness()).await;
        (status.as_u16(), text)
    };
    let scene = Scene::start(&[]);
    assert_eq!(
        readiness(&scene).await,
        (200, "Healthy".to_owned()),
        "nothing is needed"
    );
    let scene = Scene::start(&[&secret]);
    assert_eq!(readiness(&scene).await, (503, "Unhealthy".to_owned()));
    scene.sync_all();
    assert_eq!(readiness(&scene).await, (200, "Healthy".to_owned()));
}
