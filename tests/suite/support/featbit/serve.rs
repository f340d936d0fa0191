//! The fake evaluation server's listener, its HTTP API and its streams.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flagside::evaluate::featbit::{EndUser, Request as Question, secret, token};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::TOKEN_AGE;
use super::state::{Failure, Recorded, Route, Shared};
use crate::support::fake;

type Answer = Response<Full<Bytes>>;

/// Listens as the door says, until the future is dropped.
pub async fn listen(address: SocketAddr, shared: Arc<Shared>) {
    let mut door = shared.signals.door.subscribe();
    loop {
        let is_open = *door.borrow_and_update();
        // Dropped with the door's change: all connections end.
        let mut connections = JoinSet::new();
        let listener = is_open.then(|| fake::listen(address, 1024));
        shared.update(|state| state.is_listening = is_open);
        loop {
            tokio::select! {
                changed = door.changed() => {
                    changed.expect("the server outlives its listener");
                    break;
                }
                stream = fake::accept(listener.as_ref()) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let service = service_fn(|request| answer(request, Arc::clone(&shared)));
                        let io = TokioIo::new(stream);
                        let connection = http1::Builder::new().serve_connection(io, service);
                        let _ = connection.with_upgrades().await;
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
    }
}

/// Why a connection ends without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told to")
    }
}

impl std::error::Error for Cut {}

async fn answer(mut request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Cut> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let recorded = Recorded {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.to_vec(),
    };
    let route = recorded.route();
    let mut released = shared.signals.released.subscribe();
    let failure = shared.update(|state| {
        state.requests.push(recorded.clone());
        state.failure(route)
    });
    let mut answer = match failure {
        Some(Failure::Hang) => pending().await,
        Some(Failure::Hold) => {
            let answer = proper(&recorded, &shared);
            released.changed().await.map_err(|_| Cut)?;
            answer
        }
        Some(Failure::Says(status, content_type, body)) => {
            let mut answer = json_answer(body);
            *answer.status_mut() = StatusCode::from_u16(status).expect("tests know their statuses");
            let content_type = HeaderValue::from_static(content_type);
            answer.headers_mut().insert(CONTENT_TYPE, content_type);
            answer
        }
        Some(Failure::Reset) => return Err(Cut),
        Some(Failure::Status(status)) => bare(status),
        Some(Failure::Throttle(seconds)) => {
            let mut answer = bare(429);
            answer
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
            answer
        }
        Some(Failure::Nonsense) => json_answer("<html>"),
        Some(Failure::Close(code)) => open(&recorded, upgrade, &shared, Some(code)),
        None if route == Route::Streaming => open(&recorded, upgrade, &shared, None),
        None => proper(&recorded, &shared),
    };
    let now = httpdate::fmt_http_date(shared.lock().now());
    let now = HeaderValue::from_str(&now).map_err(|_| Cut)?;
    answer.headers_mut().insert(DATE, now);
    Ok(answer)
}

fn bare(status: u16) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("tests know their statuses");
    answer
}

fn json_answer(body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// What a healthy server answers.
fn proper(request: &Recorded, shared: &Shared) -> Answer {
    match request.path.as_str() {
        "/health/liveness" | "/health/readiness" => {
            return Response::new(Full::new(Bytes::from_static(b"Healthy")));
        }
        _ => {}
    }
    let secrets: Vec<&HeaderValue> = request.headers.get_all(AUTHORIZATION).iter().collect();
    let secret = match secrets[..] {
        [one] => one.to_str().unwrap_or_default().trim(),
        _ => "",
    };
    if !shared.lock().lets_in(secret) {
        return bare(401);
    }
    let data = shared.lock().data(secret::environment_of(secret));
    let since = || request.parameter("timestamp").unwrap_or("0").parse().ok();
    match request.route() {
        Route::Evaluate if shared.lock().numbers.is_some() => json_answer(shared.update(|state| {
            let number = state.numbers.map_or(1, |last| last + 1);
            state.numbers = Some(number);
            json!([{"key": "number", "variation": {"value": number.to_string()}}]).to_string()
        })),
        Route::Evaluate => match Question::parse(&request.body) {
            Ok(question) => {
                let mut out = Vec::new();
                data.evaluate(&question).write_json(&mut out);
                json_answer(out)
            }
            Err(_) => bare(400),
        },
        Route::Server => match since() {
            Some(since) => json_answer(data.to_data_sync(since).unwrap_or_default()),
            None => bare(400),
        },
        Route::Client => match (since(), EndUser::parse(&request.body)) {
            (Some(since), Ok(user)) => json_answer(data.client(&user, since).unwrap_or_default()),
            _ => bare(400),
        },
        Route::Insight => {
            let Ok(Value::Array(elements)) = serde_json::from_slice(&request.body) else {
                return bare(400);
            };
            shared.update(|state| state.insights.extend(elements));
            bare(200)
        }
        Route::All | Route::Streaming | Route::Other => bare(404),
    }
}

/// Upgrades, whatever is asked for, and then closes what may not be.
fn open(
    request: &Recorded,
    upgrade: hyper::upgrade::OnUpgrade,
    shared: &Arc<Shared>,
    code: Option<u16>,
) -> Answer {
    let Some(key) = request.header("sec-websocket-key") else {
        return bare(400);
    };
    let mut answer = bare(101);
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("it is base64");
    answer.headers_mut().insert("sec-websocket-accept", accept);
    answer
        .headers_mut()
        .insert("connection", HeaderValue::from_static("Upgrade"));
    answer
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("websocket"));
    let (request, shared) = (request.clone(), Arc::clone(shared));
    #[allow(clippy::disallowed_methods, reason = "it ends with the server's runtime")]
    tokio::spawn(async move {
        let (mut door, pushed, closed) = (
            shared.signals.door.subscribe(),
            shared.signals.pushed.subscribe(),
            shared.signals.closed.subscribe(),
        );
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        if let Some(code) = code.or_else(|| (!is_good(&request, &shared)).then_some(4003)) {
            close(&mut socket, code).await;
            return;
        }
        let _open = Open::new(&shared);
        tokio::select! {
            _ = stream(socket, &request, &shared, pushed, closed) => {}
            _ = door.wait_for(|is_open| !*is_open) => {}
        }
    });
    answer
}

/// An open stream; keeps their number right.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.update(|state| state.streams += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.update(|state| state.streams -= 1);
    }
}

fn is_good(request: &Recorded, shared: &Shared) -> bool {
    let kind = request.parameter("type").unwrap_or_default();
    let Some((secret, made_ms)) = request.parameter("token").and_then(token::decode) else {
        return false;
    };
    let state = shared.lock();
    let now = state
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let age = u128::from(made_ms.unsigned_abs()).abs_diff(now.as_millis());
    age <= TOKEN_AGE.as_millis() && state.admits(kind, &secret)
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn close(socket: &mut Socket, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "told to".into(),
    };
    if socket.close(Some(frame)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

async fn stream(
    mut socket: Socket,
    request: &Recorded,
    shared: &Shared,
    mut pushed: Receiver<Vec<Value>>,
    mut closed: Receiver<u16>,
) -> Option<Infallible> {
    let is_server = request.parameter("type") == Some("server");
    let mut user: Option<EndUser> = None;
    loop {
        let reply = tokio::select! {
            code = closed.recv() => {
                close(&mut socket, code.ok()?).await;
                return None;
            }
            flags = pushed.recv() => {
                let flags = flags.ok()?;
                let data = shared.data();
                let keys: Vec<&str> = flags.iter().filter_map(|flag| flag["key"].as_str()).collect();
                match (&user, is_server) {
                    (_, true) => Some(json!({"messageType": "data-sync",
                        "data": {"eventType": "patch", "featureFlags": flags, "segments": []}}).to_string()),
                    (Some(user), _) => {
                        let flags = keys.iter().filter_map(|key| data.flag(key)).map(|flag| &**flag);
                        String::from_utf8(data.client_patch(user, flags)).ok()
                    }
                    (None, _) => None,
                }
            }
            message = socket.next() => match message?.ok()? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).ok()?;
                    let data = &message["data"];
                    if data["user"].is_object() {
                        user = EndUser::parse(data["user"].to_string().as_bytes()).ok();
                    }
                    match message["messageType"].as_str()? {
                        "ping" => Some(json!({"messageType": "pong", "data": {}}).to_string()),
                        "data-sync" => synced(shared, is_server, user.as_ref(), data["timestamp"].as_i64()?),
                        _ => None,
                    }
                }
                _ => None,
            },
        };
        if let Some(reply) = reply {
            socket.send(Message::text(reply)).await.ok()?;
        }
    }
}

fn synced(shared: &Shared, is_server: bool, user: Option<&EndUser>, since: i64) -> Option<String> {
    let data = shared.data();
    if is_server {
        let nothing = || {
            json!({"messageType": "data-sync",
                "data": {"eventType": "patch", "featureFlags": [], "segments": []}})
            .to_string()
        };
        return Some(data.to_data_sync(since).unwrap_or_else(nothing));
    }
    let user = user?;
    let message = data
        .client(user, since)
        .unwrap_or_else(|| data.client_patch(user, []));
    String::from_utf8(message).ok()
}
