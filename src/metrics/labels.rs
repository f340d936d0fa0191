//! The closed label sets (OPS 8). Each is an enum with `ALL`, `as_str` and an index, so that metric
//! children are arrays and no label is ever looked up, or taken from a request.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in index order.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The label's text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Position in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Who produced an answer (design 5). Feeds header, metric, log and test.
    Source {
        /// A stored response, fresh, of the current flag revision.
        Hit = "hit",
        /// A stored response within stale-while-revalidate.
        Stale = "stale",
        /// A stored response, used because upstream failed or was late.
        StaleError = "stale_error",
        /// Upstream, asked for this request.
        Miss = "miss",
        /// Upstream, asked for another request of the same key.
        Coalesced = "coalesced",
        /// Computed here from the synced flags.
        Local = "local",
        /// Relayed without being stored.
        Passthrough = "passthrough",
        /// Made by flagside itself: errors, preflights, status.
        None = "none",
    }
}

label! {
    /// What became of spans.
    TraceResult {
        /// The receiver has them.
        Exported = "exported",
        /// The queue was full.
        Dropped = "dropped",
        /// The receiver did not take them.
        Failed = "failed",
    }
}

label! {
    /// The closed set of routes.
    Route {
        /// `/v1/vardata`
        VardataV1 = "vardata_v1",
        /// `/sdk/vardata`
        VardataLegacy = "vardata_legacy",
        /// `/sdk/v2/vardata`
        VardataV2 = "vardata_v2",
        /// `/v1/flags`
        FlagsV1 = "flags_v1",
        /// `/sdk/v2/flags`
        FlagsV2 = "flags_v2",
        /// `/sdk/v1/cohort/{id}`
        Cohort = "cohort",
        /// `/sdk/v2/memberships/{type}/{name}`
        Memberships = "memberships",
        /// `/sdk/stream/v1/flags` and `/sdk/stream/v1/vardata`
        Stream = "stream",
        /// `/web/v1/configs`
        WebConfigs = "web_configs",
        /// `/api/public/featureflag/evaluate`
        FbEvaluate = "fb_evaluate",
        /// `/api/public/sdk/*` and `/streaming`
        FbSdk = "fb_sdk",
        /// `/api/public/insight/track`
        FbEvents = "fb_events",
        /// Any other path of a configured backend
        Passthrough = "passthrough",
        /// `/status`
        Status = "status",
        /// Everything else
        Other = "other",
    }
}

label! {
    /// How an exchange with an upstream ended.
    Outcome {
        /// 200 to 299
        Success = "2xx",
        /// 300 to 399
        Redirect = "3xx",
        /// 400 to 499 but 401, 403 and 429
        ClientError = "4xx",
        /// 401 or 403
        Rejected = "401_403",
        /// 429
        Throttled = "429",
        /// 500 to 599
        ServerError = "5xx",
        /// The name did not resolve
        Dns = "dns",
        /// No TCP connection
        Connect = "connect",
        /// No TLS session
        Tls = "tls",
        /// A deadline passed
        Timeout = "timeout",
        /// The connection broke
        Reset = "reset",
        /// Not HTTP, truncated, too large, or not the promised shape
        Protocol = "protocol",
        /// Not tried: the breaker is open
        CircuitOpen = "circuit_open",
        /// Given up by us
        Cancelled = "cancelled",
    }
}

label! {
    /// What an upstream was asked for.
    Operation {
        /// vardata
        Evaluate = "evaluate",
        /// flag sets
        Flags = "flags",
        /// cohorts
        Cohort = "cohort",
        /// server-sent events, websockets
        Stream = "stream",
        /// events of applications, forwarded
        Events = "events",
        /// everything else
        Passthrough = "passthrough",
    }
}

label! {
    /// The method of a request from a client.
    Method {
        /// GET
        Get = "GET",
        /// POST
        Post = "POST",
        /// HEAD
        Head = "HEAD",
        /// OPTIONS
        Options = "OPTIONS",
        /// Any other, and requests that could not be read
        Other = "other",
    }
}

impl Method {
    /// The label of a request's method.
    #[must_use]
    pub fn from_http(method: &http::Method) -> Self {
        match *method {
            http::Method::GET => Self::Get,
            http::Method::POST => Self::Post,
            http::Method::HEAD => Self::Head,
            http::Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

label! {
    /// The status that a client got: exact where operators tell statuses apart, else its class.
    Code {
        /// OK
        C200 = "200",
        /// No Content
        C204 = "204",
        /// Not Modified
        C304 = "304",
        /// Bad Request
        C400 = "400",
        /// Unauthorized
        C401 = "401",
        /// Forbidden
        C403 = "403",
        /// Not Found
        C404 = "404",
        /// Method Not Allowed
        C405 = "405",
        /// Request Timeout
        C408 = "408",
        /// Content Too Large
        C413 = "413",
        /// URI Too Long
        C414 = "414",
        /// Unsupported Media Type
        C415 = "415",
        /// Too Many Requests
        C429 = "429",
        /// Request Header Fields Too Large
        C431 = "431",
        /// The client went away before its answer was sent
        C499 = "499",
        /// Internal Server Error
        C500 = "500",
        /// Not Implemented
        C501 = "501",
        /// Bad Gateway
        C502 = "502",
        /// Service Unavailable
        C503 = "503",
        /// Gateway Timeout
        C504 = "504",
        /// Any other 100 to 199
        Informational = "1xx",
        /// Any other 200 to 299
        Success = "2xx",
        /// Any other 300 to 399
        Redirect = "3xx",
        /// Any other 400 to 499
        ClientError = "4xx",
        /// Any other status from 500 on
        ServerError = "5xx",
    }
}

impl Code {
    /// The label of a status code.
    #[must_use]
    pub const fn from_status(status: u16) -> Self {
        match status {
            200 => Self::C200,
            204 => Self::C204,
            304 => Self::C304,
            400 => Self::C400,
            401 => Self::C401,
            403 => Self::C403,
            404 => Self::C404,
            405 => Self::C405,
            408 => Self::C408,
            413 => Self::C413,
            414 => Self::C414,
            415 => Self::C415,
            429 => Self::C429,
            431 => Self::C431,
            499 => Self::C499,
            500 => Self::C500,
            501 => Self::C501,
            502 => Self::C502,
            503 => Self::C503,
            504 => Self::C504,
            0..200 => Self::Informational,
            201..300 => Self::Success,
            300..400 => Self::Redirect,
            402..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// The class that stands in for this code where the code itself is not declared.
    #[must_use]
    pub const fn class(self) -> Self {
        match self {
            Self::Informational => Self::Informational,
            Self::C200 | Self::C204 | Self::Success => Self::Success,
            Self::C304 | Self::Redirect => Self::Redirect,
            Self::C500 | Self::C501 | Self::C502 | Self::C503 | Self::C504 | Self::ServerError => {
                Self::ServerError
            }
            _ => Self::ClientError,
        }
    }
}

impl From<http::StatusCode> for Code {
    fn from(status: http::StatusCode) -> Self {
        Self::from_status(status.as_u16())
    }
}

label! {
    /// Why a request was turned away before anything was asked or looked up.
    Rejection {
        /// 413
        BodyTooLarge = "body_too_large",
        /// 431 or 414
        HeadersTooLarge = "headers_too_large",
        /// 400
        BadRequest = "bad_request",
        /// 401 made by flagside
        Unauthorized = "unauthorized",
        /// 503: too much under way
        Overloaded = "overloaded",
        /// 408: the request did not arrive in time
        Timeout = "timeout",
        /// The process is stopping
        Draining = "draining",
    }
}

label! {
    /// A listener, by what it serves.
    Listener {
        /// Applications
        Data = "data",
        /// Probes, scrapes, operators
        Admin = "admin",
    }
}

label! {
    /// Why a connection was closed by flagside, not by its client.
    Closed {
        /// Too many connections
        Limit = "limit",
        /// No request, or not the whole of it, in time
        Idle = "idle",
        /// Not HTTP
        Protocol = "protocol",
    }
}

label! {
    /// A cache.
    CacheName {
        /// Answers to flag questions
        Vardata = "vardata",
        /// Flag sets
        Flags = "flags",
        /// Answers of FeatBit's evaluate endpoint
        Fb = "fb",
        /// Rejected keys
        Negative = "negative",
    }
}

label! {
    /// How a cache took a request.
    CacheResult {
        /// Stored and fresh
        Hit = "hit",
        /// Stored, no longer fresh, used all the same
        Stale = "stale",
        /// The client's copy was still right: 304
        Revalidated = "revalidated",
        /// Not stored
        Miss = "miss",
        /// Not stored, but already being fetched
        Coalesced = "coalesced",
        /// Not to be stored
        Bypass = "bypass",
    }
}

label! {
    /// Why something left a cache.
    Eviction {
        /// To make room
        Size = "size",
        /// Too old for any use
        Expired = "expired",
        /// A newer one took its place
        Replaced = "replaced",
        /// Revoked or asked for
        Purged = "purged",
    }
}

label! {
    /// What a refresh or a sync brought.
    Refresh {
        /// Something new
        Changed = "changed",
        /// What was there already
        Unchanged = "unchanged",
        /// Nothing
        Failed = "failed",
    }
}

label! {
    /// What a sync brings.
    SyncSource {
        /// Flag sets
        Flags = "flags",
        /// FeatBit's data, over a websocket
        FbStream = "fb_stream",
        /// FeatBit's data, polled
        FbPoll = "fb_poll",
    }
}

label! {
    /// What kind of event is forwarded.
    EventKind {
        /// What FeatBit's SDKs report of evaluations and metrics
        Insight = "insight",
    }
}

label! {
    /// Why an event was not delivered.
    EventDrop {
        /// More waited than may
        QueueFull = "queue_full",
        /// It waited too long
        Expired = "expired",
        /// Upstream does not want it
        Rejected = "rejected",
        /// The process ended first
        Shutdown = "shutdown",
    }
}

label! {
    /// Which SDKs a served stream is for.
    StreamKind {
        /// Server-side SDKs: the data set
        Server = "server",
        /// Client-side SDKs: one user's evaluated flags
        Client = "client",
    }
}

label! {
    /// Why a served stream ended.
    StreamEnd {
        /// Its client left
        Left = "left",
        /// 4003: a bad request, token or secret
        Refused = "refused",
        /// 1011: no data to serve
        Unavailable = "unavailable",
        /// 1013: as many streams as may be
        Limit = "limit",
        /// It took no data for too long
        Slow = "slow",
        /// It said nothing for too long
        Silent = "silent",
        /// It broke the protocol or sent too much
        Protocol = "protocol",
        /// The process is stopping
        Draining = "draining",
    }
}

label! {
    /// A circuit breaker's state.
    Circuit {
        /// Requests pass
        Closed = "closed",
        /// Requests fail at once
        Open = "open",
        /// One request may try
        HalfOpen = "half_open",
    }
}

label! {
    /// Whose evaluation rules.
    Engine {
        /// Amplitude Experiment
        Amplitude = "amplitude",
        /// FeatBit
        Featbit = "featbit",
    }
}

label! {
    /// Why an answer was computed here.
    Trigger {
        /// Upstream failed or was late
        Outage = "outage",
        /// The environment is set to local evaluation
        LocalMode = "local_mode",
        /// The request asked for what only local evaluation gives
        SdkLocal = "sdk_local",
    }
}

label! {
    /// How an evaluation ended.
    Evaluation {
        /// Every flag was computed as upstream would
        Ok = "ok",
        /// Some flags could not be faithful or were left out
        Partial = "partial",
        /// No flag could be computed faithfully
        Unsupported = "unsupported",
        /// No answer
        Failed = "failed",
    }
}

label! {
    /// What the evaluation of one flag gave.
    FlagResult {
        /// A variant other than the default
        Variant = "variant",
        /// A variant that means off
        Off = "off",
        /// The default variant, or none
        Default = "default",
        /// The flag could not be computed
        Failed = "failed",
    }
}

label! {
    /// Why answers may be worse than usual.
    Degraded {
        /// An upstream has not answered for a while
        Upstream = "upstream",
        /// An upstream rejects our keys
        Auth = "auth",
        /// Flags have not been synced for a while
        Stale = "stale",
    }
}

label! {
    /// Level of a log line.
    LogLevel {
        /// Somebody must act
        Error = "error",
        /// Degraded but served
        Warn = "warn",
        /// Rare events
        Info = "info",
        /// For the developer of an application
        Debug = "debug",
        /// For the developer of flagside
        Trace = "trace",
    }
}
