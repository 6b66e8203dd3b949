//! Certificates and keys in files, as PEM (RFC 7468).

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads the certificates of a file, at least one. `what` names the file in errors.
pub(crate) fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: String| format!("{what} {}: {why}", file.display());
    let text = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("holds no certificate in PEM".to_owned())) } else { Ok(certificates) }
}

/// Reads the first private key of a file. `what` names the file in errors.
pub(crate) fn private_key(what: &str, file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |why: &str| format!("{what} {}: {why}", file.display());
    let text = fs::read(file).map_err(|error| wrong(&error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong("holds no private key in PEM (PKCS#8, PKCS#1 or SEC1) without a passphrase"))
}

/// What is wrong with a certificate and its key together, for people.
pub(crate) fn sentence(certificate: &Path, key: &Path, error: &rustls::Error) -> String {
    let why = match error {
        rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
        other => other.to_string(),
    };
    format!("certificate {} and key {}: {why}", certificate.display(), key.display())
}
