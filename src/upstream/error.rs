//! How calls to upstream fail.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::metrics::Outcome;

/// What lies behind a broken exchange.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why an upstream gave no whole answer. An answer of any status is not an error.
///
/// The text names no host, path, query, header or body: it may be logged as it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Not tried: the environment has as many requests under way as it may have.
    #[error("not tried: too many requests under way")]
    Busy,
    /// Not tried: the breaker of the origin or of the environment is open.
    #[error("not tried: the breaker is open")]
    CircuitOpen,
    /// Not tried: a method or target that cannot be forwarded.
    #[error("not tried: the method or target cannot be forwarded")]
    Unsendable,
    /// The name did not resolve.
    #[error("the name does not resolve: {0}")]
    Dns(Arc<io::Error>),
    /// No address took a connection.
    #[error("cannot connect: {0}")]
    Connect(Arc<io::Error>),
    /// The TLS handshake failed.
    #[error("no TLS session: {0}")]
    Tls(Arc<io::Error>),
    /// A deadline passed.
    #[error("timed out {0}")]
    Timeout(Phase),
    /// The connection broke, or the stream was reset.
    #[error("the connection broke: {0}")]
    Reset(Cause),
    /// What came is not HTTP.
    #[error("not HTTP: {0}")]
    Malformed(Cause),
    /// An upgrade that nobody asked for.
    #[error("an upgrade that was not asked for")]
    Upgraded,
    /// The body ended before its announced end.
    #[error("the answer is cut short")]
    Truncated,
    /// The body is larger than may be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The body has a content coding, and none was asked for.
    #[error("the answer has a content coding that was not asked for")]
    Encoded,
    /// The body of the client's request broke off while it was streamed to upstream.
    #[error("the request body broke off")]
    Aborted,
}

/// What was waited for when a deadline passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A connection: name, TCP and TLS.
    Connect,
    /// The head of the response.
    Head,
    /// The rest of the body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "waiting for a connection",
            Self::Head => "waiting for the response",
            Self::Body => "in the middle of the body",
        })
    }
}

/// Whose breaker a failure counts against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blame {
    /// The origin's: it cannot be talked to.
    Origin,
    /// Nobody's, and the origin answered: it can be talked to.
    Answer,
    /// Nobody's, and nothing was learnt.
    Nobody,
}

impl UpstreamError {
    /// The `outcome` label of the exchange.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::CircuitOpen => Outcome::CircuitOpen,
            Self::Busy | Self::Unsendable | Self::Aborted => Outcome::Cancelled,
            Self::Dns(_) => Outcome::Dns,
            Self::Connect(_) => Outcome::Connect,
            Self::Tls(_) => Outcome::Tls,
            Self::Timeout(_) => Outcome::Timeout,
            Self::Reset(_) => Outcome::Reset,
            Self::Malformed(_) | Self::Upgraded | Self::Truncated | Self::TooLarge { .. } | Self::Encoded => {
                Outcome::Protocol
            }
        }
    }

    /// Whether the same request, sent again at once, has a chance: another replica may take it.
    ///
    /// False for timeouts (a repetition would double the wait) and for all that would come out the same.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Reset(_))
    }

    /// Whether there was nobody to ask: another host with the same data has a chance.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Dns(_)
                | Self::Connect(_)
                | Self::Tls(_)
                | Self::Timeout(Phase::Connect)
                | Self::CircuitOpen
        )
    }

    /// Whose breaker counts this failure.
    pub(super) const fn blame(&self) -> Blame {
        match self {
            Self::Dns(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::Reset(_)
            | Self::Malformed(_)
            | Self::Upgraded
            | Self::Truncated => Blame::Origin,
            Self::TooLarge { .. } | Self::Encoded => Blame::Answer,
            Self::Busy | Self::CircuitOpen | Self::Unsendable | Self::Aborted => Blame::Nobody,
        }
    }

    /// What a connection reports whose bytes are read here.
    pub(super) fn broken(error: io::Error) -> Self {
        match error.kind() {
            // What TLS says of bytes that are none of its own.
            io::ErrorKind::InvalidData => Self::Malformed(Arc::new(error)),
            _ => Self::Reset(Arc::new(error)),
        }
    }

    /// What hyper reports between the request and the head of the response.
    pub(super) fn before_head(error: hyper::Error) -> Self {
        if error.is_user() || error.is_body_write_aborted() {
            Self::Aborted
        } else if error.is_parse() || error.is_parse_too_large() {
            Self::Malformed(Arc::new(error))
        } else {
            Self::Reset(Arc::new(error))
        }
    }

    /// What hyper reports while the body comes in.
    pub(super) fn in_body(error: hyper::Error) -> Self {
        if error.is_incomplete_message() {
            return Self::Truncated;
        }
        match io_kind(&error) {
            Some(io::ErrorKind::UnexpectedEof) => Self::Truncated,
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                Self::Malformed(Arc::new(error))
            }
            _ => Self::Reset(Arc::new(error)),
        }
    }
}

/// The kind of the first I/O error in the chain of causes.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

/// Why upstreams cannot be set up from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetupError {
    /// `upstream.ca_file` cannot be read, or is not PEM.
    #[error("upstream.ca_file {path}: {source}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// `upstream.ca_file` holds no certificate.
    #[error("upstream.ca_file {path}: no certificate in it")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in `upstream.ca_file` cannot be a root.
    #[error("upstream.ca_file {path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: rustls::Error,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A base URL whose host is no host name or address.
    #[error("{base}: the host is neither a name nor an address")]
    Host {
        /// The base, which holds no secret.
        base: String,
    },
}
