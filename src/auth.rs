//! Who may do what: sources submit with a token for their hosts, and readers may need a password.
//!
//! A token says which hosts its bearer speaks for. A source with a certificate that chains to the receiver's `--trust`
//! gets one for the names in it (RFC 8705 is the model); `lizm token` makes one for those without. Every way in asks
//! [`Authorizer::admit`] who speaks, and [`Principal::check`] for each host it speaks of.

#[cfg(feature = "tls")]
mod certificate;
mod client;
#[cfg(feature = "tls")]
mod password;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod token;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "tls")]
pub use certificate::{client_verifier, source_of};
pub use client::with_tls;
#[cfg(feature = "tls")]
pub use password::{Password, basic};
#[cfg(feature = "tls")]
pub(crate) use pem::{certificates, private_key, sentence};
#[cfg(feature = "tls")]
pub use token::{IssuedToken, Keys, TOKEN_BYTES_MAX, Tokens};

/// What to do about trust that this program was built without.
pub const WITHOUT_TLS: &str = "this lizm was built without the feature tls; cargo build --release has it";

/// What a datagram or a message with a token begins with; the token ends with its line.
pub const TOKEN_LINE: &str = "Authorization: Bearer ";

/// The challenge to who shows a good token for other hosts (RFC 6750, 3.1).
pub const OTHER_HOST: &str = "Bearer realm=\"lizm\", error=\"insufficient_scope\"";

/// Seconds between two lines of the log on what was not trusted: an attacker gets no more of the disk.
const TELL_EVERY_SEC: u64 = 10;

/// What a receiver is told of trust on its command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file of the keys that sign and verify tokens; with it a token is needed to submit and to remove.
    pub token_key: Option<PathBuf>,
    /// How long tokens are valid that are given to the owners of certificates.
    pub token_valid: Duration,
    /// The file of the password that readers need.
    pub read_password: Option<PathBuf>,
}

/// A source of samples, as its token or certificate names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The hosts it speaks for; `*.` at the beginning of one stands for a single label.
    pub hosts: Vec<String>,
    /// The SHA-256 of its certificate, as `sha256:` and hexadecimal digits.
    pub fingerprint: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject {:?}", self.hosts.first().map_or("", String::as_str))?;
        match &self.fingerprint {
            Some(fingerprint) => write!(f, ", certificate {fingerprint}"),
            None => f.write_str(", without a certificate"),
        }
    }
}

/// Who submits.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Anybody, where no token is needed.
    Anyone,
    /// The bearer of a valid token.
    Identity(Arc<Identity>),
}

impl Principal {
    /// Whether it may submit to `host` and remove it. Names are compared byte for byte, as the store does.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, host: &str) -> Result<(), AuthError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Identity(source) if source.hosts.iter().any(|pattern| covers(pattern, host)) => Ok(()),
            Self::Identity(source) => Err(AuthError::OtherHost { host: host.to_owned(), source: source.clone() }),
        }
    }
}

/// Whether a host of a token covers `host`. A wildcard stands for one label of letters, digits, `-` and `_`, as in a
/// certificate (RFC 9525, 6.3).
fn covers(pattern: &str, host: &str) -> bool {
    let Some(parent) = pattern.strip_prefix("*.") else { return pattern == host };
    host.split_once('.').is_some_and(|(label, rest)| {
        rest == parent && !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    })
}

/// Why somebody may not do what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// A token is needed, and there is none.
    NoToken,
    /// What came as a token is none that a key known here has signed.
    BadToken(&'static str),
    /// The token was good once.
    Expired {
        /// How long ago, in seconds.
        ago_sec: u64,
        /// Whose it was.
        source: Arc<Identity>,
    },
    /// The token is good, for other hosts.
    OtherHost {
        /// The host asked for.
        host: String,
        /// Whose it is.
        source: Arc<Identity>,
    },
}

impl AuthError {
    /// The HTTP status, and the header `WWW-Authenticate` that goes with it (RFC 6750, 3).
    #[must_use]
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Self::NoToken => (401, "Bearer realm=\"lizm\""),
            Self::BadToken(_) | Self::Expired { .. } => (401, "Bearer realm=\"lizm\", error=\"invalid_token\""),
            Self::OtherHost { .. } => (403, OTHER_HOST),
        }
    }

    fn source(&self) -> Option<&Identity> {
        match self {
            Self::NoToken | Self::BadToken(_) => None,
            Self::Expired { source, .. } | Self::OtherHost { source, .. } => Some(source),
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("token: missing; 'Authorization: Bearer TOKEN' is needed here"),
            Self::BadToken(why) => write!(f, "token: {why}"),
            Self::Expired { ago_sec, .. } => write!(f, "token: expired {ago_sec} seconds ago"),
            Self::OtherHost { host, source } => {
                write!(f, "token: not for host {host:?}; it is for {}", source.hosts.join(", "))
            }
        }
    }
}

/// What stands before submitting and removing.
pub struct Authorizer {
    rule: Rule,
    told: Mutex<Told>,
}

enum Rule {
    Open,
    #[cfg(feature = "tls")]
    Tokens(Tokens),
}

/// What the log was told of what was not trusted.
#[derive(Default)]
struct Told {
    at: Option<u64>,
    passed_over: u64,
}

impl Authorizer {
    /// A gate that lets anybody through.
    #[must_use]
    pub fn wide_open() -> Self {
        Self { rule: Rule::Open, told: Mutex::default() }
    }

    /// The gate that `options` ask for.
    ///
    /// # Errors
    /// When the keys cannot be read or made; the sentence names their file.
    pub fn open(options: &Options) -> Result<Self, String> {
        match &options.token_key {
            None => Ok(Self::wide_open()),
            #[cfg(not(feature = "tls"))]
            Some(_) => Err(WITHOUT_TLS.to_owned()),
            #[cfg(feature = "tls")]
            Some(file) => {
                let tokens = Tokens::open(file, options.token_valid)?;
                Ok(Self { rule: Rule::Tokens(tokens), told: Mutex::default() })
            }
        }
    }

    /// Whether no token is needed.
    #[must_use]
    pub fn lets_anyone_in(&self) -> bool {
        matches!(self.rule, Rule::Open)
    }

    /// What should be known of the file of its keys, if anything.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        match &self.rule {
            Rule::Open => None,
            #[cfg(feature = "tls")]
            Rule::Tokens(tokens) => tokens.note(),
        }
    }

    /// What issues tokens, where they are needed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tokens(&self) -> Option<&Tokens> {
        match &self.rule {
            Rule::Open => None,
            Rule::Tokens(tokens) => Some(tokens),
        }
    }

    /// Finds who speaks, by the token that came with what is said.
    ///
    /// # Errors
    /// When a token is needed, and this is none that is valid at `now`.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without tokens anybody gets through"))]
    pub fn admit(&self, token: Option<&str>, now: u64) -> Result<Principal, AuthError> {
        match &self.rule {
            Rule::Open => Ok(Principal::Anyone),
            #[cfg(feature = "tls")]
            Rule::Tokens(tokens) => {
                tokens.check(token.ok_or(AuthError::NoToken)?, now).map(|source| Principal::Identity(Arc::new(source)))
            }
        }
    }

    /// Says in the log what was refused and to whom, now and then.
    pub fn tell(&self, refusal: &AuthError, now: u64) {
        let source = refusal.source().map_or("subject not known".to_owned(), Identity::to_string);
        self.tell_of(&format!("{refusal}; {source}"), now);
    }

    /// Says in the log what was not trusted, now and then.
    pub fn tell_of(&self, what: &str, now: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now.abs_diff(at) < TELL_EVERY_SEC) {
            told.passed_over += 1;
            return;
        }
        let passed_over = std::mem::take(&mut told.passed_over);
        told.at = Some(now);
        drop(told);
        let others =
            if passed_over > 0 { format!(" ({passed_over} more since the last such line)") } else { String::new() };
        log::warn!("Not trusted: {what}{others}");
    }
}

/// Who may read.
pub enum ReadAccess {
    /// Anybody.
    Anyone,
    /// Who knows the password.
    #[cfg(feature = "tls")]
    WithPassword(Password),
}

impl ReadAccess {
    /// Those that `options` let in.
    ///
    /// # Errors
    /// When the password cannot be read; the sentence names its file.
    pub fn of(options: &Options) -> Result<Self, String> {
        match &options.read_password {
            None => Ok(Self::Anyone),
            #[cfg(not(feature = "tls"))]
            Some(_) => Err(WITHOUT_TLS.to_owned()),
            #[cfg(feature = "tls")]
            Some(file) => Password::open(file).map(Self::WithPassword),
        }
    }

    /// Whether a request with this header `Authorization` may read.
    #[must_use]
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without passwords anybody may"))]
    pub fn admit(&self, authorization: Option<&str>) -> bool {
        match self {
            Self::Anyone => true,
            #[cfg(feature = "tls")]
            Self::WithPassword(password) => authorization.is_some_and(|given| password.is_in(given)),
        }
    }
}

/// What a reader sends in the header `Authorization`, with the password in `file`.
///
/// # Errors
/// In this build there are no passwords.
#[cfg(not(feature = "tls"))]
pub fn basic(_: &std::path::Path) -> Result<String, String> {
    Err(WITHOUT_TLS.to_owned())
}

/// The token in a header `Authorization`, if it is of the scheme Bearer (RFC 6750, 2.1).
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Parts a datagram or a message into the token that it may begin with and its lines.
#[must_use]
pub fn split_token(text: &[u8]) -> (Option<&str>, &[u8]) {
    let Some(rest) = text.strip_prefix(TOKEN_LINE.as_bytes()) else { return (None, text) };
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    // What is not UTF-8 is no token of ours, and refused as such.
    let token = std::str::from_utf8(&rest[..end]).unwrap_or_default().trim_end();
    (Some(token), rest.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label_and_nothing_else() {
        let covered =
            [("jarvis", "jarvis"), ("*.example.org", "a.example.org"), ("*.example.org", "A_1-b.example.org")];
        for (pattern, host) in covered {
            assert!(covers(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [
            ("jarvis", "JARVIS"),
            ("jarvis", "jarvis."),
            ("jarvis", "jarvis "),
            ("jarvis", "jarvi%73"),
            ("*.example.org", "example.org"),
            ("*.example.org", ".example.org"),
            ("*.example.org", "a.b.example.org"),
            ("*.example.org", "*.example.org"),
            ("*.example.org", "a.EXAMPLE.org"),
            ("*.example.org", "a.example.org."),
            ("*.example.org", "ä.example.org"),
            ("*.example.org", "a.example.orgs"),
            ("*", "a"),
            ("a.*.org", "a.b.org"),
        ] {
            assert!(!covers(pattern, host), "{pattern} {host}");
        }
    }

    #[test]
    fn a_token_is_a_line_before_the_others() {
        assert_eq!(split_token(b"perf,host=a cpu=1"), (None, &b"perf,host=a cpu=1"[..]));
        assert_eq!(split_token(b"Authorization: Bearer t\r\nperf"), (Some("t"), &b"perf"[..]));
        assert_eq!(split_token(b"Authorization: Bearer t"), (Some("t"), &b""[..]));
        assert_eq!(split_token(b"Authorization: Bearer \xff\nperf"), (Some(""), &b"perf"[..]));
        assert_eq!((bearer("bearer  t "), bearer("Basic t"), bearer("Bearer")), (Some("t"), None, None));
    }
}
