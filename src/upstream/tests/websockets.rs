//! Websockets to upstream.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Uri};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;
use crate::upstream::{Dialer, SocketError};

const MESSAGE_BYTES_MAX: usize = 1024;

/// Takes one websocket over TLS, tells what it was asked, and repeats what it hears.
async fn secure_echo(asked: tokio::sync::oneshot::Sender<String>) -> (u16, String, JoinSet<()>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut heard = String::new();
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let tell = |request: &server::Request, mut response: server::Response| {
            let header = |name: &str| request.headers().get(name).map(|it| it.to_str().unwrap());
            heard = format!("{} {:?} {:?}", request.uri(), header("host"), header("cookie"));
            let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
            response.headers_mut().insert("date", date);
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, tell).await.unwrap();
        asked.send(heard).unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    (port, cert.pem(), tasks)
}

#[tokio::test]
async fn a_websocket_is_opened_over_tls_below_the_base() {
    let (tell, asked) = tokio::sync::oneshot::channel();
    let (port, certificate, _tasks) = secure_echo(tell).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let settings = Upstream {
        ca_file: Some(file.path().to_owned()),
        ..patient()
    };
    let shared = Shared::new(&settings, Arc::new(NoObserver)).unwrap();
    let base = BaseUrl {
        tls: true,
        host: "localhost".to_owned(),
        port,
        path: "/base".to_owned(),
    };
    let origin = shared.origin(&Arc::new(base)).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("private"));
    let target = Uri::from_static("/streaming?type=server");
    let deadline = Instant::now() + EVER;
    let opened = Dialer::new(&shared)
        .open(&origin, &target, headers, MESSAGE_BYTES_MAX, deadline)
        .await
        .unwrap();
    let wanted = format!("/base/streaming?type=server Some(\"localhost:{port}\") None");
    assert_eq!(asked.await.unwrap(), wanted);
    let seconds = opened
        .date
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(seconds.as_secs(), 784_111_777);
    let mut socket = opened.socket;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket
        .send(Message::text("x".repeat(MESSAGE_BYTES_MAX + 1)))
        .await
        .unwrap();
    let refused = socket.next().await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::Capacity(_)), "{refused}");
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_with_its_clock() {
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
    for (reply, status) in [
        (
            format!("HTTP/1.1 404 No\r\n{date}\r\ncontent-length: 0\r\n\r\n"),
            404,
        ),
        (
            format!("HTTP/1.1 502 No\r\n{date}\r\ncontent-length: 0\r\n\r\n"),
            502,
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{date}\r\ncontent-length: 0\r\n\r\n"),
            200,
        ),
    ] {
        let fake = Fake::start(vec![Reply::Send(reply)]).await;
        let error = open(&fake, EVER).await.unwrap_err();
        let SocketError::Refused { status: found, date } = error else {
            panic!("{error}")
        };
        assert_eq!((found.as_u16(), date.is_some()), (status, true));
    }
}

#[tokio::test]
async fn a_handshake_that_goes_wrong_ends_in_an_error() {
    for (reply, wanted) in [
        (Reply::Silence, "timed out"),
        (Reply::Reset, "cannot connect"),
        (last("HTTP/1.1 101 Yes\r\n\r\n"), "not a websocket handshake"),
        (last("nonsense\r\n\r\n"), "not a websocket handshake"),
    ] {
        let what = format!("{reply:?}");
        let fake = Fake::start(vec![reply]).await;
        let error = open(&fake, Duration::from_millis(200))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(wanted), "{what}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

async fn open(fake: &Fake, within: Duration) -> Result<crate::upstream::Opened, SocketError> {
    let shared = Shared::new(&patient(), Arc::new(NoObserver)).unwrap();
    let origin = shared.origin(&fake.base()).unwrap();
    let target = Uri::from_static("/streaming?token=secret");
    let deadline = Instant::now() + within;
    Dialer::new(&shared)
        .open(&origin, &target, HeaderMap::new(), MESSAGE_BYTES_MAX, deadline)
        .await
}
