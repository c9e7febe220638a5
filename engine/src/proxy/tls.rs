//! TLS with clients: certificates chosen by the name that a client asks for, read again from their files when
//! those change, and what a request's host must be to belong on a connection.
//!
//! The files are asked about at each handshake (two `stat` calls for a certificate, beside some hundred
//! microseconds for the handshake itself), so that a renewed certificate is shown from the next connection on and
//! nothing watches.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::sync::lock;
use crate::table;

/// From a connection's acceptance to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What HTTP/2 is called in ALPN.
pub const H2: &[u8] = b"h2";
const HTTP_11: &[u8] = b"http/1.1";

/// What a listener shows of itself.
pub struct Certificates {
    /// As the table says it.
    pub wanted: table::Tls,
    /// Whether what is inside is HTTP, so that its version is to be agreed on.
    is_http: bool,
    current: Mutex<Current>,
}

struct Current {
    /// Of the files when they were last read, well or in vain.
    stamps: Vec<Stamp>,
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

/// What tells that a file is another one than before; `None`: there was none.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is of no use, and why.
    pub fn read(wanted: &table::Tls, is_http: bool) -> Result<Arc<Self>, String> {
        let stamps = stamps(wanted);
        let (config, shown) = load(wanted, is_http)?;
        let current = Mutex::new(Current { stamps, config, shown });
        Ok(Arc::new(Self { wanted: wanted.clone(), is_http, current }))
    }

    /// Agrees on TLS with a client.
    ///
    /// # Errors
    /// The client broke off, took too long, or shows no certificate that is right.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.config());
        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Whether a request for `host` belongs on a connection whose client asked for `name`: not if another
    /// certificate than the one that was shown is the one for this host. A host for which there is no certificate
    /// belongs anywhere; whoever asks for it has taken what was shown.
    pub fn belongs(&self, name: Option<&str>, host: &str) -> bool {
        let shown = Arc::clone(&lock(&self.current).shown);
        let own = shown.for_name(name);
        shown.0.iter().all(|key| !covers(key, host)) || covers(&own, host)
    }

    /// What is in force, made anew if a file has changed since.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = lock(&self.current);
        let stamps = stamps(&self.wanted);
        if stamps != current.stamps {
            current.stamps = stamps;
            match load(&self.wanted, self.is_http) {
                Ok((config, shown)) => (current.config, current.shown) = (config, shown),
                Err(fault) => eprintln!("gateway: the certificate in use stays in use: {fault}"),
            }
        }
        Arc::clone(&current.config)
    }
}

fn stamps(wanted: &table::Tls) -> Vec<Stamp> {
    let files = wanted.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]).chain(&wanted.client_ca);
    let stamp = |path: &std::path::PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    files.map(stamp).collect()
}

fn load(wanted: &table::Tls, is_http: bool) -> Result<(Arc<ServerConfig>, Arc<Shown>), String> {
    let provider = Arc::new(ring::default_provider());
    let keys: Result<Vec<_>, String> = wanted.certificates.iter().map(|pair| load_key(pair, &provider)).collect();
    let shown = Arc::new(Shown(keys?));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &wanted.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let fault = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| fault(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| fault(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
    // Its keys change by themselves every few hours.
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    if is_http {
        config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
    }
    Ok((Arc::new(config), shown))
}

fn load_key(pair: &table::Certificate, provider: &rustls::crypto::CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(&pair.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|error| format!("{}: no private key in PEM: {error}", pair.key.display()))?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("{} with the key {}: {error}", pair.certificate.display(), pair.key.display()))?;
    Ok(Arc::new(certified))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |error: &dyn fmt::Display| format!("{}: no certificate in PEM: {error}", path.display());
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))?.collect();
    match read {
        Ok(chain) if chain.is_empty() => Err(fault(&"the file holds none")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(fault(&error)),
    }
}

/// The certificates of a listener in the table's order; at least one.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl Shown {
    /// The one for a name, or else the first.
    fn for_name(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let named = name.and_then(|name| self.0.iter().find(|key| covers(key, name)));
        Arc::clone(named.unwrap_or(&self.0[0]))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.for_name(hello.server_name()))
    }
}

fn covers(key: &CertifiedKey, host: &str) -> bool {
    let (Some(own), Ok(name)) = (key.cert.first(), ServerName::try_from(host)) else { return false };
    EndEntityCert::try_from(own).is_ok_and(|own| own.verify_is_valid_for_subject_name(&name).is_ok())
}
