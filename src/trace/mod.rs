//! Traces: W3C context in and out, spans to an OTLP receiver (OPS 10.3).
//!
//! Off unless OpenTelemetry's variables name an endpoint; then a request that is not sampled costs a branch and the
//! look at its `traceparent`. Spans go through a bounded queue to a thread of their own; what does not fit is dropped
//! and counted. No span holds a user, a key, a query or a body.

mod context;
mod export;
mod otlp;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};
use tokio::sync::mpsc;

use crate::metrics::{Route, Source, TraceMetrics, TraceResult};

pub use context::{Context, TRACEPARENT, TRACESTATE, clean};
pub use export::{Exporter, start};
pub use settings::{Sampler, Settings};

/// Makes spans of sampled requests.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    spans: mpsc::Sender<Span>,
    metrics: Arc<TraceMetrics>,
}

/// What happened, finished.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    context: Context,
    parent: Option<u64>,
    name: String,
    kind: SpanKind,
    /// Nanoseconds since 1970.
    started_at: u64,
    ended_at: u64,
    texts: Vec<(&'static str, String)>,
    status: Option<u16>,
    failed: bool,
}

/// On which side of a request something happened, as OTLP numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanKind {
    /// Inside.
    Internal = 1,
    /// Answering.
    Server = 2,
    /// Asking.
    Client = 3,
}

/// A span that has begun.
#[derive(Debug)]
pub struct Begun {
    tracer: Arc<Tracer>,
    context: Context,
    parent: Option<u64>,
    began: Instant,
}

impl Tracer {
    /// A tracer and the end of its queue.
    fn new(sampler: Sampler, queue: usize, metrics: Arc<TraceMetrics>) -> (Arc<Self>, mpsc::Receiver<Span>) {
        let (spans, queued) = mpsc::channel(queue);
        let tracer = Self {
            sampler,
            spans,
            metrics,
        };
        (Arc::new(tracer), queued)
    }

    /// Begins the span of a request, if it is sampled, and makes it the context of what is asked for it.
    pub fn serve(self: &Arc<Self>, headers: &mut HeaderMap, began: Instant) -> Option<Begun> {
        let caller = Context::of(headers);
        let Some(context) = self.sampler.decide(caller) else {
            // What is asked for it must not take the caller's decision for this one's.
            if let Some(caller) = caller.filter(|caller| caller.sampled) {
                let sampled = false;
                Context { sampled, ..caller }.put(headers);
            }
            return None;
        };
        let own = Context {
            sampled: true,
            ..context.child()
        };
        own.put(headers);
        Some(Begun {
            tracer: Arc::clone(self),
            context: own,
            parent: caller.map(|caller| caller.span_id),
            began,
        })
    }

    /// Begins a span inside of the one whose context is in `headers`, if that is sampled.
    pub fn inside(self: &Arc<Self>, headers: &HeaderMap, began: Instant) -> Option<Begun> {
        let outer = Context::of(headers).filter(|context| context.sampled)?;
        Some(Begun {
            tracer: Arc::clone(self),
            context: outer.child(),
            parent: Some(outer.span_id),
            began,
        })
    }

    /// A request that was answered from memory at once: its span and the look-up in it, if it is sampled.
    #[inline]
    pub fn hit(
        self: &Arc<Self>,
        traceparent: Option<&[u8]>,
        method: &'static str,
        route: Route,
        began: Instant,
    ) {
        let caller = traceparent.and_then(Context::parse);
        if let Some(context) = self.sampler.decide(caller) {
            self.record_hit(caller, context, method, route, began);
        }
    }

    #[cold]
    fn record_hit(
        self: &Arc<Self>,
        caller: Option<Context>,
        context: Context,
        method: &'static str,
        route: Route,
        began: Instant,
    ) {
        let span = Begun {
            tracer: Arc::clone(self),
            context: context.child(),
            parent: caller.map(|caller| caller.span_id),
            began,
        };
        let lookup = Begun {
            tracer: Arc::clone(self),
            context: span.context.child(),
            parent: Some(span.context.span_id),
            began,
        };
        lookup.end(
            "cache".to_owned(),
            SpanKind::Internal,
            vec![("flagside.cache", "hit".to_owned())],
            None,
        );
        span.served(method, route, Source::Hit, 200);
    }

    fn send(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.metrics.add(TraceResult::Dropped, 1);
        }
    }
}

/// Begins the span of a request to upstream, if the one that it is made for is sampled.
pub fn ask(tracer: Option<&Arc<Tracer>>, method: &Method, headers: &HeaderMap) -> Option<Asking> {
    let span = tracer?.inside(headers, Instant::now())?;
    let method = method.clone();
    Some(Asking { span, method })
}

/// The span of a request to upstream that is under way.
#[derive(Debug)]
pub struct Asking {
    span: Begun,
    method: Method,
}

impl Asking {
    /// Makes it the context of the request to upstream.
    pub fn put(&self, headers: &mut HeaderMap) {
        self.span.context.put(headers);
    }

    /// Ends it: `status` is what upstream answered, if it did.
    pub fn end(self, host: &str, environment: &str, status: Option<StatusCode>) {
        let texts = vec![
            ("http.request.method", self.method.as_str().to_owned()),
            ("server.address", host.to_owned()),
            ("flagside.environment", environment.to_owned()),
        ];
        let status = status.map(|status| status.as_u16());
        let failed = status.is_none_or(|status| status >= 400);
        self.span
            .finish("upstream".to_owned(), SpanKind::Client, texts, status, failed);
    }
}

impl Begun {
    /// Ends the span of a request that was answered.
    pub fn served(self, method: &str, route: Route, source: Source, status: u16) {
        let name = format!("{method} {}", route.as_str());
        let cache = match source {
            Source::Hit => "hit",
            Source::Stale | Source::StaleError => "stale",
            Source::Passthrough | Source::None => "bypass",
            Source::Miss | Source::Coalesced | Source::Local => "miss",
        };
        let texts = vec![
            ("http.request.method", method.to_owned()),
            ("http.route", route.as_str().to_owned()),
            ("flagside.source", source.as_str().to_owned()),
            ("flagside.cache", cache.to_owned()),
        ];
        self.end(name, SpanKind::Server, texts, Some(status));
    }

    /// Ends the span of an evaluation.
    pub fn evaluated(self, environment: &str) {
        let texts = vec![("flagside.environment", environment.to_owned())];
        self.end("evaluate".to_owned(), SpanKind::Internal, texts, None);
    }

    fn end(self, name: String, kind: SpanKind, texts: Vec<(&'static str, String)>, status: Option<u16>) {
        let failed = status.is_some_and(|status| status >= 500);
        self.finish(name, kind, texts, status, failed);
    }

    fn finish(
        self,
        name: String,
        kind: SpanKind,
        texts: Vec<(&'static str, String)>,
        status: Option<u16>,
        failed: bool,
    ) {
        let now = SystemTime::now();
        let nanoseconds = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        let started_at = now.checked_sub(self.began.elapsed()).unwrap_or(now);
        self.tracer.send(Span {
            context: self.context,
            parent: self.parent,
            name,
            kind,
            started_at: nanoseconds(started_at),
            ended_at: nanoseconds(now),
            texts,
            status,
            failed,
        });
    }
}

/// How long the end of the process waits for spans to be sent.
pub const FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparent: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(text) = traceparent {
            headers.insert(TRACEPARENT, text.parse().unwrap());
        }
        headers
    }

    fn tracer(parent_based: bool, ratio: f64) -> (Arc<Tracer>, mpsc::Receiver<Span>) {
        Tracer::new(Sampler { parent_based, ratio }, 8, Arc::default())
    }

    #[test]
    fn a_request_upstream_hangs_below_the_request_it_is_made_for() {
        let (tracer, mut queued) = tracer(true, 0.0);
        let mut incoming = headers(Some(SAMPLED));
        let server = tracer.serve(&mut incoming, Instant::now()).unwrap();
        let mut outgoing = HeaderMap::new();
        let asking = ask(Some(&tracer), &Method::GET, &incoming).unwrap();
        asking.put(&mut outgoing);
        asking.end("host", "main", Some(StatusCode::OK));
        server.served("GET", Route::VardataV1, Source::Miss, 200);
        let (client, server) = (queued.try_recv().unwrap(), queued.try_recv().unwrap());
        assert_eq!(server.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(client.parent, Some(server.context.span_id));
        assert_eq!(client.context.trace_id, server.context.trace_id);
        assert_eq!(Context::of(&outgoing), Some(client.context));
        assert_eq!(server.name, "GET vardata_v1");
        assert!(!server.failed && server.started_at <= server.ended_at);
    }

    #[test]
    fn what_is_not_sampled_makes_no_spans_further_down() {
        let (tracer, mut queued) = tracer(false, 0.0);
        let mut incoming = headers(Some(SAMPLED));
        assert!(tracer.serve(&mut incoming, Instant::now()).is_none());
        assert!(tracer.inside(&incoming, Instant::now()).is_none());
        let passed_on = Context::of(&incoming).unwrap();
        assert_eq!(passed_on.to_string(), SAMPLED.replace("-01", "-00"));
        tracer.hit(Some(SAMPLED.as_bytes()), "GET", Route::VardataV1, Instant::now());
        assert!(queued.try_recv().is_err());
    }

    #[test]
    fn a_hit_is_a_span_with_a_look_up_in_it() {
        let (tracer, mut queued) = tracer(true, 0.0);
        tracer.hit(None, "GET", Route::VardataV1, Instant::now());
        tracer.hit(Some(b"nonsense"), "GET", Route::VardataV1, Instant::now());
        assert!(queued.try_recv().is_err());
        tracer.hit(Some(SAMPLED.as_bytes()), "GET", Route::VardataV1, Instant::now());
        let (lookup, server) = (queued.try_recv().unwrap(), queued.try_recv().unwrap());
        assert_eq!(lookup.parent, Some(server.context.span_id));
        assert_eq!((lookup.name.as_str(), lookup.kind), ("cache", SpanKind::Internal));
    }
}
