//! Client certificates: which are trusted, and what they name.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{
    Cert, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, VerifiedPath, anchor_from_trusted_cert,
};

use super::identity::Identity;
use super::pem;
use super::x509::Facts;
use crate::url;

/// The scheme of a URI that names a host which DNS cannot name, such as `lizm:web.1` or `lizm:my%20host`.
const HOST_SCHEME: &str = "lizm:";

/// The identity that the first of the verified certificates of a client names (subjectAltName, RFC 5280, 4.2.1.6): its
/// DNS names, wildcards too, and the hosts of its `lizm:` URIs, percent-decoded. It ends when the first certificate of
/// its chain does.
#[must_use]
pub fn identity_of(certificates: &[CertificateDer<'_>]) -> Option<Identity> {
    let certificate = certificates.first()?;
    let mut fingerprint = "sha256:".to_owned();
    digest(&SHA256, certificate).as_ref().iter().for_each(|byte| fingerprint += &format!("{byte:02x}"));
    let hosts = EndEntityCert::try_from(certificate).map_or(Vec::new(), |parsed| {
        let of_uris = uri_hosts(&parsed).filter_map(|host| Some(url::decode(host).ok()?.into_owned()));
        parsed.valid_dns_names().map(str::to_owned).chain(of_uris).collect()
    });
    Some(Identity { hosts, fingerprint: Some(fingerprint), expires_at: chain_end(certificates), ..Identity::default() })
}

/// When the first certificate of a file of PEM ends, in Unix seconds.
///
/// # Errors
/// When it cannot be read; the sentence names the file.
pub fn certificate_end(file: &Path) -> Result<u64, String> {
    let certificates = pem::certificates("certificate", file)?;
    let end = certificates.first().and_then(|certificate| Some(Facts::of(certificate)?.not_after));
    end.ok_or_else(|| format!("certificate {}: has no end", file.display()))
}

/// When the first certificate of a chain ends, in Unix seconds: of the leaf, its issuer and so on, as far as the client
/// has sent them. A client may send more than its chain; what is not in it does not count.
fn chain_end(certificates: &[CertificateDer<'_>]) -> Option<u64> {
    let (leaf, sent) = certificates.split_first()?;
    let (mut link, mut end) = (leaf, Facts::of(leaf)?.not_after);
    let mut rest: Vec<_> = sent.iter().collect();
    while let Some(next) = rest.iter().position(|authority| has_issued(authority, link)) {
        link = rest.swap_remove(next);
        end = end.min(Facts::of(link)?.not_after);
    }
    Some(end)
}

/// Whether the subject of an authority is the issuer of a certificate.
fn has_issued(authority: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    match (EndEntityCert::try_from(authority), EndEntityCert::try_from(certificate)) {
        (Ok(authority), Ok(certificate)) => authority.subject() == certificate.issuer(),
        _ => false,
    }
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
    let mut verifier = Verifier {
        roots: Vec::new(),
        root_facts: Vec::new(),
        intermediates: Vec::new(),
        subjects: Vec::new(),
        algorithms,
    };
    for (certificate, number) in certificates.into_iter().zip(1..) {
        let wrong = |error| format!("certificate {number}: {error}");
        let parsed = EndEntityCert::try_from(&certificate).map_err(wrong)?;
        verifier.subjects.push(DistinguishedName::in_sequence(parsed.subject()));
        if parsed.subject() == parsed.issuer() {
            verifier.roots.push(anchor_from_trusted_cert(&certificate).map_err(wrong)?.to_owned());
            verifier.root_facts.push(Facts::of(&certificate).ok_or(webpki::Error::BadDer).map_err(wrong)?);
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
    /// The facts of each of the roots, of which webpki looks at the name and the key alone.
    root_facts: Vec<Facts>,
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
        let check = |path: &VerifiedPath<'_>| self.check_authorities(path, now);
        let path = leaf.verify_for_usage(algorithms, &self.roots, &intermediates, now, usage, None, Some(&check));
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

    /// Checks what webpki does not: that the root of a chain is valid and allows for its length, and that the authorities
    /// may sign certificates.
    fn check_authorities(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let place =
            self.roots.iter().position(|root| std::ptr::eq(root, path.anchor())).ok_or(webpki::Error::UnknownIssuer)?;
        let root = &self.root_facts[place];
        let at = |sec| UnixTime::since_unix_epoch(Duration::from_secs(sec));
        if now > at(root.not_after) {
            return Err(webpki::Error::CertExpired { time: now, not_after: at(root.not_after) });
        }
        if now < at(root.not_before) {
            return Err(webpki::Error::CertNotValidYet { time: now, not_before: at(root.not_before) });
        }
        if root.path_len.is_some_and(|most| path.intermediate_certificates().count() > most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        let may_sign = |certificate: &Cert<'_>| Facts::of(&certificate.der()).is_some_and(|facts| facts.may_sign);
        if root.may_sign && path.intermediate_certificates().all(may_sign) {
            return Ok(());
        }
        Err(webpki::Error::EndEntityUsedAsCa)
    }
}

const OTHER_USAGE: &str = "certificate: it does not name the usage client-auth";

/// The sentence for people about a certificate that was refused.
fn sentence(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnknownIssuer => "certificate: no chain leads from it to a root of --trust".to_owned(),
        webpki::Error::CertExpired { .. } => "certificate: it, or one of its chain, has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "certificate: it, or one of its chain, is not valid yet".to_owned(),
        webpki::Error::PathLenConstraintViolated => {
            "certificate: its chain is longer than one of its authorities allows".to_owned()
        }
        webpki::Error::EndEntityUsedAsCa => {
            "certificate: one of its chain may not sign certificates, by its key usage or basic constraints".to_owned()
        }
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
            let why = std::io::Error::other(format!(
                "{why}; {}",
                identity_of(std::slice::from_ref(leaf)).unwrap_or_default()
            ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

    type Authority = (CertificateDer<'static>, Issuer<'static, KeyPair>);

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root(params: CertificateParams) -> Authority {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().into(), Issuer::new(params, key))
    }

    fn intermediate(params: CertificateParams, (_, issuer): &Authority) -> Authority {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, issuer).unwrap().into(), Issuer::new(params, key))
    }

    fn client((_, issuer): &Authority) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["jarvis".to_owned()]).unwrap();
        params.extended_key_usages.push(ClientAuth);
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().into()
    }

    #[test]
    fn authorities_sign_for_as_long_and_as_deep_as_they_may() {
        let mut expired = params("expired");
        (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        let mut future = params("future");
        (future.not_before, future.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
        let mut flat = params("flat");
        flat.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let mut crl_signer = params("crl-signer");
        crl_signer.key_usages = vec![KeyUsagePurpose::CrlSign];
        let (good, expired, future, flat) = (root(params("good")), root(expired), root(future), root(flat));
        let mut silent = params("silent");
        silent.key_usages = vec![KeyUsagePurpose::CrlSign];
        let silent_root = root(silent);
        let (first, crl_signer) = (intermediate(params("first"), &flat), intermediate(crl_signer, &good));
        let second = intermediate(params("second"), &first);
        let roots = [&good, &expired, &future, &flat, &silent_root].map(|(certificate, _)| certificate.clone());
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let verifier = client_verifier(roots.into(), algorithms).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_795_440_000));
        for (what, leaf, chain, expected) in [
            ("good", client(&good), vec![], None),
            ("one intermediate", client(&first), vec![first.0.clone()], None),
            ("an expired root", client(&expired), vec![], Some("has expired")),
            ("a root of later", client(&future), vec![], Some("not valid yet")),
            ("two intermediates", client(&second), vec![first.0.clone(), second.0.clone()], Some("is longer than")),
            ("a signer of lists", client(&crl_signer), vec![crl_signer.0.clone()], Some("may not sign certificates")),
            ("a root of lists", client(&silent_root), vec![], Some("may not sign certificates")),
        ] {
            let refused = verifier.verify_client_cert(&leaf, &chain, now).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(refused, None, "{what}"),
                Some(part) => assert!(refused.as_ref().is_some_and(|why| why.contains(part)), "{what}: {refused:?}"),
            }
        }
    }
    #[test]
    fn an_identity_ends_with_the_first_certificate_of_its_chain() {
        let until = |year| {
            let mut params = params(&format!("until-{year}"));
            params.not_after = date_time_ymd(year, 1, 1);
            params
        };
        let end = |chain: &[&CertificateDer<'static>]| {
            let chain: Vec<_> = chain.iter().map(|certificate| (*certificate).clone()).collect();
            identity_of(&chain).and_then(|identity| identity.expires_at)
        };
        let (top, other) = (root(until(2050)), root(until(2031)));
        let first = intermediate(until(2040), &top);
        let second = intermediate(until(2045), &first);
        let leaf = client(&second);
        let [in_2031, in_2040, in_2045] = [1_924_992_000, 2_208_988_800, 2_366_841_600];
        assert_eq!(end(&[&leaf, &second.0]), Some(in_2045), "what was not sent does not count");
        assert_eq!(end(&[&leaf, &first.0, &second.0]), Some(in_2040), "in any order");
        assert_eq!(end(&[&leaf, &second.0, &first.0, &top.0]), Some(in_2040), "a root that was sent too");
        assert_eq!(end(&[&leaf, &second.0, &other.0]), Some(in_2045), "one of another chain does not count");
        assert_eq!(end(&[&other.0]), Some(in_2031));
        assert_eq!(end(&[]), None);
    }
}
