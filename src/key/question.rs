//! What a request on a cacheable route asks, and how to ask upstream the same.
//!
//! Equal keys ask upstream the same question: where a spelling is read here that upstream might not
//! read (identity in the query of a POST, say), it is forwarded in the form that upstream documents.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::evaluate::featbit;
use crate::metrics::Route;

use super::flag_keys::FlagKeys;
use super::hash::Encoding;
use super::parameters::Parameters;
use super::user::{self, EffectiveUser, Overlay};
use super::{DeploymentKey, Key, Keyer, Unreadable, base64};

/// `X-Amp-Exp-User`
pub const USER: HeaderName = HeaderName::from_static("x-amp-exp-user");
/// `X-Amp-Exp-Flag-Keys`
pub const FLAG_KEYS: HeaderName = HeaderName::from_static("x-amp-exp-flag-keys");
/// `X-Amp-Exp-Track`
pub const TRACK: HeaderName = HeaderName::from_static("x-amp-exp-track");
/// `X-Amp-Exp-Exposure-Track`
pub const EXPOSURE_TRACK: HeaderName = HeaderName::from_static("x-amp-exp-exposure-track");
/// `X-Amp-Exp-Library`
pub const LIBRARY: HeaderName = HeaderName::from_static("x-amp-exp-library");
/// How many [`TRACING`] has.
const N_TRACING: usize = 4;
/// Headers that say who asked in which trace: forwarded, never part of a key.
pub const TRACING: [HeaderName; N_TRACING] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("x-request-id"),
];
/// Prefix of all experiment headers.
pub const EXPERIMENT_PREFIX: &str = "x-amp-exp-";

/// FeatBit's evaluate endpoint.
pub const EVALUATE: &str = "/api/public/featureflag/evaluate";

/// A request on a cacheable route, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// One of the vardata or flags routes.
    pub route: Route,
    /// Clean path.
    pub path: &'r str,
    /// Query without `?`.
    pub query: Option<&'r str>,
    /// Whether it is a POST; everything else counts as GET.
    pub post: bool,
    /// All its headers.
    pub headers: &'r HeaderMap,
    /// Its body.
    pub body: &'r Bytes,
    /// Whose flags.
    pub deployment_key: &'r DeploymentKey,
    /// Name of the environment: the upstream's identity in the key.
    pub environment: &'r str,
    /// Query parameters that are neither keyed nor forwarded.
    pub ignore_query: &'r [String],
}

/// A question that can be read: it has a key.
#[derive(Debug)]
pub struct Question {
    /// Cache key.
    pub key: Key,
    /// What is asked for, as an engine reads it.
    pub asks: Asks,
    /// Whether the stored response must not be used.
    pub bypass: bool,
    /// The request for upstream.
    pub forward: Forward,
}

/// What is asked for, as an engine reads it.
#[derive(Debug)]
pub enum Asks {
    /// Amplitude: the variants of a user.
    Variants {
        /// The effective user as JSON text.
        user: Bytes,
        /// Flags asked for.
        flag_keys: FlagKeys,
    },
    /// Amplitude: flags.
    Flags {
        /// Flags asked for.
        flag_keys: FlagKeys,
        /// Whether it carries `eval_mode`.
        has_eval_mode: bool,
        /// Which of the two flag sets of a deployment can stand in.
        mode: Option<FlagsMode>,
    },
    /// FeatBit: the variations of a user.
    Evaluation(Box<featbit::Request>),
}

impl Asks {
    /// Whether flags are asked for, not what a user gets.
    #[must_use]
    pub const fn is_for_flags(&self) -> bool {
        matches!(self, Self::Flags { .. })
    }
}

/// The two sets of flags that upstream has per deployment (design 5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlagsMode {
    /// Without `eval_mode`.
    Plain,
    /// `eval_mode=remote`.
    Remote,
}

/// A request for upstream, without its host.
#[derive(Clone, Debug)]
pub struct Forward {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// All headers it carries.
    pub headers: HeaderMap,
    /// Body; empty for GET.
    pub body: Bytes,
}

impl Question {
    /// Reads a request on a vardata route.
    ///
    /// # Errors
    /// When any part of it cannot be read exactly.
    pub fn vardata(asked: &Asked<'_>, keyer: &Keyer) -> Result<Self, Unreadable> {
        if asked.headers.contains_key(CONTENT_ENCODING) {
            return Err(Unreadable::Encoded);
        }
        let mut parameters = Parameters::read(asked.query, asked.ignore_query)?;
        let mut headers = Headers::read(asked.headers)?;
        let flag_keys = parameters.choose_flag_keys(headers.flag_keys()?.as_ref());
        if flag_keys.is_all() {
            headers.flag_keys = None;
        }
        let from_header = !asked.post && asked.route != Route::VardataV1;
        let source = if asked.post {
            let context = parameters.context.take();
            parameters.demote(context);
            Source::Body
        } else if from_header && headers.user.is_some() {
            for pair in [
                parameters.user_id.take(),
                parameters.device_id.take(),
                parameters.context.take(),
            ] {
                parameters.demote(pair);
            }
            Source::Header
        } else {
            Source::Query
        };
        let user = read_user(asked, source, &parameters, &headers)?;
        let effective = match &user.text {
            // The body itself, that is: a blank one is read as another text, of any length.
            Cow::Borrowed(text) if text.as_ptr() == asked.body.as_ptr() => asked.body.clone(),
            text => Bytes::copy_from_slice(text),
        };
        let mut encoding = Encoding::with_capacity(user.canonical.len() + 256);
        encode_identity(&mut encoding, asked);
        encoding.part(&user.canonical);
        encoding.list(flag_keys.as_slice().iter().map(String::as_bytes));
        parameters.encode(&mut encoding);
        encoding.part(headers.track());
        encoding.part(headers.exposure_track());
        headers.encode_unknown(&mut encoding, source != Source::Header);
        drop(user);
        let body = place_user(asked, &effective, &mut parameters, &mut headers);
        Ok(Self {
            key: keyer.key(&encoding),
            asks: Asks::Variants {
                user: effective,
                flag_keys,
            },
            bypass: parameters.bypasses(),
            forward: Forward {
                method: if asked.post { Method::POST } else { Method::GET },
                target: parameters.forward(asked.path),
                headers: headers.forward(asked, true),
                body,
            },
        })
    }

    /// Reads a request on a flags route. The user counts only where `delivery_method` is `web` (API 9.5).
    ///
    /// # Errors
    /// When any part of it cannot be read exactly.
    pub fn flags(asked: &Asked<'_>, keyer: &Keyer) -> Result<Self, Unreadable> {
        let mut parameters = Parameters::read(asked.query, asked.ignore_query)?;
        let mut headers = Headers::read(asked.headers)?;
        for pair in [
            parameters.user_id.take(),
            parameters.device_id.take(),
            parameters.context.take(),
        ] {
            parameters.demote(pair);
        }
        let flag_keys = parameters.choose_flag_keys(headers.flag_keys()?.as_ref());
        if flag_keys.is_all() {
            headers.flag_keys = None;
        }
        let web = parameters
            .delivery_method
            .as_ref()
            .is_some_and(|pair| pair.value == "web");
        if !web {
            headers.user = None;
        }
        let user = read_user(asked, Source::Header, &parameters, &headers)?;
        let mode = match parameters.eval_mode.as_ref().map(|pair| pair.value.as_ref()) {
            None => Some(FlagsMode::Plain),
            Some("remote") => Some(FlagsMode::Remote),
            Some(_) => None,
        };
        let plain = parameters.are_plain() && headers.unknown.is_empty();
        let mut encoding = Encoding::with_capacity(256);
        encode_identity(&mut encoding, asked);
        encoding.part(&user.canonical);
        encoding.list(flag_keys.as_slice().iter().map(String::as_bytes));
        parameters.encode(&mut encoding);
        headers.encode_unknown(&mut encoding, false);
        Ok(Self {
            key: keyer.key(&encoding),
            asks: Asks::Flags {
                flag_keys,
                has_eval_mode: parameters.eval_mode.is_some(),
                mode: mode.filter(|_| plain),
            },
            bypass: parameters.bypasses(),
            forward: Forward {
                method: Method::GET,
                target: parameters.forward(asked.path),
                headers: headers.forward(asked, false),
                body: Bytes::new(),
            },
        })
    }
}

impl Question {
    /// A request on FeatBit's evaluate route, whose body was read as `wanted`.
    #[must_use]
    pub fn evaluation(asked: &Asked<'_>, wanted: featbit::Request, keyer: &Keyer) -> Self {
        let mut canonical = Vec::with_capacity(asked.body.len());
        let may_be_folded = wanted.canonical(&mut canonical);
        let mut encoding = Encoding::with_capacity(canonical.len() + 256);
        encode_identity(&mut encoding, asked);
        encoding.part(&canonical);
        // What may not be folded with others is a question of its own.
        encoding.optional((!may_be_folded).then_some(asked.body));
        let mut headers = HeaderMap::with_capacity(8);
        if let Ok(mut secret) = HeaderValue::from_bytes(asked.deployment_key.expose()) {
            secret.set_sensitive(true);
            headers.insert(AUTHORIZATION, secret);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for name in TRACING {
            if let Some(value) = asked.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self {
            key: keyer.key(&encoding),
            asks: Asks::Evaluation(Box::new(wanted)),
            bypass: !may_be_folded,
            forward: Forward {
                method: Method::POST,
                target: EVALUATE.to_owned(),
                headers,
                body: asked.body.clone(),
            },
        }
    }
}

impl Question {
    /// Whether reading it took more than splitting a query: a user in a header or a body.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.forward.method == Method::POST || self.forward.headers.contains_key(USER)
    }
}

impl Forward {
    /// The request unchanged but for its path and headers: for what cannot be read.
    #[must_use]
    pub fn verbatim(asked: &Asked<'_>) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in asked.headers {
            if name.as_str().starts_with(EXPERIMENT_PREFIX)
                || TRACING.contains(name)
                || matches!(*name, CONTENT_TYPE | CONTENT_ENCODING)
            {
                headers.append(name.clone(), value.clone());
            }
        }
        authorize(&mut headers, asked.deployment_key);
        let target = match asked.query {
            Some(query) => format!("{}?{query}", asked.path),
            None => asked.path.to_owned(),
        };
        Self {
            method: if asked.post { Method::POST } else { Method::GET },
            target,
            headers,
            body: if asked.post {
                asked.body.clone()
            } else {
                Bytes::new()
            },
        }
    }
}

/// Where the user object comes from.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Source {
    Header,
    Body,
    Query,
}

fn read_user<'a>(
    asked: &Asked<'a>,
    source: Source,
    parameters: &'a Parameters<'_>,
    headers: &Headers,
) -> Result<EffectiveUser<'a>, Unreadable> {
    let overlay = Overlay {
        user_id: parameters.user_id.as_ref().map(|pair| pair.value.as_ref()),
        device_id: parameters.device_id.as_ref().map(|pair| pair.value.as_ref()),
    };
    match source {
        Source::Body => user::read(asked.body, overlay),
        Source::Query => {
            let context = parameters.context.as_ref().map_or("", |pair| pair.value.as_ref());
            user::read(context.as_bytes(), overlay).map_err(|_| Unreadable::Context)
        }
        Source::Header => {
            let Some(value) = &headers.user else {
                return user::read(b"", Overlay::default());
            };
            let text = base64::decode(value.as_bytes()).ok_or(Unreadable::UserBase64)?;
            let user = user::read(&text, Overlay::default())?;
            let canonical = user.canonical;
            let text = match text.trim_ascii() {
                b"" => Cow::Borrowed(&b"{}"[..]),
                _ => Cow::Owned(text),
            };
            Ok(EffectiveUser { canonical, text })
        }
    }
}

/// Puts the user where upstream documents it, if parts of it came elsewhere. Returns the body.
fn place_user(
    asked: &Asked<'_>,
    effective: &Bytes,
    parameters: &mut Parameters<'_>,
    headers: &mut Headers,
) -> Bytes {
    if !asked.post && asked.route == Route::VardataV1 {
        return Bytes::new();
    }
    let moved = [
        parameters.user_id.take(),
        parameters.device_id.take(),
        parameters.context.take(),
    ];
    if asked.post {
        // The client's own body, unless it was blank or the query had a part of the user.
        return effective.clone();
    }
    if moved.iter().any(Option::is_some) {
        headers.user = HeaderValue::from_str(&base64::encode(effective)).ok();
    }
    Bytes::new()
}

fn encode_identity(encoding: &mut Encoding, asked: &Asked<'_>) {
    encoding.part(asked.environment.as_bytes());
    encoding.part(asked.route.as_str().as_bytes());
    encoding.part(asked.deployment_key.expose());
}

fn authorize(headers: &mut HeaderMap, key: &DeploymentKey) {
    if let Some(value) = key.authorization() {
        headers.insert(AUTHORIZATION, value);
    }
}

/// The experiment headers of a request.
#[derive(Debug, Default)]
struct Headers {
    user: Option<HeaderValue>,
    flag_keys: Option<HeaderValue>,
    track: Option<HeaderValue>,
    exposure_track: Option<HeaderValue>,
    library: Option<HeaderValue>,
    /// Experiment headers nobody has documented: in the key and forwarded.
    unknown: Vec<(HeaderName, HeaderValue)>,
    /// The first of each of [`TRACING`].
    tracing: [Option<HeaderValue>; N_TRACING],
}

impl Headers {
    fn read(headers: &HeaderMap) -> Result<Self, Unreadable> {
        let mut all = Self::default();
        for (name, value) in headers {
            if !name.as_str().starts_with(EXPERIMENT_PREFIX) {
                if let Some(at) = TRACING.iter().position(|tracing| tracing == name) {
                    all.tracing[at].get_or_insert_with(|| value.clone());
                }
                continue;
            }
            let slot = if *name == USER {
                &mut all.user
            } else if *name == FLAG_KEYS {
                &mut all.flag_keys
            } else if *name == TRACK {
                &mut all.track
            } else if *name == EXPOSURE_TRACK {
                &mut all.exposure_track
            } else if *name == LIBRARY {
                // The JVM SDK repeats it; it changes nothing.
                all.library = Some(value.clone());
                continue;
            } else {
                all.unknown.push((name.clone(), value.clone()));
                continue;
            };
            if slot.replace(value.clone()).is_some() {
                return Err(Unreadable::AmbiguousHeader);
            }
        }
        all.unknown.sort_unstable_by(|one, two| {
            (one.0.as_str(), one.1.as_bytes()).cmp(&(two.0.as_str(), two.1.as_bytes()))
        });
        Ok(all)
    }

    fn flag_keys(&self) -> Result<Option<FlagKeys>, Unreadable> {
        self.flag_keys
            .as_ref()
            .map(|value| FlagKeys::from_header(value.as_bytes()))
            .transpose()
    }

    fn track(&self) -> &[u8] {
        self.track
            .as_ref()
            .map_or(b"track", |value| value.as_bytes().trim_ascii())
    }

    fn exposure_track(&self) -> &[u8] {
        self.exposure_track
            .as_ref()
            .map_or(b"no-track", |value| value.as_bytes().trim_ascii())
    }

    /// `with_user`: the user header is none of the documented ones here, so it joins the key as it is.
    fn encode_unknown(&self, encoding: &mut Encoding, with_user: bool) {
        encoding.optional(
            self.user
                .as_ref()
                .filter(|_| with_user)
                .map(HeaderValue::as_bytes),
        );
        encoding.number(self.unknown.len() as u64);
        for (name, value) in &self.unknown {
            encoding.part(name.as_str().as_bytes());
            encoding.part(value.as_bytes());
        }
    }

    fn forward(self, asked: &Asked<'_>, tracked: bool) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        authorize(&mut headers, asked.deployment_key);
        let known = [
            (USER, self.user),
            (FLAG_KEYS, self.flag_keys),
            (TRACK, self.track.filter(|_| tracked)),
            (EXPOSURE_TRACK, self.exposure_track.filter(|_| tracked)),
            (LIBRARY, self.library),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        for (name, value) in self.unknown {
            headers.append(name, value);
        }
        for (name, value) in TRACING.into_iter().zip(self.tracing) {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if asked.post {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers
    }
}
