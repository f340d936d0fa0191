//! Flag sets as upstream gave them, compiled.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::evaluate::amplitude::{FlagSet, FlagSetError};
use crate::key::flag_keys::FlagKeys;

/// What each flag of a set meant: its key and a hash of its definition and those of its dependencies.
pub type Definitions = HashMap<Box<str>, u128>;

/// One set of flags: the JSON array as it came, and compiled.
#[derive(Debug)]
pub struct FlagData {
    /// The array, byte for byte.
    pub body: Bytes,
    /// Of `body`, once somebody asked for it: most are never asked for, and large ones take milliseconds.
    etag: OnceLock<HeaderValue>,
    /// The validator upstream gave with it.
    pub upstream_etag: Option<HeaderValue>,
    /// Compiled, for evaluation.
    pub set: FlagSet,
    definitions: OnceLock<Arc<Definitions>>,
}

impl FlagData {
    /// Compiles a flags response. Bad flags are isolated, see [`FlagSet::problems`].
    ///
    /// # Errors
    /// When `body` is not a JSON array.
    pub fn compile(body: impl Into<Vec<u8>>) -> Result<Self, FlagSetError> {
        let set = FlagSet::compile_owned(body.into())?;
        let body = Bytes::from_owner(Text(Arc::clone(set.text())));
        Ok(Self {
            etag: OnceLock::new(),
            upstream_etag: None,
            set,
            definitions: OnceLock::new(),
            body,
        })
    }

    /// Definitions of its flags, made when they are first asked for: a flags file is compared with nothing.
    #[must_use]
    pub fn definitions(&self) -> &Arc<Definitions> {
        let of = || {
            self.set
                .flags()
                .map(|flag| (Box::from(flag.key), flag.definition()))
        };
        self.definitions.get_or_init(|| Arc::new(of().collect()))
    }

    /// Strong validator of `body`.
    #[must_use]
    pub fn etag(&self) -> &HeaderValue {
        self.etag.get_or_init(|| etag(&self.body))
    }

    /// The array with only the flags of `wanted`, each byte for byte and in the array's order.
    #[must_use]
    pub fn filtered(&self, wanted: &FlagKeys) -> Bytes {
        if wanted.is_all() {
            return self.body.clone();
        }
        let mut out = vec![b'['];
        for flag in self.set.flags().filter(|flag| wanted.has(flag.key)) {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(flag.text.as_bytes());
        }
        out.push(b']');
        out.into()
    }
}

/// The text of a flag set, which its answers share.
struct Text(Arc<String>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A strong validator: half of the SHA-256 of `body`.
#[must_use]
pub fn etag(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let mut text = String::with_capacity(34);
    text.push('"');
    for byte in digest.iter().take(16) {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('"');
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The synced flags of one deployment: two sets, either may be missing.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// What `/sdk/v2/flags` gives.
    pub plain: Option<Arc<FlagData>>,
    /// What `eval_mode=remote` gives; missing where upstream refuses it.
    pub remote: Option<Arc<FlagData>>,
}

impl Flags {
    /// The set to evaluate with.
    #[must_use]
    pub fn evaluation(&self) -> Option<&Arc<FlagData>> {
        self.remote.as_ref().or(self.plain.as_ref())
    }

    /// Revisions of the plain and the remote set.
    #[must_use]
    pub fn revisions(&self) -> Revisions {
        [&self.plain, &self.remote].map(|data| data.as_ref().map(|data| data.set.revision()))
    }
}

/// Revisions of the plain and the remote set; `None` = there is none.
pub type Revisions = [Option<u128>; 2];
