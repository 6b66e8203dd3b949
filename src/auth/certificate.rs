//! Client certificates: which are trusted, and what they name.

use std::cell::Cell;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, anchor_from_trusted_cert};

use super::identity::Identity;
use crate::url;

/// The scheme of a URI that names a host which DNS cannot name, such as `lizm:web.1` or `lizm:my%20host`.
const HOST_SCHEME: &str = "lizm:";

/// The identity that a verified certificate names (subjectAltName, RFC 5280, 4.2.1.6): its DNS names, wildcards too, and
/// the hosts of its `lizm:` URIs, percent-decoded.
#[must_use]
pub fn identity_of(certificate: &CertificateDer<'_>) -> Identity {
    let mut fingerprint = "sha256:".to_owned();
    digest(&SHA256, certificate).as_ref().iter().for_each(|byte| fingerprint += &format!("{byte:02x}"));
    let hosts = EndEntityCert::try_from(certificate).map_or(Vec::new(), |parsed| {
        let of_uris = uri_hosts(&parsed).filter_map(|host| Some(url::decode(host).ok()?.into_owned()));
        parsed.valid_dns_names().map(str::to_owned).chain(of_uris).collect()
    });
    Identity { hosts, fingerprint: Some(fingerprint), ..Identity::default() }
}

/// The hosts of the `lizm:` URIs of a certificate, still percent-encoded.
fn uri_hosts<'a>(certificate: &'a EndEntityCert<'_>) -> impl Iterator<Item = &'a str> {
    certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(HOST_SCHEME))
}

/// A verifier of client certificates with the roots and intermediates of `certificates`. It checks chain, validity, and
/// the usage client-auth, which must be named. A client without a certificate may connect, without an identity.
///
/// # Errors
/// When one cannot be read, or none is a root: one that is its own issuer.
pub fn client_verifier(
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut verifier = Verifier { roots: Vec::new(), intermediates: Vec::new(), subjects: Vec::new(), algorithms };
    for (certificate, number) in certificates.into_iter().zip(1..) {
        let wrong = |error| format!("certificate {number}: {error}");
        let parsed = EndEntityCert::try_from(&certificate).map_err(wrong)?;
        verifier.subjects.push(DistinguishedName::in_sequence(parsed.subject()));
        if parsed.subject() == parsed.issuer() {
            verifier.roots.push(anchor_from_trusted_cert(&certificate).map_err(wrong)?.to_owned());
        } else {
            verifier.intermediates.push(certificate);
        }
    }
    if verifier.roots.is_empty() {
        return Err("holds no root, a certificate that is its own issuer".to_owned());
    }
    Ok(Arc::new(verifier))
}

#[derive(Debug)]
struct Verifier {
    roots: Vec<TrustAnchor<'static>>,
    intermediates: Vec<CertificateDer<'static>>,
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Checks a certificate and its chain. The error is a sentence for people.
    fn verify(&self, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>], now: UnixTime) -> Result<(), String> {
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| sentence(&error))?;
        let intermediates: Vec<_> =
            sent.iter().chain(&self.intermediates).map(|der| CertificateDer::from(&**der)).collect();
        let (algorithms, usage) = (self.algorithms.all, KeyUsage::client_auth());
        let path = leaf.verify_for_usage(algorithms, &self.roots, &intermediates, now, usage, None, None);
        let path = path.map_err(|error| sentence(&error))?;
        // Constraints on DNS names say nothing about URIs.
        let is_constrained = |authority: &TrustAnchor<'_>| authority.name_constraints.is_some();
        let mut authorities = path.intermediate_certificates().map(|authority| authority.der());
        if uri_hosts(&leaf).next().is_some()
            && (is_constrained(path.anchor())
                || authorities.any(|der| anchor_from_trusted_cert(&der).map_or(true, |anchor| is_constrained(&anchor))))
        {
            return Err("certificate: its lizm: URI is not by an authority without name constraints".to_owned());
        }
        if names_client_auth(&leaf, now) { Ok(()) } else { Err(OTHER_USAGE.to_owned()) }
    }
}

const OTHER_USAGE: &str = "certificate: it does not name the usage client-auth";

/// The sentence for people about a certificate that was refused.
fn sentence(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "certificate: no chain leads from it to a root of --trust".to_owned(),
        webpki::Error::CertExpired { .. } => "certificate: it, or one of its chain, has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "certificate: it, or one of its chain, is not valid yet".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => OTHER_USAGE.to_owned(),
        other => format!("certificate: {other:?}"),
    }
}

/// Whether a certificate names the usage client-auth. webpki accepts a certificate that names no usage, and can demand
/// one only of the whole chain, where intermediates commonly name none. So this validates the certificate alone.
fn names_client_auth(leaf: &EndEntityCert<'_>, now: UnixTime) -> bool {
    struct Usages(Cell<bool>);
    impl ExtendedKeyUsageValidator for &Usages {
        fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
            for usage in usages {
                if usage?.to_decoded_oid() == KeyUsage::CLIENT_AUTH_REPR {
                    self.0.set(true);
                }
            }
            Ok(())
        }
    }
    let usages = Usages(Cell::new(false));
    // Without a root this fails, but only after the validator was called for the certificate itself.
    let _ = leaf.verify_for_usage(&[], &[], &[], now, &usages, None, None);
    usages.0.get()
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refuse = |why| {
            let why = std::io::Error::other(format!("{why}; {}", identity_of(leaf)));
            CertificateError::Other(OtherError(Arc::new(why)))
        };
        self.verify(leaf, intermediates, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
