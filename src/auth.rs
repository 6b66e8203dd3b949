//! Who may do what: monitors submit with a token for their hosts, and readers may need a password.
//!
//! A token names the hosts that its bearer may submit for. A monitor with a certificate that chains to the receiver's
//! `--trust` gets a token for the names in it (RFC 8705 is the model); `lizm token` makes one for those without. Every
//! server and listener asks [`Authorizer::authenticate`] who sends, and [`Principal::authorize`] for each host.

#[cfg(feature = "tls")]
mod certificate;
mod client;
#[cfg(feature = "tls")]
mod guesses;
mod identity;
#[cfg(feature = "tls")]
mod last_token;
#[cfg(feature = "tls")]
mod password;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod token;
#[cfg(feature = "tls")]
mod x509;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "tls")]
pub use certificate::{certificate_end, client_verifier, identity_of};
pub use client::{check_token, read_token, with_tls};
#[cfg(feature = "tls")]
use guesses::GuessLimiter;
pub use identity::{AuthError, Identity, Principal};
#[cfg(feature = "tls")]
pub use last_token::LastToken;
#[cfg(feature = "tls")]
pub use password::{Password, basic};
#[cfg(feature = "tls")]
pub(crate) use pem::{certificates, private_key, sentence};
#[cfg(feature = "tls")]
pub use token::{IssuedToken, Keys, TOKEN_BYTES_MAX, Tokens, check_token_host, digest};

/// What a datagram or a message with a token begins with. The token ends with the line.
pub const TOKEN_LINE: &str = "Authorization: Bearer ";

/// Seconds between two lines of the log about refused requests, so that an attacker cannot fill the disk.
const LOG_EVERY_SEC: u64 = 10;

/// In this build there are no tokens.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Default)]
pub struct LastToken();

/// Who may submit and who may read, as the command line says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file of the keys that sign and verify tokens; with it a token is needed to submit and to remove.
    pub token_key: Option<PathBuf>,
    /// How long a token is valid that the owner of a certificate is given.
    pub token_valid: Duration,
    /// The file of the password that readers need.
    pub read_password: Option<PathBuf>,
    /// Names that browsers may use for this receiver besides its addresses and the name of its machine.
    pub allowed_hosts: Vec<String>,
}

/// Decides who may submit and remove.
pub struct Authorizer {
    rule: Rule,
    log_limit: Mutex<LogLimit>,
}

enum Rule {
    AllowAll,
    #[cfg(feature = "tls")]
    Tokens(Tokens),
}

/// When the log last had a line about refused requests, and how many were left out since.
#[derive(Default)]
struct LogLimit {
    at: Option<u64>,
    left_out: u64,
}

impl Authorizer {
    /// An authorizer that needs no token.
    #[must_use]
    pub fn allow_all() -> Self {
        Self { rule: Rule::AllowAll, log_limit: Mutex::default() }
    }

    /// The authorizer that `options` ask for.
    ///
    /// # Errors
    /// When the keys cannot be read or made; the sentence names their file.
    pub fn from_options(options: &Options) -> Result<Self, String> {
        match &options.token_key {
            None => Ok(Self::allow_all()),
            #[cfg(not(feature = "tls"))]
            Some(_) => Err(crate::features::WITHOUT_TLS.to_owned()),
            #[cfg(feature = "tls")]
            Some(file) => {
                let tokens = Tokens::open(file, options.token_valid)?;
                Ok(Self { rule: Rule::Tokens(tokens), log_limit: Mutex::default() })
            }
        }
    }

    /// Whether no token is needed.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        matches!(self.rule, Rule::AllowAll)
    }

    /// What the log should say about the file of keys at the start, if anything.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        match &self.rule {
            Rule::AllowAll => None,
            #[cfg(feature = "tls")]
            Rule::Tokens(tokens) => tokens.note(),
        }
    }

    /// The tokens, where they are needed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tokens(&self) -> Option<&Tokens> {
        match &self.rule {
            Rule::AllowAll => None,
            Rule::Tokens(tokens) => Some(tokens),
        }
    }

    /// Finds the principal by the token that came with a request or a message; `last` is the last one of its connection.
    ///
    /// # Errors
    /// When a token is needed, and this one is missing, or not valid at `now`.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without the feature there are no tokens"))]
    pub fn authenticate(&self, token: Option<&str>, last: &LastToken, now: u64) -> Result<Principal, AuthError> {
        match &self.rule {
            Rule::AllowAll => Ok(Principal::Anyone),
            #[cfg(feature = "tls")]
            Rule::Tokens(tokens) => {
                last.verify(token.ok_or(AuthError::NoToken)?, tokens.keys(), now).map(Principal::Identity)
            }
        }
    }

    /// Logs what was refused and to whom, at most once in some seconds.
    pub fn log(&self, error: &AuthError, now: u64) {
        let identity = error.identity().map_or("subject not known".to_owned(), Identity::to_string);
        self.log_refusal(&format!("{error}; {identity}"), now);
    }

    /// Logs a refusal, at most once in some seconds.
    pub fn log_refusal(&self, what: &str, now: u64) {
        let mut limit = self.log_limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.at.is_some_and(|at| now.abs_diff(at) < LOG_EVERY_SEC) {
            limit.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut limit.left_out);
        limit.at = Some(now);
        drop(limit);
        let others = if left_out > 0 { format!(" ({left_out} more since the last such line)") } else { String::new() };
        log::warn!("Not trusted: {what}{others}");
    }
}

/// Who may read.
pub enum ReadAccess {
    /// Anybody.
    Anyone,
    /// Who knows the password.
    #[cfg(feature = "tls")]
    WithPassword(PasswordAccess),
}

/// The password of readers, and who has guessed at it.
#[cfg(feature = "tls")]
pub struct PasswordAccess {
    password: Password,
    guesses: GuessLimiter,
}

/// Why somebody may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// There is no password in the request.
    NoPassword,
    /// It is not the password.
    WrongPassword,
    /// The address has sent too many wrong ones, and the password was not looked at.
    TooManyGuesses {
        /// After how many seconds it may try again.
        retry_after_sec: u64,
    },
}

impl ReadAccess {
    /// The access that `options` ask for.
    ///
    /// # Errors
    /// When the password cannot be read; the sentence names its file.
    pub fn from_options(options: &Options) -> Result<Self, String> {
        match &options.read_password {
            None => Ok(Self::Anyone),
            #[cfg(not(feature = "tls"))]
            Some(_) => Err(crate::features::WITHOUT_TLS.to_owned()),
            #[cfg(feature = "tls")]
            Some(file) => Ok(Self::WithPassword(PasswordAccess {
                password: Password::open(file)?,
                guesses: GuessLimiter::default(),
            })),
        }
    }

    /// Whether no password is needed.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        matches!(self, Self::Anyone)
    }

    /// Checks that a request with this header `Authorization` may read. Wrong passwords are limited by the address of the
    /// `client`, where it is known.
    ///
    /// # Errors
    /// When it may not.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without the feature there are no passwords"))]
    pub fn check(&self, authorization: Option<&str>, client: Option<IpAddr>, now: u64) -> Result<(), ReadError> {
        match self {
            Self::Anyone => Ok(()),
            #[cfg(feature = "tls")]
            Self::WithPassword(PasswordAccess { password, guesses }) => {
                let given = authorization.filter(|given| Password::is_given(given)).ok_or(ReadError::NoPassword)?;
                if client.is_some_and(|client| !guesses.begin(client, now)) {
                    return Err(ReadError::TooManyGuesses { retry_after_sec: guesses::GUESS_EVERY_SEC });
                }
                if !password.is_in(given) {
                    return Err(ReadError::WrongPassword);
                }
                client.iter().for_each(|client| guesses.forgive(*client));
                Ok(())
            }
        }
    }
}

/// What a reader sends in the header `Authorization`, with the password in `file`.
///
/// # Errors
/// In this build there are no passwords.
#[cfg(not(feature = "tls"))]
pub fn basic(_: &std::path::Path) -> Result<String, String> {
    Err(crate::features::WITHOUT_TLS.to_owned())
}

/// The token in a header `Authorization`, if it is of the scheme Bearer (RFC 6750, 2.1), or Token, which clients of
/// InfluxDB 2 send.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let is_known = ["Bearer", "Token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    is_known.then(|| token.trim())
}

/// Splits a datagram or a message into the token that it may begin with, and its lines.
#[must_use]
pub fn split_token(text: &[u8]) -> (Option<&str>, &[u8]) {
    let Some(rest) = text.strip_prefix(TOKEN_LINE.as_bytes()) else { return (None, text) };
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    // A token that is not UTF-8 becomes an empty one, which is refused.
    let token = std::str::from_utf8(&rest[..end]).unwrap_or_default().trim_end();
    (Some(token), rest.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "tls")]
    #[test]
    fn guesses_at_the_password_are_limited_by_address() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sesame\n").unwrap();
        let options = Options { read_password: Some(file.path().to_owned()), ..Options::default() };
        let access = ReadAccess::from_options(&options).unwrap();
        let (right, client) = (basic(file.path()).unwrap(), Some(IpAddr::from([192, 0, 2, 1])));
        for _ in 0..20 {
            assert_eq!(access.check(None, client, 0), Err(ReadError::NoPassword));
            assert_eq!(access.check(Some("Bearer x"), client, 0), Err(ReadError::NoPassword));
            assert_eq!(access.check(Some("Basic eDp5"), None, 0), Err(ReadError::WrongPassword));
            assert_eq!(access.check(Some(&right), client, 0), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(access.check(Some("Basic eDp5"), client, 0), Err(ReadError::WrongPassword));
        }
        for given in ["Basic eDp5", &right] {
            assert_eq!(access.check(Some(given), client, 0), Err(ReadError::TooManyGuesses { retry_after_sec: 5 }));
        }
        assert_eq!(access.check(Some(&right), Some(IpAddr::from([192, 0, 2, 2])), 0), Ok(()));
        assert_eq!(access.check(Some(&right), client, 5), Ok(()));
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
