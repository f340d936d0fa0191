//! TLS and HTTP/2.

use std::convert::Infallible;
use std::pin::pin;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An upstream over TLS that answers with the request line it understood. `/silence` it never
/// answers, and with `/goodbye` it begins to close the connection.
struct Secure {
    port: u16,
    certificate: String,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Secure {
    async fn start(protocols: &[&str]) -> Self {
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
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                served.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let server = auto::Builder::new(TokioExecutor::new());
                    let goodbye = Arc::new(Notify::new());
                    let service = service_fn(|request| echo(request, Arc::clone(&goodbye)));
                    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
                    tokio::select! {
                        _ = connection.as_mut() => return,
                        () = goodbye.notified() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
        });
        Self {
            port,
            certificate: cert.pem(),
            connections,
            _tasks: tasks,
        }
    }

    fn base(&self) -> Arc<BaseUrl> {
        let (host, path) = ("localhost".to_owned(), "/base".to_owned());
        Arc::new(BaseUrl {
            tls: true,
            host,
            port: self.port,
            path,
        })
    }

    /// Settings that trust it; the file lives as long as the second.
    fn trusting(&self) -> (Upstream, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.certificate).unwrap();
        (
            Upstream {
                ca_file: Some(file.path().to_owned()),
                ..patient()
            },
            file,
        )
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn echo(request: Request<Incoming>, goodbye: Arc<Notify>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/base/goodbye" {
        goodbye.notify_one();
    }
    if request.uri().path() == "/base/silence" {
        std::future::pending::<()>().await;
    }
    let host = request
        .headers()
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or("-");
    let text = format!("{:?} {} {host}", request.version(), request.uri());
    Ok(Response::new(Full::new(Bytes::from(text))))
}

#[tokio::test]
async fn http2_is_negotiated_and_many_requests_share_one_connection() {
    let secure = Secure::start(&["h2", "http/1.1"]).await;
    let (settings, _file) = secure.trusting();
    let caller = Caller::new(&settings, &secure.base());
    let (a, b, c) = tokio::join!(caller.get("/a?b=c"), caller.get("/"), caller.get("/"));
    let authority = format!("localhost:{}", secure.port);
    assert_eq!(
        a.unwrap().body(),
        &format!("HTTP/2.0 https://{authority}/base/a?b=c -")
    );
    assert!(b.is_ok() && c.is_ok());
    assert!(caller.get("/").await.is_ok());
    assert_eq!((secure.connections(), caller.origin.connections()), (1, 1));
}

#[tokio::test]
async fn http1_is_spoken_where_http2_is_not_offered_or_not_wanted() {
    for (offered, http2) in [
        (vec!["http/1.1"], true),
        (vec!["h2", "http/1.1"], false),
        (vec![], true),
    ] {
        let secure = Secure::start(&offered).await;
        let (settings, _file) = secure.trusting();
        let caller = Caller::new(&Upstream { http2, ..settings }, &secure.base());
        let (answer, other) = tokio::join!(caller.get("/a"), caller.get("/b"));
        let wanted = format!("HTTP/1.1 /base/a localhost:{}", secure.port);
        assert_eq!(answer.unwrap().body(), &wanted);
        assert!(other.is_ok() && caller.get("/c").await.is_ok());
        assert_eq!(secure.connections(), 2);
    }
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_a_tls_failure() {
    let secure = Secure::start(&["h2"]).await;
    let caller = Caller::new(&patient(), &secure.base());
    let error = caller.get("/").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Tls, "{error:?}");
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_a_failure_too() {
    // One says something else at once, one waits for a request that never comes.
    for (greeting, wanted) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", Outcome::Tls),
        ("", Outcome::Timeout),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = BaseUrl {
            tls: true,
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            path: String::new(),
        };
        let settings = Upstream {
            connect_timeout: if wanted == Outcome::Timeout {
                Duration::from_millis(50)
            } else {
                EVER
            },
            ..patient()
        };
        let caller = Caller::new(&settings, &Arc::new(base));
        let speaking = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            // Open for as long as the caller looks.
            stream
        };
        let (answered, _stream) = tokio::join!(caller.get("/"), speaking);
        let error = answered.unwrap_err();
        assert_eq!(error.outcome(), wanted, "{greeting:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_gets_no_further_request() {
    let secure = Secure::start(&["h2"]).await;
    let (settings, _file) = secure.trusting();
    let settings = Upstream {
        request_timeout: Duration::from_millis(80),
        ..settings
    };
    let caller = Caller::new(&settings, &secure.base());
    let error = caller.get("/silence").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout(Phase::Head)), "{error:?}");
    assert_eq!(secure.connections(), 1);
    assert!(caller.get("/").await.is_ok());
    assert_eq!(secure.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_upstream_takes_leave_of_is_no_failure() {
    for offered in ["h2", "http/1.1"] {
        let secure = Secure::start(&[offered]).await;
        let (settings, _file) = secure.trusting();
        let caller = Caller::new(&settings, &secure.base());
        for _ in 0..10 {
            assert!(caller.get("/goodbye").await.is_ok());
            let (one, other) = tokio::join!(caller.get("/one"), caller.get("/other"));
            assert!(one.is_ok() && other.is_ok());
        }
        assert_eq!(caller.told(), ["evaluate 2xx"; 30], "{offered}");
    }
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let setup = |path: PathBuf| {
        let settings = Upstream {
            ca_file: Some(path),
            ..patient()
        };
        Shared::new(&settings, Arc::new(NoObserver)).map(drop)
    };
    assert!(matches!(
        setup(PathBuf::from("/no/such")),
        Err(UpstreamSetupError::CaFile { .. })
    ));
    assert!(matches!(
        setup(file.path().to_owned()),
        Err(UpstreamSetupError::NoCertificate { .. })
    ));
    let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(file.path(), wrong).unwrap();
    assert!(matches!(
        setup(file.path().to_owned()),
        Err(UpstreamSetupError::Certificate { .. })
    ));
}
