//! What HTTPS needs of the receiver's files, read again when they change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{CertificateError, ServerConfig, ServerConnection};

use crate::api::Api;
use crate::auth::{certificates, client_verifier, private_key, sentence};
use crate::reload::Reloaded;

/// What the command line says of HTTPS.
#[derive(Debug, Clone)]
pub struct HttpsOptions {
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// The chain of the receiver's own certificate, its own first, as PEM.
    pub certificate: PathBuf,
    /// The key of its certificate, as PEM.
    pub key: PathBuf,
    /// Roots and intermediates of the certificates that clients may have, as PEM.
    pub trust: Option<PathBuf>,
}

/// The receiver's certificate, and those that it trusts.
pub(super) struct Certificates(Reloaded<ServerConfig>);

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used; the sentence names it.
    pub(super) fn open(options: &HttpsOptions) -> Result<Self, String> {
        let files = [Some(&options.certificate), Some(&options.key), options.trust.as_ref()];
        let files = files.into_iter().flatten().cloned().collect();
        let options = options.clone();
        Reloaded::new(files, move || server_config(&options)).map(Self)
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// Those of rustls.
    pub(super) fn begin(&self) -> Result<ServerConnection, String> {
        ServerConnection::new(self.0.current()).map_err(|error| error.to_string())
    }
}

fn server_config(options: &HttpsOptions) -> Result<ServerConfig, String> {
    let provider = Arc::new(default_provider());
    let chain = certificates("certificate", &options.certificate)?;
    let key = private_key("key", &options.key)?;
    let verifier = match &options.trust {
        None => Arc::new(NoClientAuth),
        Some(file) => client_verifier(certificates("trust", file)?, provider.signature_verification_algorithms)
            .map_err(|why| format!("trust {}: {why}", file.display()))?,
    };
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_client_cert_verifier(verifier);
    let wrong = |error| sentence(&options.certificate, &options.key, &error);
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // A resumed session would go on with a certificate that has expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Logs whose certificate was not trusted, and why.
pub(super) fn log_certificate_error(api: &Api, error: &io::Error) {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) = error {
        api.authorizer().log_refusal(&why.0.to_string(), api.now_sec());
    }
}
