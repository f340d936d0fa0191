//! What the clients of all workers share.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::UpstreamSetupError;
use super::resolve::{Lookup, system_lookup};
use super::{Observer, Origin, lock};
use crate::config::{self, BaseUrl};

/// Settings, TLS set-up and origins; one per process.
pub struct Shared {
    pub(super) settings: config::Upstream,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) observer: Arc<dyn Observer>,
    lookup: Lookup,
    origins: Mutex<Vec<Arc<Origin>>>,
}

impl Shared {
    /// Prepares calls to upstreams: reads `ca_file` and sets TLS up.
    ///
    /// # Errors
    ///
    /// When `ca_file` cannot be read or holds no usable certificate.
    pub fn new(
        settings: &config::Upstream,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpstreamSetupError> {
        Self::with_lookup(settings, observer, system_lookup())
    }

    /// The same, with another way to look names up.
    pub(super) fn with_lookup(
        settings: &config::Upstream,
        observer: Arc<dyn Observer>,
        lookup: Lookup,
    ) -> Result<Arc<Self>, UpstreamSetupError> {
        let tls = Arc::new(tls_config(settings)?);
        let origins = Mutex::new(Vec::new());
        Ok(Arc::new(Self {
            settings: settings.clone(),
            tls,
            observer,
            lookup,
            origins,
        }))
    }

    /// The origin of `base`: the same one for equal bases.
    ///
    /// # Errors
    ///
    /// When the host of `base` is neither a name nor an address.
    pub fn origin(&self, base: &Arc<BaseUrl>) -> Result<Arc<Origin>, UpstreamSetupError> {
        let mut origins = lock(&self.origins);
        if let Some(known) = origins.iter().find(|origin| origin.base() == base) {
            return Ok(Arc::clone(known));
        }
        let origin = Arc::new(Origin::new(
            origins.len(),
            base,
            &self.settings,
            Lookup::clone(&self.lookup),
        )?);
        origins.push(Arc::clone(&origin));
        Ok(origin)
    }

    /// Every origin so far, in the order of [`Origin::index`].
    #[must_use]
    pub fn origins(&self) -> Vec<Arc<Origin>> {
        lock(&self.origins).clone()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

/// Compiled-in roots and those of `ca_file`; ring; no client certificate.
fn tls_config(settings: &config::Upstream) -> Result<ClientConfig, UpstreamSetupError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = &settings.ca_file {
        add_roots(&mut roots, path)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if settings.http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), UpstreamSetupError> {
    let unread = |source| UpstreamSetupError::CaFile {
        path: path.to_owned(),
        source,
    };
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unread)? {
        let certificate = certificate.map_err(unread)?;
        roots
            .add(certificate)
            .map_err(|source| UpstreamSetupError::Certificate {
                path: path.to_owned(),
                source,
            })?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(UpstreamSetupError::NoCertificate {
            path: path.to_owned(),
        })
    }
}
