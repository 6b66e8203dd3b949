//! What a client of receivers trusts and shows, for ureq.

use std::fs;
use std::path::Path;

#[cfg(feature = "tls")]
use {
    super::pem::{certificates, private_key, sentence},
    rustls::pki_types::CertificateDer,
    rustls::{ClientConfig, RootCertStore},
    std::sync::Arc,
    ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

/// Longest token in bytes that a client shows: a request head has no room for more.
const TOKEN_BYTES_MAX: usize = 4096;

type Config = ureq::config::ConfigBuilder<ureq::typestate::AgentScope>;

/// Reads the token in a file.
///
/// # Errors
/// When there is none; the sentence names the file.
pub fn read_token(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    let token = text.and_then(|text| check_token(text.trim()).map(|()| text.trim().to_owned()));
    token.map_err(|why| format!("token file {}: {why}", file.display()))
}

/// Checks that a text can be a token: one that had a line break would be further lines of a datagram.
///
/// # Errors
/// What a token is, as the end of a sentence.
pub fn check_token(token: &str) -> Result<(), String> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("is not a token, a word of 1 to {TOKEN_BYTES_MAX} letters, digits and signs"));
    }
    Ok(())
}

/// Has a client trust the authorities in the file `ca`, or those of the web without one, and show the certificate of
/// `own`, a chain and its key.
///
/// # Errors
/// When a file cannot be used, or the key is not the certificate's; the sentence names the files.
#[cfg(feature = "tls")]
pub fn with_tls(config: Config, ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Config, String> {
    Ok(config.tls_config(tls_config(ca, own)?))
}

/// Without TLS there is nothing to trust or show.
///
/// # Errors
/// When there are files to use.
#[cfg(not(feature = "tls"))]
pub fn with_tls(config: Config, ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Config, String> {
    if ca.is_some() || own.is_some() { Err(crate::features::WITHOUT_TLS.to_owned()) } else { Ok(config) }
}

/// The TLS of a client.
///
/// The key is tried with the certificate here, since ureq panics when it first connects with one that does not fit.
#[cfg(feature = "tls")]
fn tls_config(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<TlsConfig, String> {
    let authorities = ca.map(|file| certificates("ca", file)).transpose()?;
    let mut roots = RootCertStore::empty();
    for authority in authorities.iter().flatten() {
        let wrong = |error| format!("ca {}: {error}", ca.unwrap_or(Path::new("")).display());
        roots.add(authority.clone()).map_err(wrong)?;
    }
    let mut config = TlsConfig::builder();
    if let Some(authorities) = &authorities {
        config = config.root_certs(RootCerts::new_with_certs(&owned(authorities)));
    }
    if let Some((certificate, key)) = own {
        let (chain, private) = (certificates("certificate", certificate)?, private_key("key", key)?);
        let wrong = |error| sentence(certificate, key, &error);
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let own = ClientCert::new_with_certs(&owned(&chain), for_ureq(key)?);
        builder.with_root_certificates(roots).with_client_auth_cert(chain, private).map_err(wrong)?;
        config = config.client_cert(Some(own));
    }
    Ok(config.build())
}

#[cfg(feature = "tls")]
fn owned(chain: &[CertificateDer<'_>]) -> Vec<Certificate<'static>> {
    chain.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
}

/// The key that [`private_key`] has found good, in ureq's own form.
#[cfg(feature = "tls")]
fn for_ureq(file: &Path) -> Result<PrivateKey<'static>, String> {
    let wrong = |error: String| format!("key {}: {error}", file.display());
    let text = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    PrivateKey::from_pem(&text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(check_token("abc.DEF-_~+/="), Ok(()));
        for text in ["", "a b", "a\nperf,host=victim cpu=1", "a\u{7f}", "ü", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(check_token(text).unwrap_err().starts_with("is not a token"), "{text:?}");
        }
    }
}
