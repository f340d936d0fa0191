//! Sending spans: a thread of its own, in batches, over OTLP/HTTP.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::{FLUSH, Settings, Span, Tracer, otlp};
use crate::config::BaseUrl;
use crate::metrics::{TraceMetrics, TraceResult};
use crate::task::{Stop, Stopper};

/// Spans that wait; more are dropped.
const QUEUE: usize = 2_048;
/// Spans in one request.
const BATCH: usize = 512;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Exporting under way. Dropping it sends what is still queued, waiting two seconds at most.
#[derive(Debug)]
pub struct Exporter {
    stopper: Option<Stopper>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stopper.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that exports traces panicked");
        }
    }
}

/// Starts exporting.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start(settings: Settings, metrics: Arc<TraceMetrics>) -> io::Result<(Arc<Tracer>, Exporter)> {
    let (tracer, queued) = Tracer::new(settings.sampler, QUEUE, Arc::clone(&metrics));
    let stopper = Stopper::new();
    let stop = stopper.stop();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new()
        .name("flagside-traces".to_owned())
        .spawn(move || {
            runtime.block_on(run(&settings, queued, &metrics, &stop));
            // A name that is being looked up must not hold up the end.
            runtime.shutdown_background();
        })?;
    let exporter = Exporter {
        stopper: Some(stopper),
        thread: Some(thread),
    };
    Ok((tracer, exporter))
}

async fn run(settings: &Settings, mut queued: mpsc::Receiver<Span>, metrics: &TraceMetrics, stop: &Stop) {
    let mut is_failing = false;
    loop {
        let mut batch = Vec::new();
        let filled = tokio::select! {
            () = stop.requested() => None,
            first = fill(&mut batch, &mut queued, settings.delay) => Some(first),
        };
        if filled.is_none() {
            while batch.len() < QUEUE {
                let Ok(span) = queued.try_recv() else { break };
                batch.push(span);
            }
        }
        if !batch.is_empty() {
            let patience = if filled.is_some() { TIMEOUT } else { FLUSH };
            let body = otlp::request(&settings.resource, &batch);
            let sent = match tokio::time::timeout(patience, send(settings, body)).await {
                Ok(sent) => sent,
                Err(_) => Err("no answer in time".into()),
            };
            let count = batch.len() as u64;
            match sent {
                Ok(()) => {
                    metrics.add(TraceResult::Exported, count);
                    is_failing = false;
                }
                Err(error) => {
                    metrics.add(TraceResult::Failed, count);
                    // Once per outage: an application's log is not for the receiver's troubles.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(endpoint.host = settings.endpoint.host, error.msg = %error, "traces cannot be exported");
                    }
                }
            }
        }
        if filled != Some(true) {
            return;
        }
    }
}

/// Waits for a first span, then for more until the batch is full or `delay` has passed. Says whether there can be
/// more.
async fn fill(batch: &mut Vec<Span>, queued: &mut mpsc::Receiver<Span>, delay: Duration) -> bool {
    let Some(first) = queued.recv().await else {
        return false;
    };
    batch.push(first);
    let deadline = tokio::time::sleep(delay);
    tokio::pin!(deadline);
    while batch.len() < BATCH {
        tokio::select! {
            () = &mut deadline => break,
            next = queued.recv() => match next {
                Some(span) => batch.push(span),
                None => return false,
            },
        }
    }
    true
}

async fn send(settings: &Settings, body: Vec<u8>) -> Result<(), Failure> {
    let BaseUrl {
        tls,
        host,
        port,
        path,
    } = &settings.endpoint;
    let stream = TcpStream::connect((host.as_str(), *port)).await?;
    stream.set_nodelay(true)?;
    if *tls {
        let name = ServerName::try_from(host.clone())?;
        let stream = connector()?.connect(name, stream).await?;
        exchange(stream, settings, path, body).await
    } else {
        exchange(stream, settings, path, body).await
    }
}

fn connector() -> Result<TlsConnector, rustls::Error> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Host and port as the `Host` header has them.
fn authority(endpoint: &BaseUrl) -> String {
    let bare = BaseUrl {
        path: String::new(),
        ..endpoint.clone()
    };
    let text = bare.to_string();
    text.split_once("://")
        .map_or(text.as_str(), |(_, rest)| rest)
        .to_owned()
}

async fn exchange<S>(stream: S, settings: &Settings, path: &str, body: Vec<u8>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = if path.is_empty() { "/" } else { path };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority(&settings.endpoint))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
        .body(Full::new(Bytes::from(body)))?;
    for (name, value) in &settings.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let _ = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok::<StatusCode, Failure>(status)
    };
    tokio::pin!(asking);
    let status = tokio::select! {
        status = &mut asking => status?,
        // The connection ends with its last answer, or breaks.
        ended = connection => {
            ended?;
            asking.await?
        }
    };
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("the receiver answered {status}").into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::HeaderMap;

    use super::super::Sampler;
    use super::*;
    use crate::metrics::{Route, Source};

    #[test]
    fn a_full_queue_drops_and_counts() {
        let metrics: Arc<TraceMetrics> = Arc::default();
        let sampler = Sampler {
            parent_based: false,
            ratio: 1.0,
        };
        let (tracer, _queued) = Tracer::new(sampler, 1, Arc::clone(&metrics));
        for _ in 0..3 {
            let span = tracer.serve(&mut HeaderMap::new(), Instant::now()).unwrap();
            span.served("GET", Route::VardataV1, Source::Miss, 200);
        }
        assert_eq!(metrics.count(TraceResult::Dropped), 2);
    }

    #[test]
    fn an_end_without_receiver_is_quick_and_counts() {
        let (settings, _) = Settings::read(|name| match name {
            // Discard: nobody listens there.
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:9".to_owned()),
            "OTEL_TRACES_SAMPLER" => Some("always_on".to_owned()),
            _ => None,
        });
        let metrics: Arc<TraceMetrics> = Arc::default();
        let (tracer, exporter) = start(settings.unwrap(), Arc::clone(&metrics)).unwrap();
        tracer.hit(None, "GET", Route::VardataV1, Instant::now());
        let began = Instant::now();
        drop(exporter);
        assert!(began.elapsed() < FLUSH + Duration::from_secs(1));
        assert_eq!(metrics.count(TraceResult::Failed), 2);
    }
}
