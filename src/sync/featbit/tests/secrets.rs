//! What is learnt of secrets.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_refused_secret_polls_and_tries_again_with_a_new_token() {
    let mut scene = Scene::start(&[SECRET]);
    let stream = scene.stream().await;
    stream.close(4003).await;
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since, scene.seconds()), (SECRET, 0, 0));
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    scene.version(1000).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
    let secret = scene.held.secret(&key(SECRET)).unwrap();
    assert_eq!(secret.admission(StreamKind::Server), Admission::Refused);
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (1000, 30));
    answer.send(polled(&message("patch", "b", 2000))).unwrap();
    scene.version(2000).await;
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (2000, 60));
    let nothing = Polled {
        body: Bytes::new(),
        date: None,
    };
    answer.send(Ok(nothing)).unwrap();
    let mut stream = scene.stream().await;
    assert_eq!(scene.seconds(), 90, "at least a minute later");
    assert_eq!(stream.token_ms, BEGIN_MS + 90_000);
    assert_eq!(stream.asked().await, Some(2000));
    stream.say(&message("patch", "c", 3000)).await;
    scene.version(3000).await;
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
}

#[tokio::test(start_paused = true)]
async fn a_401_takes_the_secret_out_of_service_and_another_one_goes_on() {
    let mut scene = Scene::start(&[SECRET, OTHER]);
    scene.stream().await.close(4003).await;
    scene.stream().await.close(4003).await;
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since), (SECRET, 0));
    let rejected = LinkError::Rejected {
        content_type: None,
        body: Bytes::new(),
    };
    answer.send(Err(rejected)).unwrap();
    let (secret, _, answer) = scene.poll().await;
    assert_eq!(secret, OTHER);
    assert_eq!(scene.standing(SECRET), Standing::Revoked);
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    scene.version(1000).await;
    assert_eq!(scene.standing(OTHER), Standing::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_secret_that_is_rejected_ends() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let json = http::HeaderValue::from_static("application/json");
    let now = std::time::Instant::now();
    scene.deployments.reject(0, &key(SECRET), now, json, Bytes::new());
    let mut last = stream.next().await;
    while let Some(message) = last {
        assert_eq!(message["messageType"], "ping");
        last = stream.next().await;
    }
    assert!(scene.seconds() <= 15);
    let none = timeout(Duration::from_secs(600), scene.streams.recv()).await;
    assert!(none.is_err(), "and no other one follows");
    assert!(scene.polls.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_empty_environment_proves_no_secret_but_a_stream_does() {
    let empty = json!({"messageType": "data-sync",
        "data": {"eventType": "full", "featureFlags": [], "segments": []}});
    let mut scene = Scene::start_with(&[SECRET], true);
    let (.., answer) = scene.poll().await;
    answer.send(polled(&empty)).unwrap();
    scene.version(0).await;
    assert_eq!(scene.standing(SECRET), Standing::Unknown);
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&empty).await;
    scene.version(0).await;
    assert_eq!(scene.standing(SECRET), Standing::Accepted);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_about_a_secret_is_found_out() {
    let mut scene = Scene::start(&[SECRET]);
    let mut stream = scene.stream().await;
    stream.asked().await;
    stream.say(&message("full", "a", 1000)).await;
    scene.version(1000).await;
    let other = scene.held.join(&key(OTHER)).unwrap();
    scene.held.ask(&other, Some(StreamKind::Client));
    let (secret, since, answer) = scene.poll().await;
    assert_eq!((secret.as_str(), since), (OTHER, 1000));
    let body = Bytes::new();
    answer.send(Ok(Polled { body, date: None })).unwrap();
    let mut learning = scene.held.learning();
    let mut probe = scene.stream().await;
    assert_eq!((probe.kind, probe.secret.as_str()), (StreamKind::Client, OTHER));
    assert_eq!(probe.next().await.unwrap()["messageType"], "ping");
    probe.say(&json!({"messageType": "pong", "data": {}})).await;
    while other.is_asked(StreamKind::Client) {
        timeout(EVER, learning.changed()).await.unwrap().unwrap();
    }
    assert_eq!(other.admission(StreamKind::Client), Admission::Admitted);
    assert_eq!(other.admission(StreamKind::Server), Admission::Refused);
    assert_eq!(scene.standing(OTHER), Standing::Accepted);
    assert!(scene.is_unrefused());
}

#[tokio::test(start_paused = true)]
async fn the_sync_itself_finds_out_about_its_own_secret() {
    let mut scene = Scene::start(&[]);
    let secret = scene.held.join(&key(SECRET)).unwrap();
    scene.held.ask(&secret, Some(StreamKind::Server));
    let mut learning = scene.held.learning();
    drop(scene.stream().await);
    timeout(EVER, learning.changed()).await.unwrap().unwrap();
    assert!(
        !secret.is_asked(StreamKind::Server),
        "it is not known, and told so"
    );
    assert_eq!(secret.admission(StreamKind::Server), Admission::Unknown);
    scene.held.ask(&secret, Some(StreamKind::Server));
    let mut stream = scene.stream().await;
    assert_eq!(stream.asked().await, Some(0), "no other stream asks for it");
    stream.say(&message("full", "a", 1000)).await;
    while secret.is_asked(StreamKind::Server) {
        timeout(EVER, learning.changed()).await.unwrap().unwrap();
    }
    assert_eq!(secret.admission(StreamKind::Server), Admission::Admitted);
}
