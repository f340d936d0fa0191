//! What OpenTelemetry's variables say about traces (OPS 10.3). Nothing is exported unless an endpoint is named.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use crate::config::BaseUrl;

use super::context::Context;

/// Where traces go, and which.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The receiver, its path included.
    pub endpoint: BaseUrl,
    /// Headers for it: names and secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the spans are of: `service.name` and others.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// The longest that a span waits for others to be sent with.
    pub delay: Duration,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether the caller's decision counts, if there is one.
    pub parent_based: bool,
    /// For the others: the share of traces, 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_off`: what the caller records.
    fn default() -> Self {
        Self {
            parent_based: true,
            ratio: 0.0,
        }
    }
}

impl Sampler {
    /// Whether a request is recorded, and its context if it has none yet that counts.
    #[inline]
    #[must_use]
    pub fn decide(&self, caller: Option<Context>) -> Option<Context> {
        match caller {
            Some(context) if self.parent_based => context.sampled.then_some(context),
            Some(context) => self.takes(context.trace_id).then_some(context),
            None if self.ratio <= 0.0 => None,
            None => Some(Context::new(true)).filter(|context| self.takes(context.trace_id)),
        }
    }

    /// The same answer in every program for one trace: by the lower half of its id.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
    fn takes(&self, trace_id: u128) -> bool {
        (trace_id as u64 >> 1) as f64 / (u64::MAX >> 1) as f64 <= self.ratio && self.ratio > 0.0
    }
}

impl Settings {
    /// Reads the variables; none when traces are not to be exported. The second value is what is doubtful.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> (Option<Self>, Vec<String>) {
        let mut doubts = Vec::new();
        let settings = read(
            &|name| variable(name).filter(|value| !value.trim().is_empty()),
            &mut doubts,
        );
        (settings, doubts)
    }
}

fn read(variable: &dyn Fn(&str) -> Option<String>, doubts: &mut Vec<String>) -> Option<Settings> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return None;
    }
    let (name, url) = match variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        Some(url) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url),
        None => {
            let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            let url = format!("{}/v1/traces", base.trim().trim_end_matches('/'));
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        }
    };
    let protocol =
        variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(other) = protocol.filter(|protocol| protocol.trim() != "http/protobuf") {
        doubts.push(format!(
            "no traces are exported: flagside speaks http/protobuf, not {}",
            other.trim()
        ));
        return None;
    }
    let endpoint = match BaseUrl::parse(&url) {
        Ok((endpoint, _)) => endpoint,
        Err(problem) => {
            doubts.push(format!("no traces are exported: {name}: {problem}"));
            return None;
        }
    };
    let headers =
        variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| variable("OTEL_EXPORTER_OTLP_HEADERS"));
    let mut resource = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    if let Some(service) = variable("OTEL_SERVICE_NAME") {
        resource.retain(|(name, _)| name != "service.name");
        resource.push(("service.name".to_owned(), service));
    } else if resource.iter().all(|(name, _)| name != "service.name") {
        resource.push(("service.name".to_owned(), "flagside".to_owned()));
    }
    resource.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    let delay = variable("OTEL_BSP_SCHEDULE_DELAY").and_then(|text| text.trim().parse().ok());
    Some(Settings {
        endpoint,
        headers: headers_of(&headers.unwrap_or_default(), doubts),
        resource,
        sampler: sampler(variable, doubts),
        delay: Duration::from_millis(delay.unwrap_or(5_000).clamp(10, 60_000)),
    })
}

fn sampler(variable: &dyn Fn(&str) -> Option<String>, doubts: &mut Vec<String>) -> Sampler {
    let Some(name) = variable("OTEL_TRACES_SAMPLER") else {
        return Sampler::default();
    };
    let name = name.trim();
    let ratio = || -> f64 {
        let argument = variable("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.trim().parse().ok());
        argument
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .unwrap_or(1.0)
    };
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio(),
        _ => {
            doubts.push(format!(
                "OTEL_TRACES_SAMPLER: {name} is not known; parentbased_always_off is used"
            ));
            return Sampler::default();
        }
    };
    Sampler { parent_based, ratio }
}

fn headers_of(text: &str, doubts: &mut Vec<String>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, value) in pairs(text) {
        let parsed = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&value),
        );
        if let (Ok(header), Ok(mut value)) = parsed {
            value.set_sensitive(true);
            headers.push((header, value));
        } else {
            doubts.push(format!("OTEL_EXPORTER_OTLP_HEADERS: {name} is no header"));
        }
    }
    headers
}

/// `a=b,c=d`, values percent-decoded.
fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), decoded(value.trim())))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        Settings::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        for variables in [
            &[][..],
            &[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "always_on")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
                ("OTEL_SDK_DISABLED", "TRUE"),
            ],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")],
        ] {
            assert!(settings(variables).0.is_none(), "{variables:?}");
        }
    }

    #[test]
    fn endpoints_headers_and_resources() {
        let (read, doubts) = settings(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20x, x-team = web",
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment=prod,service.name=other",
            ),
            ("OTEL_SERVICE_NAME", "flags"),
        ]);
        let read = read.unwrap();
        assert_eq!(doubts, Vec::<String>::new());
        assert_eq!(read.endpoint.to_string(), "http://collector:4318/v1/traces");
        assert_eq!(read.headers[0].1, "Bearer x");
        assert_eq!(read.headers[1].0, "x-team");
        assert_eq!(
            read.resource[0],
            ("deployment.environment".to_owned(), "prod".to_owned())
        );
        assert_eq!(read.resource[1], ("service.name".to_owned(), "flags".to_owned()));
        assert!(!format!("{read:?}").contains("Bearer"));
        let (read, _) = settings(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/own")]);
        assert_eq!(read.unwrap().endpoint.to_string(), "https://c/own");
    }

    #[test]
    fn samplers_decide() {
        let sampled = Context::new(true);
        let unsampled = Context::new(false);
        for (name, argument, wanted) in [
            ("", "", [true, false, false]),
            ("parentbased_always_off", "", [true, false, false]),
            ("parentbased_always_on", "", [true, false, true]),
            ("parentbased_traceidratio", "0", [true, false, false]),
            ("always_on", "", [true, true, true]),
            ("always_off", "", [false, false, false]),
            ("traceidratio", "1", [true, true, true]),
            ("nonsense", "", [true, false, false]),
        ] {
            let (read, doubts) = settings(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]);
            let sampler = read.unwrap().sampler;
            let decided =
                [Some(sampled), Some(unsampled), None].map(|caller| sampler.decide(caller).is_some());
            assert_eq!(decided, wanted, "{name}");
            assert_eq!(doubts.len(), usize::from(name == "nonsense"));
        }
        let third = Sampler {
            parent_based: false,
            ratio: 0.3,
        };
        let taken = (0..10_000).filter(|_| third.decide(None).is_some()).count();
        assert!((2_700..3_300).contains(&taken), "{taken}");
    }
}
