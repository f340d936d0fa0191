//! The server's certificate: read from two PEM files, and read again when they change.
//!
//! A pair that cannot be used changes nothing: the one before stays until a good one comes. Connections keep the
//! certificate they began with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::{Date, Month, PrimitiveDateTime, Time};

use crate::task::Stop;

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{file}: {source}", file = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds no PEM of the right kind.
    #[error("{file}: {source}", file = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{file}: no certificate in it", file = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate in use, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    files: [PathBuf; 2],
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// End of validity in seconds since 1970.
    not_after: Option<i64>,
    /// Of what was in the files.
    digest: [u8; 32],
}

impl Certificate {
    /// Reads the chain and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used, or the two do not belong together.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = [chain.to_owned(), key.to_owned()];
        let texts = contents(&files)?;
        let current = ArcSwap::from_pointee(current(&files, &texts)?);
        Ok(Self { files, current })
    }

    /// Until when the certificate in use is valid: seconds since 1970; none if it does not say so readably.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.current.load().not_after
    }

    /// TLS 1.2 and 1.3, HTTP/1.1, with whatever certificate is in use when a connection begins.
    ///
    /// # Errors
    ///
    /// When the TLS library refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Looks at the files again and again until `stop`.
    pub async fn watch(self: Arc<Self>, stop: Stop) {
        let mut failed = None;
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.reload() {
                Ok(false) => failed = None,
                Ok(true) => {
                    failed = None;
                    tracing::info!(not_after = self.not_after(), "the certificate was replaced");
                }
                Err(error) => {
                    let text = error.to_string();
                    // Half a pair is there for a moment whenever two files are written: once is no fault.
                    if failed.as_ref() == Some(&text) {
                        continue;
                    }
                    tracing::warn!(
                        error.msg = text,
                        "the new certificate cannot be used; the old one stays"
                    );
                    failed = Some(text);
                }
            }
        }
    }

    /// Takes what is in the files now; says whether that is new.
    ///
    /// # Errors
    ///
    /// When it cannot be used; then nothing has changed.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let texts = contents(&self.files)?;
        if digest(&texts) == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(current(&self.files, &texts)?));
        Ok(true)
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().key))
    }
}

fn contents(files: &[PathBuf; 2]) -> Result<[Vec<u8>; 2], CertificateError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| CertificateError::Read {
            path: path.clone(),
            source,
        })
    };
    Ok([read(&files[0])?, read(&files[1])?])
}

fn digest([chain, key]: &[Vec<u8>; 2]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(chain.len().to_be_bytes());
    digest.update(chain);
    digest.update(key);
    digest.finalize().into()
}

fn current(files: &[PathBuf; 2], texts: &[Vec<u8>; 2]) -> Result<Current, CertificateError> {
    let wrong = |at: usize| {
        let path = files[at].clone();
        move |source| CertificateError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&texts[0])
        .collect::<Result<_, _>>()
        .map_err(wrong(0))?;
    let first = chain.first().ok_or_else(|| CertificateError::Empty {
        path: files[0].clone(),
    })?;
    let not_after = not_after(first);
    let key = PrivateKeyDer::from_pem_slice(&texts[1]).map_err(wrong(1))?;
    let key = CertifiedKey::from_der(chain, key, &default_provider())?;
    Ok(Current {
        key: Arc::new(key),
        not_after,
        digest: digest(texts),
    })
}

/// The end of validity of an X.509 certificate (RFC 5280, 4.1.2.5), in seconds since 1970.
fn not_after(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    // Serial number, signature algorithm, issuer; then validity.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (tag, validity, _) = element(fields)?;
    let (_, _, after) = element(validity)?;
    let (time, text, _) = element(after)?;
    if tag != SEQUENCE {
        return None;
    }
    moment(time, std::str::from_utf8(text).ok()?)
}

/// `UTCTime` or `GeneralizedTime`, in the one form that certificates may use.
fn moment(tag: u8, text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        0x17 => {
            let short: i32 = text.get(..2)?.parse().ok()?;
            (
                if short < 50 { 2000 + short } else { 1900 + short },
                text.get(2..)?,
            )
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

/// The first DER element of `bytes`: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn pair(year: i32) -> (String, String, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["injector.flagside.svc".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 2, 28);
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
    }

    #[test]
    fn the_end_of_validity_is_found_in_both_forms() {
        for (year, wanted) in [(2031, 1_930_003_200), (2060, 2_845_152_000)] {
            assert_eq!(not_after(&pair(year).2), Some(wanted), "{year}");
        }
    }

    #[test]
    fn a_new_pair_is_taken_and_half_a_pair_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = [directory.path().join("tls.crt"), directory.path().join("tls.key")];
        let write = |at: usize, text: &str| fs::write(&files[at], text).unwrap();
        let (old, new) = (pair(2031), pair(2032));
        write(0, &old.0);
        write(1, &old.1);
        let certificate = Certificate::read(&files[0], &files[1]).unwrap();
        let first = certificate.not_after();
        assert!(!certificate.reload().unwrap());
        write(0, &new.0);
        assert!(matches!(certificate.reload(), Err(CertificateError::Pair(_))));
        assert_eq!(certificate.not_after(), first);
        write(1, &new.1);
        assert!(certificate.reload().unwrap());
        assert!(certificate.not_after() > first);
        write(0, "nothing");
        assert!(matches!(
            certificate.reload(),
            Err(CertificateError::Empty { .. })
        ));
        fs::remove_file(&files[1]).unwrap();
        assert!(matches!(certificate.reload(), Err(CertificateError::Read { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..600) {
            let _ = not_after(&bytes);
            let whole = pair(2031).2;
            let _ = not_after(&whole[..cut.min(whole.len())]);
        }
    }
}
