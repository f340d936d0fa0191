//! Polls: when, and what upstream says in them.

use super::*;

#[tokio::test(start_paused = true)]
async fn where_no_stream_can_be_had_polling_goes_on() {
    let mut scene = Scene::start_with(&[SECRET], true);
    let (_, since, answer) = scene.poll().await;
    assert_eq!((since, scene.seconds()), (0, 0));
    answer.send(polled(&message("full", "a", 1000))).unwrap();
    let mut at = Vec::new();
    for _ in 0..25 {
        let (_, since, answer) = scene.poll().await;
        at.push((scene.seconds(), since));
        let body = if since == 0 {
            message("full", "a", 1000).to_string()
        } else {
            String::new()
        };
        let body = Bytes::from(body);
        answer.send(Ok(Polled { body, date: None })).unwrap();
    }
    let wanted: Vec<(u64, i64)> = (1..=25)
        .map(|n| (30 * n, if n == 20 { 0 } else { 1000 }))
        .collect();
    assert_eq!(at, wanted, "every 30 s, and after ten minutes everything");
}

#[tokio::test(start_paused = true)]
async fn polls_pause_as_long_as_upstream_asks() {
    for (asked, paused) in [(200, 200), (u64::MAX, 600)] {
        let mut scene = Scene::start_with(&[SECRET], true);
        let (.., answer) = scene.poll().await;
        let throttled = LinkError::Status {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(asked)),
        };
        answer.send(Err(throttled)).unwrap();
        let _poll = scene.poll().await;
        assert_eq!(scene.seconds(), paused);
    }
}
