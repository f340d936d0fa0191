//! Streams: who may have one, what it tells, how it ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_is_told_so() {
    let scene = Scene::start(&[]);
    let status = async |version, headers: &HeaderMap| {
        taken(scene.featbit.upgrade(version, headers, None))
            .await
            .0
            .as_u16()
    };
    assert_eq!(status(Version::HTTP_11, &handshake()).await, 101);
    assert_eq!(status(Version::HTTP_2, &handshake()).await, 426);
    for name in [
        "connection",
        "upgrade",
        "sec-websocket-version",
        "sec-websocket-key",
    ] {
        let mut headers = handshake();
        headers.remove(name);
        assert_eq!(status(Version::HTTP_11, &headers).await, 426, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_requests_are_closed_with_4003() {
    let (server, client) = (secret_of("server"), secret_of("client"));
    local(async {
        let scene = Scene::start(&[&server, &client]);
        scene.sync_all();
        let kind = |text: &str, kind| {
            let secret = scene.held.secret(&key(text)).unwrap();
            secret.admitted(kind, Admission::Admitted);
        };
        kind(&server, StreamKind::Server);
        kind(&client, StreamKind::Client);
        let token = |secret: &str, age: i64| {
            let made = i64::try_from(unix_ms()).unwrap() - age;
            token::encode(secret, u64::try_from(made).unwrap(), 10)
        };
        for (query, wanted) in [
            ("type=server&token=TOKEN".to_owned(), None),
            ("type=server&version=&token=TOKEN".to_owned(), None),
            ("TYPE=server&Version=2&token=TOKEN".to_owned(), None),
            (format!("type=client&token={}", token(&client, 0)), None),
            (format!("type=server&token={}", token(&server, 29_000)), None),
            (format!("type=server&token={}", token(&server, -29_000)), None),
            (
                format!("type=server&token={}", token(&server, 31_000)),
                Some(4003),
            ),
            (
                format!("type=server&token={}", token(&server, -31_000)),
                Some(4003),
            ),
            ("token=TOKEN".to_owned(), Some(4003)),
            ("type=Server&token=TOKEN".to_owned(), Some(4003)),
            ("type=relay-proxy&token=TOKEN".to_owned(), Some(4003)),
            ("type=server&version=3&token=TOKEN".to_owned(), Some(4003)),
            ("type=server".to_owned(), Some(4003)),
            ("type=server&token=".to_owned(), Some(4003)),
            ("type=server&token=QQQQQ".to_owned(), Some(4003)),
            ("type=client&token=TOKEN".to_owned(), Some(4003)),
            (format!("type=server&token={}", token(&client, 0)), Some(4003)),
            (String::new(), Some(4003)),
        ] {
            let mut stream = scene.stream(&query);
            let ping = Message::text(r#"{"messageType":"ping","data":{}}"#);
            // Of a closed stream the ping may not go out.
            let _ = stream.socket().await.send(ping).await;
            assert_eq!(stream.next().await.err(), wanted, "{query}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_now_is_closed_so_that_it_is_tried_again() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[]);
        scene.sync_all();
        let close = async |scene: &Scene| scene.stream("type=server&token=TOKEN").next().await.unwrap_err();
        assert_eq!(close(&scene).await, 1011, "upstream says nothing of the secret");
        scene.accept(&server);
        let mut stream = scene.stream("type=server&token=TOKEN");
        assert!(stream.asks(0).await.is_ok(), "it was good before");
        scene.reject(&server);
        assert_eq!(close(&scene).await, 4003);
        assert_eq!(
            stream.asks(0).await,
            Err(4003),
            "and so for streams that are open"
        );
        let scene = Scene::start(&[&server]);
        let mut stream = scene.stream("type=server&token=TOKEN");
        assert_eq!(stream.asks(0).await, Err(1011), "no data came");
        let scene = Scene::start_with(&[&server], true, 1);
        scene.sync_all();
        let mut first = scene.stream("type=server&token=TOKEN");
        assert!(first.asks(0).await.is_ok());
        assert_eq!(close(&scene).await, 1013, "there is room for one");
        drop(first.socket);
        first.served.await.unwrap();
        assert_eq!(scene.featbit.streams.open(), 0);
        assert!(scene.stream("type=server&token=TOKEN").asks(0).await.is_ok());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_secret_is_served_once_upstream_admits_it() {
    let server = secret_of("server");
    local(async {
        for (admission, wanted) in [(Admission::Admitted, None), (Admission::Refused, Some(4003))] {
            let scene = Scene::start(&[]);
            scene.sync_all();
            let mut stream = scene.stream("type=server&token=TOKEN");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let secret = scene.held.secret(&key(&server)).unwrap();
            assert!(secret.is_asked(StreamKind::Server));
            secret.admitted(StreamKind::Server, admission);
            scene.accept(&server);
            assert_eq!(stream.asks(0).await.err(), wanted);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_everything_and_then_what_changes() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let mut stream = scene.stream("type=server&token=TOKEN");
        let all = stream.asks(0).await.unwrap();
        assert_eq!(all["data"]["eventType"], "full");
        let version = scene.held.data().unwrap().version();
        let nothing = stream.asks(version).await.unwrap();
        assert_eq!(
            nothing["data"],
            json!({"eventType": "patch", "featureFlags": [], "segments": []})
        );
        let flag = changed_flag(0, "2031-01-01T00:00:00Z");
        scene.sync(&patch(std::slice::from_ref(&flag), &[]));
        assert_eq!(stream.next().await.unwrap(), patch(&[flag], &[]));
        let mut segment = env()["payload"]["data"]["segments"][0].take();
        segment["updatedAt"] = json!("2031-01-01T00:00:01Z");
        scene.sync(&patch(&[], std::slice::from_ref(&segment)));
        assert_eq!(stream.next().await.unwrap(), patch(&[], &[segment]));
        let mut fewer = env()["payload"].take();
        fewer["data"]["featureFlags"].as_array_mut().unwrap().truncate(3);
        scene.sync(&fewer);
        let all = stream.next().await.unwrap();
        assert_eq!(
            all["data"]["eventType"], "full",
            "a patch cannot tell what is gone"
        );
        assert_eq!(all["data"]["featureFlags"].as_array().unwrap().len(), 3);
        let echo = json!({"messageType": "echo", "data": {"a": [1, "x"]}});
        stream.say(&echo).await;
        assert_eq!(stream.next().await.unwrap(), echo);
        for odd in [
            json!({"messageType": "news", "data": 1}),
            json!({"messageType": "ping"}),
            json!(7),
        ] {
            stream.say(&odd).await;
        }
        stream.socket().await.send(Message::text("{")).await.unwrap();
        assert!(stream.is_quiet().await, "what is not known is passed over");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_what_concerns_its_user() {
    let client = secret_of("client");
    local(async {
        let scene = Scene::start(&[&client]);
        scene.sync_all();
        let mut stream = scene.client_stream(&client);
        scene.sync(&patch(&[changed_flag(0, "2031-01-01T00:00:00Z")], &[]));
        stream
            .say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        assert!(stream.is_quiet().await, "without a user there is nothing to tell");
        let all = stream.asks_for("ada", 0).await.unwrap();
        let data = scene.held.data().unwrap();
        assert_eq!(
            (&all["data"]["eventType"], &all["data"]["userKeyId"]),
            (&json!("full"), &json!("ada"))
        );
        let flags = all["data"]["featureFlags"].as_array().unwrap();
        assert!(!flags.is_empty() && flags.len() <= data.flags().len());
        let nothing = stream.asks_for("ada", data.version()).await.unwrap();
        assert_eq!(
            nothing["data"],
            json!({"eventType": "patch", "userKeyId": "ada", "featureFlags": []})
        );
        let flag = changed_flag(1, "2031-01-01T00:00:01Z");
        scene.sync(&patch(std::slice::from_ref(&flag), &[]));
        let told = stream.next().await.unwrap();
        assert_eq!(told["data"]["featureFlags"][0]["id"], flag["key"]);
        assert_eq!(told["data"]["featureFlags"].as_array().unwrap().len(), 1);
        stream.asks_for("bob", 0).await.unwrap();
        let flag = changed_flag(2, "2031-01-01T00:00:02Z");
        scene.sync(&patch(&[flag], &[]));
        let told = stream.next().await.unwrap();
        assert_eq!(told["data"]["userKeyId"], "bob", "it is bob's stream now");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_concerns_the_flags_that_name_it() {
    let client = secret_of("client");
    local(async {
        let scene = Scene::start(&[&client]);
        scene.sync_all();
        let mut stream = scene.client_stream(&client);
        stream.asks_for("ada", 0).await.unwrap();
        let segments = env()["payload"]["data"]["segments"].take();
        let mut n_told = 0;
        for (at, segment) in segments.as_array().unwrap().iter().enumerate() {
            let mut segment = segment.clone();
            segment["updatedAt"] = json!(format!("2031-01-01T00:00:{at:02}Z"));
            let data = scene.held.data().unwrap();
            let id = segment["id"].as_str().unwrap();
            let named: Vec<String> = data
                .flags_of_segment(id)
                .map(|flag| flag.key().to_owned())
                .collect();
            scene.sync(&patch(&[], &[segment.clone()]));
            if named.is_empty() {
                assert!(stream.is_quiet().await, "{id}");
                continue;
            }
            let told = stream.next().await.unwrap();
            let told = told["data"]["featureFlags"].as_array().unwrap();
            assert!(!told.is_empty(), "{id}");
            for flag in told {
                assert!(named.iter().any(|key| flag["id"] == json!(key)), "{id}");
            }
            n_told += 1;
        }
        assert!(n_told > 0, "no flag names a segment");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn data_that_come_late_are_told_to_those_who_wait() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        let mut stream = scene.stream("type=server&token=TOKEN");
        stream
            .say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        assert!(stream.is_quiet().await);
        scene.sync_all();
        assert_eq!(stream.next().await.unwrap()["data"]["eventType"], "full");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_and_silent_clients_are_cut_off() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let query = format!("type=server&token={}", token::encode(&server, unix_ms(), 9));
        let mut slow = scene.stream_with(&query, 256);
        slow.say(&json!({"messageType": "data-sync", "data": {"timestamp": 0}}))
            .await;
        let began = Instant::now();
        timeout(EVER, &mut slow.served).await.unwrap().unwrap();
        assert_eq!(began.elapsed().as_secs(), 30);
        // It reads, as its library does for it, but its application says nothing: that is enough.
        let mut quiet = scene.stream_with(&query, 1 << 20);
        let reading = timeout(Duration::from_secs(600), quiet.next()).await;
        assert!(reading.is_err());
        // It does not read, so that it answers no ping either.
        let mut gone = scene.stream_with(&query, 1 << 20);
        let began = Instant::now();
        timeout(EVER, &mut gone.served).await.unwrap().unwrap();
        assert!((120..=123).contains(&began.elapsed().as_secs()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn messages_too_large_or_broken_end_a_stream() {
    let server = secret_of("server");
    local(async {
        let scene = Scene::start(&[&server]);
        scene.sync_all();
        let mut stream = scene.stream("type=server&token=TOKEN");
        let echo = json!({"messageType": "echo", "data": "x".repeat((64 << 10) - 40)});
        stream.say(&echo).await;
        assert_eq!(stream.next().await.unwrap(), echo, "64 KiB are taken");
        let text = Message::text("x".repeat((64 << 10) + 1));
        stream.socket().await.send(text).await.unwrap();
        assert_eq!(stream.next().await, Err(1009));
    })
    .await;
}
