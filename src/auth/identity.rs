//! Who submits, and why somebody may not.

use std::fmt;
use std::sync::Arc;

/// The challenge to who shows a good token for other hosts (RFC 6750, 3.1).
const INSUFFICIENT_SCOPE: &str = "Bearer realm=\"lizm\", error=\"insufficient_scope\"";

/// The owner of a token or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The hosts it may submit for and remove; `*.` at the beginning of one stands for a single label.
    pub hosts: Vec<String>,
    /// Whether it may remove any host.
    pub is_operator: bool,
    /// The SHA-256 of its certificate, as `sha256:` and hexadecimal digits.
    pub fingerprint: Option<String>,
    /// When the token or the certificate ends, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// When the token was made, in seconds since the Unix epoch.
    pub issued_at: u64,
    /// Of a join token: the hosts that may join with it, as in `hosts`; none stands for all. It is good for nothing else.
    pub join: Option<Vec<String>>,
    /// Whether the token was given for a join token, so that it is renewed.
    pub has_joined: bool,
}

impl Identity {
    /// Its name in the log: the first of its hosts.
    #[must_use]
    pub fn subject(&self) -> &str {
        let other = match (self.is_operator, &self.join) {
            (true, _) => "operator",
            (false, Some(_)) => "join",
            (false, None) => "",
        };
        self.hosts.first().map_or(other, String::as_str)
    }

    /// Whether `host` may join with this token.
    #[must_use]
    pub fn lets_join(&self, host: &str) -> bool {
        self.join.as_ref().is_some_and(|hosts| hosts.is_empty() || hosts.iter().any(|pattern| covers(pattern, host)))
    }

    fn covers(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| covers(pattern, host))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject {:?}", self.subject())?;
        match &self.fingerprint {
            Some(fingerprint) => write!(f, ", certificate {fingerprint}"),
            None => f.write_str(", without a certificate"),
        }
    }
}

/// Who makes a request, or sends a message.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Anybody, where no token is needed.
    Anyone,
    /// The bearer of a token.
    Identity(Arc<Identity>),
}

impl Principal {
    /// Whether it may submit samples of `host` at `now`. Names are compared byte for byte, as the store does.
    ///
    /// # Errors
    /// When it may not.
    pub fn authorize(&self, host: &str, now: u64) -> Result<(), AuthError> {
        self.check(host, now, |identity| identity.covers(host))
    }

    /// Whether it may remove `host` at `now`.
    ///
    /// # Errors
    /// When it may not.
    pub fn authorize_removal(&self, host: &str, now: u64) -> Result<(), AuthError> {
        self.check(host, now, |identity| identity.is_operator || identity.covers(host))
    }

    /// A token that was valid when the request came may have expired since.
    fn check(&self, host: &str, now: u64, may: impl Fn(&Identity) -> bool) -> Result<(), AuthError> {
        let Self::Identity(identity) = self else { return Ok(()) };
        match identity.expires_at {
            Some(end) if now >= end => Err(AuthError::Expired { ago_sec: now - end, identity: identity.clone() }),
            _ if may(identity) => Ok(()),
            _ => Err(AuthError::OtherHost { host: host.to_owned(), identity: identity.clone() }),
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
    /// The token was not signed by a key of this receiver.
    BadToken(&'static str),
    /// The token was good once.
    Expired {
        /// How long ago, in seconds.
        ago_sec: u64,
        /// Whose it was.
        identity: Arc<Identity>,
    },
    /// The token is good, for other hosts.
    OtherHost {
        /// The host asked for.
        host: String,
        /// Whose it is.
        identity: Arc<Identity>,
    },
    /// The host was shut out after the token was made.
    ShutOut {
        /// The host asked for.
        host: String,
        /// Whose it is.
        identity: Arc<Identity>,
    },
}

impl AuthError {
    /// The HTTP status, and the header `WWW-Authenticate` that goes with it (RFC 6750, 3).
    #[must_use]
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Self::NoToken => (401, "Bearer realm=\"lizm\""),
            Self::BadToken(_) | Self::Expired { .. } | Self::ShutOut { .. } => {
                (401, "Bearer realm=\"lizm\", error=\"invalid_token\"")
            }
            Self::OtherHost { .. } => (403, INSUFFICIENT_SCOPE),
        }
    }

    /// Whose token it was, where that is known.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::NoToken | Self::BadToken(_) => None,
            Self::Expired { identity, .. } | Self::OtherHost { identity, .. } | Self::ShutOut { identity, .. } => {
                Some(identity)
            }
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("token: missing; 'Authorization: Bearer TOKEN' is needed here"),
            Self::BadToken(why) => write!(f, "token: {why}"),
            Self::Expired { ago_sec, .. } => write!(f, "token: expired {ago_sec} seconds ago"),
            Self::OtherHost { identity, .. } if identity.join.is_some() => {
                f.write_str("token: one to join with, which takes no samples; 'lizm monitor --join' exchanges it")
            }
            Self::OtherHost { host, identity } if identity.hosts.is_empty() => {
                write!(f, "token: not for host {host:?}; it is for no host")
            }
            Self::OtherHost { host, identity } => {
                write!(f, "token: not for host {host:?}; it is for {}", identity.hosts.join(", "))
            }
            Self::ShutOut { host, .. } => write!(f, "token: host {host:?} was shut out after it was made"),
        }
    }
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
    fn a_token_is_checked_for_its_end_each_time_it_is_used() {
        let identity = Identity { hosts: vec!["jarvis".into()], expires_at: Some(1000), ..Identity::default() };
        let principal = Principal::Identity(Arc::new(identity));
        assert_eq!(principal.authorize("jarvis", 999), Ok(()));
        for expired in [principal.authorize("jarvis", 1000), principal.authorize_removal("jarvis", 1000)] {
            assert_eq!(expired.unwrap_err().to_string(), "token: expired 0 seconds ago");
        }
    }

    #[test]
    fn an_operator_removes_any_host_and_submits_for_none() {
        let operator = Principal::Identity(Arc::new(Identity { is_operator: true, ..Identity::default() }));
        assert_eq!(operator.authorize_removal("jarvis", 1000), Ok(()));
        let refused = operator.authorize("jarvis", 1000).unwrap_err();
        assert_eq!(refused.to_string(), "token: not for host \"jarvis\"; it is for no host");
    }
}
