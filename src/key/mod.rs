//! From a request to its cache key: what was asked, with every spelling of the same question alike.
//!
//! Two levels. [`raw`] gathers the request parts that can matter, undecoded, and their [`Fingerprint`] is what the memo
//! that answers nearly every repeated request is asked for. Only when the memo does not know them does [`question`] decode
//! base64, query and JSON and build the canonical form that [`hash`] turns into a [`Key`].
//!
//! Invariants: canonicalization is lossless (API 9.3), so two requests that any engine could tell apart
//! never share a key; every part is length-prefixed; the full deployment key is always in; a request that
//! cannot be read exactly gets no key at all. A change here is a security change.

pub mod authorization;
pub mod base64;
mod fingerprint;
pub mod flag_keys;
pub mod hash;
mod parameters;
#[cfg(test)]
mod properties;
pub mod query;
pub mod question;
pub mod raw;
pub mod target;
pub mod user;

pub use authorization::DeploymentKey;
pub use fingerprint::Fingerprint;
pub use hash::{Key, Keyer};
pub use question::{Asked, Asks, Question};
pub use target::{Routing, Target};

/// Nesting that Amplitude user objects may have (design 6); the root counts as 1.
pub const USER_DEPTH_MAX: usize = 64;

/// Why a request has no key. Such a request is forwarded uncached (API 3.7).
///
/// The text completes the sentence "cannot read …" and never holds request bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// A query parameter is not form-encoded UTF-8.
    #[error("the query: it is not form-encoded UTF-8")]
    Query,
    /// A parameter that may be given once is there twice, with different values.
    #[error("the query: a parameter is given twice with different values")]
    AmbiguousQuery,
    /// An experiment header is there twice.
    #[error("the headers: an X-Amp-Exp header is given twice")]
    AmbiguousHeader,
    /// `X-Amp-Exp-User` is not base64.
    #[error("X-Amp-Exp-User: it is not base64")]
    UserBase64,
    /// The user is not one strict JSON object.
    #[error("the user: it is not a JSON object")]
    User,
    /// `context` is not a JSON object. The text is the one of API 3.7.
    #[error("invalid context")]
    Context,
    /// `X-Amp-Exp-Flag-Keys` is not base64 of a JSON array of strings.
    #[error("X-Amp-Exp-Flag-Keys: it is not base64 of a JSON array of strings")]
    FlagKeys,
    /// The body is compressed.
    #[error("the body: it has a Content-Encoding")]
    Encoded,
}
