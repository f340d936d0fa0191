//! Streams: what they bring, how they end and what follows.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_brings_everything_and_then_what_changes() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    assert_eq!(
        (stream.kind, stream.secret.as_str(), stream.token_ms),
        (StreamKind::Server, SECRET, BEGIN_MS)
    );
    assert_eq!(stream.asked().await, Some(0));
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
    let deployment = scene.deployments.get(0, &key(SECRET)).unwrap();
    assert_eq!(deployment.epoch(), 0, "the first sync adopts what is stored");
    stream.say(&message("patch", "b", 2000)).await;
    scene.version(2000).await;
    assert_eq!(scene.held.data().unwrap().flags().len(), 2);
    assert_eq!(deployment.epoch(), 1, "what is stored is no longer current");
    stream.say(&json!({"messageType": "news", "data": 1})).await;
    stream.say(&message("patch", "c", 3000)).await;
    scene.version(3000).await;
    let secret = scene.held.secret(&key(SECRET)).unwrap();
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
    assert_eq!(secret.admission(StreamKind::Client), Admission::Refused);
    scene.stopper.request();
    timeout(EVER, scene.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_ten_minutes_everything_is_asked_for_and_what_is_gone_goes() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    let mut both = message("full", "a", 1000);
    let b = message("full", "b", 1000)["data"]["featureFlags"][0].take();
    both["data"]["featureFlags"].as_array_mut().unwrap().push(b);
    stream.say(&both).await;
    assert_eq!(stream.asked().await, Some(0));
    assert_eq!(scene.seconds(), 600);
    assert_eq!(scene.held.data().unwrap().flags().len(), 2);
    let mut changes = scene.held.changes();
    stream.say(&message("full", "a", 1000)).await;
    timeout(EVER, changes.changed()).await.unwrap().unwrap();
    assert_eq!(scene.held.data().unwrap().flags().len(), 1);
    stream.say(&message("full", "a", 1000)).await;
    assert_eq!(stream.asked().await, Some(0));
    assert_eq!(scene.seconds(), 1200);
    assert!(!changes.has_changed().unwrap(), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_stream_another_one_follows() {
    let mut scene = Scene::start(&[SECRET]);
    let mut waits = Vec::new();
    for code in [1000, 1001, 1006, 1011, 4000] {
        let mut stream = scene.stream().await;
        stream.asked().await;
        stream.say(&message("full", "a", 1000)).await;
        scene.version(1000).await;
        let ended = Instant::now();
        if code == 1006 {
            drop(stream);
        } else {
            stream.close(code).await;
        }
        let stream = scene.stream().await;
        waits.push(ended.elapsed().as_millis());
        drop(stream);
    }
    // 1 s with half of the jitter, and twice that after the stream that was dropped without having brought anything.
    assert!(waits.iter().all(|wait| (500..=1500).contains(wait)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_failing_streams_grow_to_a_minute_and_a_good_one_resets_them() {
    let mut scene = Scene::start(&[SECRET]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        drop(scene.stream().await);
        let ended = Instant::now();
        let mut stream = scene.stream().await;
        pauses.push(ended.elapsed().as_millis());
        assert!(stream.asked().await.is_some());
        drop(stream);
        if pauses.len() == 4 {
            let mut stream = scene.stream().await;
            stream.asked().await;
            stream.say(&message("full", "a", 1000)).await;
            scene.version(1000).await;
        }
    }
    assert_eq!(
        pauses,
        [750, 3_000, 12_000, 45_000, 1_500, 6_000, 24_000, 45_000, 45_000]
    );
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_stream_after_two_pings() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let ping = json!({"messageType": "ping", "data": {}});
    assert_eq!(stream.next().await, Some(ping.clone()));
    assert_eq!(scene.seconds(), 15);
    stream.say(&json!({"messageType": "pong", "data": {}})).await;
    assert_eq!(stream.next().await, Some(ping));
    assert_eq!(stream.next().await, None);
    assert_eq!(scene.seconds(), 45);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_differs_is_reckoned_with() {
    let mut scene = Scene::start(&[SECRET]);
    scene.skew_ms.store(-3_600_000, Ordering::SeqCst);
    let stream = scene.stream().await;
    assert_eq!(stream.token_ms, BEGIN_MS);
    stream.close(4003).await;
    let mut stream = scene.stream().await;
    assert_eq!(scene.seconds(), 0, "at once");
    let off = stream.token_ms - (BEGIN_MS - 3_600_000);
    assert!((-1_000..=1_000).contains(&off), "{off}");
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    // The same again is no news: the secret is refused.
    stream.close(4003).await;
    let (.., answer) = scene.poll().await;
    drop(answer);
    assert!(scene.seconds() > 0);
}

#[tokio::test(start_paused = true)]
async fn messages_that_cannot_be_read_change_nothing() {
    for (bad, ends) in [
        (json!("x"), false),
        (json!({"messageType": "data-sync", "data": 7}), true),
        (Value::Null, false),
    ] {
        let mut scene = Scene::start(&[SECRET]);
        let mut stream = scene.stream().await;
        stream.asked().await;
        stream.say(&message("full", "a", 1000)).await;
        scene.version(1000).await;
        stream.say(&bad).await;
        if ends {
            assert_eq!(stream.next().await, None, "{bad}: another stream is opened");
            assert_eq!(scene.held.data().unwrap().version(), 1000);
            continue;
        }
        stream.say(&message("patch", "b", 2000)).await;
        scene.version(2000).await;
        assert_eq!(scene.held.data().unwrap().flags().len(), 2, "{bad}");
    }
}
