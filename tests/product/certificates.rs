//! Authorities, certificates and tokens made for a test, a receiver that trusts them, and a TLS client that can send
//! anything.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    NameConstraints, SanType, date_time_ymd,
};
use ring::hmac;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};

use crate::harness::{Answer, PATIENCE, Process, Served, connect, lizm, now};

/// The keys of tokens that receivers of the tests have, and another's.
pub(crate) const KEY: &str = "the receiver's key, of more than thirty-two bytes";
pub(crate) const OTHER_KEY: &str = "another's key, of more than thirty-two bytes too";
/// The header that every token has.
pub(crate) const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// What a certificate is to say.
pub(crate) struct Wanted {
    pub(crate) names: Vec<&'static str>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    /// From and until when it is valid, in seconds since the Unix epoch.
    pub(crate) valid: (u64, u64),
}

impl Wanted {
    /// A good certificate of a client.
    pub(crate) fn client(names: &[&'static str]) -> Self {
        let valid = (now() - 3600, now() + 3600);
        Self { names: names.to_vec(), usages: vec![ExtendedKeyUsagePurpose::ClientAuth], valid }
    }
}

/// Whoever signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

/// Somebody's certificate and its key, and what else is sent with it.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    key: Arc<KeyPair>,
}

/// What a certificate for some names says; a name that begins with `lizm:` is a URI.
fn named(name: &str, names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with("lizm:"));
    let mut params = CertificateParams::new(names.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
    params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        let pem = certificate.pem();
        Self { certificate: certificate.into(), pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.sign_authority(Self::params(name))
    }

    /// An intermediate that may sign for names below `domain` alone.
    pub(crate) fn intermediate_for(&self, name: &str, domain: &str) -> Self {
        let mut params = Self::params(name);
        let permitted_subtrees = vec![GeneralSubtree::DnsName(domain.to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        self.sign_authority(params)
    }

    fn sign_authority(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pem = certificate.pem();
        Self { certificate: certificate.into(), pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, wanted: &Wanted) -> Identity {
        let mut params = named(wanted.names.first().unwrap_or(&"nameless"), &wanted.names);
        params.extended_key_usages.clone_from(&wanted.usages);
        let at = |sec| date_time_ymd(1970, 1, 1) + Duration::from_secs(sec);
        (params.not_before, params.not_after) = (at(wanted.valid.0), at(wanted.valid.1));
        self.sign_params(&params)
    }

    fn sign_params(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            pem: certificate.pem(),
            chain: vec![certificate.into()],
            key_pem: key.serialize_pem(),
            key: Arc::new(key),
        }
    }

    /// A client's certificate that says it is an authority too.
    pub(crate) fn sign_authority_as_client(&self, name: &'static str) -> Identity {
        let mut params = named(name, &[name]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.sign_params(&params)
    }

    /// A certificate for the loopback address, as a receiver has.
    pub(crate) fn sign_receiver(&self) -> Identity {
        self.sign(&Wanted {
            names: vec!["localhost", "127.0.0.1"],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            ..Wanted::client(&[])
        })
    }
}

impl Identity {
    /// The same, with an intermediate sent after it.
    pub(crate) fn and(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.certificate.clone());
        self.pem += &authority.pem;
        self
    }

    /// The same, with another's certificate sent as if it were an authority's.
    pub(crate) fn with_chain_of(mut self, other: &Self) -> Self {
        self.chain.extend_from_slice(&other.chain);
        self
    }

    /// The same certificate with a key that is not its own.
    pub(crate) fn with_key_of(mut self, other: &Self) -> Self {
        (self.key, self.key_pem) = (other.key.clone(), other.key_pem.clone());
        self
    }
}

/// A token under `key`, of any header and claims.
pub(crate) fn token_of(key: &str, header: &str, claims: &Value) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A good token for hosts.
pub(crate) fn token(hosts: &[&str]) -> String {
    token_of(KEY, HS256, &claims(hosts, now() + 300))
}

/// The header with a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub(crate) fn request(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

pub(crate) fn claims(hosts: &[&str], exp: u64) -> Value {
    json!({ "sub": hosts.first(), "hosts": hosts, "iat": now(), "exp": exp })
}

/// An authority, the receiver's certificate and the files of both, for the time of a test.
pub(crate) struct Trust {
    pub(crate) root: Authority,
    pub(crate) directory: tempfile::TempDir,
}

impl Trust {
    pub(crate) fn new() -> Self {
        let (root, directory) = (Authority::root("root"), tempfile::tempdir().unwrap());
        let trust = Self { root, directory };
        trust.write("ca.pem", &trust.root.pem);
        trust.write("token.key", KEY);
        trust.write_identity("receiver", &trust.root.sign_receiver());
        trust
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file of the directory at once.
    pub(crate) fn write(&self, name: &str, content: &str) {
        crate::harness::replace(&self.path(name), content);
    }

    /// Writes NAME.pem and NAME.key.
    pub(crate) fn write_identity(&self, name: &str, identity: &Identity) {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(certificate, &identity.pem).unwrap();
        std::fs::write(key, &identity.key_pem).unwrap();
    }

    /// Starts a receiver with both doors, that trusts the authority and needs tokens.
    pub(crate) fn receiver(&self, more: &[&str]) -> Secured {
        let (trust, key) = (self.text("ca.pem"), self.text("token.key"));
        self.open_receiver(&[&["--trust", &trust, "--token-key", &key], more].concat())
    }

    /// Starts a receiver with both doors, and no more trust than `more` says.
    pub(crate) fn open_receiver(&self, more: &[&str]) -> Secured {
        let (certificate, key) = (self.text("receiver.pem"), self.text("receiver.key"));
        let arguments = ["--tls-port", "0", "--tls-cert", &certificate, "--tls-key", &key];
        let served = Served::start(&[&arguments[..], more].concat());
        let line = served.process.line_with("INFO: Receiver is listening on https://");
        let https = line.rsplit("://").next().unwrap().parse().unwrap();
        let client = Client::new(&self.root, None);
        Secured { served, https, client }
    }

    /// Starts a monitor with a certificate.
    pub(crate) fn monitor(&self, identity: &str, arguments: &[&str]) -> Process {
        let [ca, certificate, key] =
            ["ca.pem", &format!("{identity}.pem"), &format!("{identity}.key")].map(|name| self.text(name));
        let own = ["monitor", "--probes", "cpu,mem", "--ca", &ca, "--cert", &certificate, "--key", &key];
        Process::start(lizm(&[&own[..], arguments].concat()))
    }
}

/// A running receiver that serves HTTPS.
pub(crate) struct Secured {
    pub(crate) served: Served,
    pub(crate) https: SocketAddr,
    /// One without a certificate.
    pub(crate) client: Client,
}

impl Secured {
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    /// Connects as a client without a certificate.
    pub(crate) fn connect(&self) -> Tls {
        self.client.connect(self.https).unwrap()
    }

    /// Sends bytes over a new connection without a certificate and reads one answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    }
}

/// A TLS connection of a client.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What connects by TLS.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    /// One that trusts `root`, and shows a certificate if it has one, whether its key fits it or not.
    pub(crate) fn new(root: &Authority, own: Option<&Identity>) -> Self {
        Self::of_versions(root, own, rustls::ALL_VERSIONS)
    }

    pub(crate) fn of_versions(
        root: &Authority,
        own: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(root.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        Self(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).unwrap();
                let key = provider.key_provider.load_private_key(key).unwrap();
                let own = CertifiedKey::new(own.chain.clone(), key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        }))
    }

    /// Connects, and does its part of the handshake.
    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Tls> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(self.0.clone(), name).unwrap();
        let mut stream = connect(address);
        stream.set_write_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}
