//! The fake cloud's listener and connections, on raw sockets.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fault::{Answer, Door, Fault, Route};
use super::request::{self, Recorded};
use super::state::Shared;
use crate::support::fake::{self, listen};

/// Accepts as the door says, until the future is dropped.
pub async fn accept(address: SocketAddr, shared: Arc<Shared>) {
    let mut wanted = shared.signals.door.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let door = *wanted.borrow_and_update();
        let listener = match door {
            Door::Refused => None,
            Door::Full => Some(listen(address, 0)),
            _ => Some(listen(address, 1024)),
        };
        let mut fillers = Vec::new();
        if door == Door::Full {
            fillers = fill(address).await;
        }
        shared.update(|state| state.door = door);
        let lets_in = matches!(door, Door::Open | Door::Reset | Door::Mute);
        loop {
            tokio::select! {
                changed = wanted.changed() => {
                    changed.expect("the cloud outlives its listener");
                    break;
                }
                stream = fake::accept(listener.as_ref().filter(|_| lets_in)) => {
                    let cut = shared.signals.cut.subscribe();
                    let number = shared.update(|state| {
                        state.accepted += 1;
                        state.open += 1;
                        state.accepted
                    });
                    let open = Open(Arc::clone(&shared), number);
                    connections.spawn(connection(stream, door, cut, open));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(fillers);
    }
}

/// Fills the accept queue of a listener with a backlog of 0.
async fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut fillers = Vec::new();
    while let Ok(Ok(filler)) =
        tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await
    {
        fillers.push(filler);
    }
    fillers
}

/// An open connection and its number; keeps the count of open ones right, whatever ends it.
struct Open(Arc<Shared>, u64);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.update(|state| state.open -= 1);
    }
}

async fn connection(stream: TcpStream, door: Door, mut cut: watch::Receiver<u64>, open: Open) {
    let Open(shared, number) = &open;
    match door {
        Door::Reset => reset(stream),
        Door::Mute => {
            let _ = cut.changed().await;
        }
        _ => {
            tokio::select! {
                _ = cut.changed() => {}
                _ = serve(stream, *number, shared) => {}
            }
        }
    }
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

async fn serve(mut stream: TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut idle = shared.signals.idle.subscribe();
    let mut buffer = Vec::new();
    loop {
        let request = tokio::select! {
            biased;
            request = request::read(&mut stream, &mut buffer, number) => request,
            _ = idle.changed() => None,
        };
        let Some(request) = request else { return Ok(()) };
        idle.mark_unchanged();
        let released = shared.signals.released.subscribe();
        let (answer, fault) = shared.receive(&request);
        if request.route() == Route::Stream && fault.is_none() {
            return stream_flags(stream, &request, shared).await;
        }
        let keep = respond(&mut stream, &request, answer, fault, released).await?;
        let last = request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match keep {
            After::Reset => {
                reset(stream);
                return Ok(());
            }
            After::Close => return Ok(()),
            After::Keep if last => return Ok(()),
            After::Keep => {}
        }
    }
}

/// What happens to the connection after an answer.
enum After {
    Keep,
    Close,
    Reset,
}

async fn respond(
    stream: &mut TcpStream,
    request: &Recorded,
    answer: Answer,
    fault: Option<Fault>,
    mut released: watch::Receiver<u64>,
) -> io::Result<After> {
    let length = answer.body.len();
    let (head, body) = (answer.head(Some(length)), answer.body.as_slice());
    let after = match fault {
        None => plain(stream, request, &answer).await?,
        Some(Fault::Reset) => After::Reset,
        Some(Fault::Close) => After::Close,
        Some(Fault::Hang) => pending().await,
        Some(Fault::Hold) => {
            let _ = released.changed().await;
            plain(stream, request, &answer).await?
        }
        Some(Fault::Late(delay)) => {
            sleep(delay).await;
            plain(stream, request, &answer).await?
        }
        Some(Fault::StallAfterHead) => {
            stream.write_all(&head).await?;
            pending().await
        }
        Some(Fault::StallMidBody) => {
            stream.write_all(&[&head, &body[..length / 2]].concat()).await?;
            pending().await
        }
        Some(Fault::Drip(interval)) => {
            for byte in head.iter().chain(body) {
                stream.write_all(&[*byte]).await?;
                sleep(interval).await;
            }
            After::Keep
        }
        Some(fault) => broken(stream, request, answer, fault).await?,
    };
    Ok(after)
}

async fn broken(
    stream: &mut TcpStream,
    request: &Recorded,
    answer: Answer,
    fault: Fault,
) -> io::Result<After> {
    let length = answer.body.len();
    let chunk = |body: &[u8]| [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
    let (bytes, after) = match fault {
        Fault::LengthTooLong => (
            [answer.head(Some(length + 100)), answer.body].concat(),
            After::Close,
        ),
        Fault::LengthTooShort => ([answer.head(Some(length / 2)), answer.body].concat(), After::Keep),
        Fault::TruncatedChunks => ([answer.head(None), chunk(&answer.body)].concat(), After::Close),
        Fault::BadChunks => (
            [answer.head(None), b"zz\r\n".to_vec(), answer.body].concat(),
            After::Close,
        ),
        Fault::Garbage => (
            b"\x16\x03\x01 this is not HTTP\r\n\r\n\0\0\0".to_vec(),
            After::Close,
        ),
        Fault::HalfHead => (b"HTTP/1.1 20".to_vec(), After::Close),
        Fault::Chunked => {
            let (first, second) = answer.body.split_at(length / 2);
            (
                [
                    answer.head(None),
                    chunk(first),
                    chunk(second),
                    b"0\r\n\r\n".to_vec(),
                ]
                .concat(),
                After::Keep,
            )
        }
        Fault::Huge(size) => {
            let body = format!(r#"{{"huge":{{"key":"on","payload":"{}"}}}}"#, "x".repeat(size));
            return plain(stream, request, &Answer::new(200, "application/json", body)).await;
        }
        Fault::Gzip => return plain(stream, request, &answer.gzipped()).await,
        Fault::Canned(canned) => {
            let answer = Answer {
                status: canned.status,
                headers: canned.headers,
                body: canned.body,
            };
            return plain(stream, request, &answer).await;
        }
        other => panic!("{other:?} was handled before"),
    };
    stream.write_all(&bytes).await?;
    Ok(after)
}

async fn plain(stream: &mut TcpStream, request: &Recorded, answer: &Answer) -> io::Result<After> {
    let mut bytes = answer.head(Some(answer.body.len()));
    if request.method != "HEAD" && answer.status != 204 && answer.status != 304 {
        bytes.extend(&answer.body);
    }
    stream.write_all(&bytes).await?;
    Ok(After::Keep)
}

/// Server-sent events (API 4.4): the flags at once, then every frame that the test pushes.
async fn stream_flags(mut stream: TcpStream, request: &Recorded, shared: &Shared) -> io::Result<()> {
    let mut frames = shared.signals.frames.subscribe();
    let key = request.key().unwrap_or_default();
    let (accepted, first) = {
        let state = shared.lock();
        (state.accepts(Some(key)), state.flags_of(key).to_string())
    };
    if !accepted {
        plain(
            &mut stream,
            request,
            &Answer::new(401, "text/plain", "Invalid deployment key"),
        )
        .await?;
        return Ok(());
    }
    let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + "data: \n\n".len());
    stream
        .write_all(&Answer::new(200, "text/event-stream", "").head(None))
        .await?;
    stream.write_all(chunk(&first).as_bytes()).await?;
    loop {
        tokio::select! {
            Ok(frame) = frames.recv() => stream.write_all(chunk(&frame).as_bytes()).await?,
            // A stream's client says nothing more: what can be read is its end.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}
