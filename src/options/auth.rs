//! Options about certificates, tokens and passwords.

use std::path::PathBuf;
use std::time::Duration;

use lizm::auth;
use lizm::monitor::Credentials;

use super::Options;
#[cfg(feature = "tls")]
use super::{Command, TokenOptions};

/// Longest life of a token that a certificate's owner is given: one that is stolen is of use for as long.
const TOKEN_VALID_MAX: Duration = Duration::from_secs(86_400);
/// Shortest one: the monitor renews at two thirds of it, and its receiver's clock may be a few seconds off.
const TOKEN_VALID_MIN: Duration = Duration::from_secs(10);
/// Longest life of a token by `lizm token`: ten years, about as long as a machine is kept.
#[cfg(feature = "tls")]
const MADE_TOKEN_VALID_MAX: Duration = Duration::from_secs(3650 * 86_400);

impl Options {
    /// Those of the HTTPS door.
    #[cfg(feature = "tls")]
    pub(super) fn https(&mut self) -> Result<Option<lizm::tls::Options>, String> {
        let port = self.text("--tls-port")?;
        let port = port.map(|port| super::parsed("--tls-port", &port, "a port from 0 to 65535")).transpose()?;
        let (certificate, key) = (self.path("--tls-cert")?, self.path("--tls-key")?);
        let trust = self.path("--trust")?;
        let connections_max = self.whole("--max-connections", 4096, 1..=100_000)?;
        match (port, certificate, key) {
            (None, None, None) if trust.is_some() => Err("option --trust: needs the HTTPS door, --tls-port".to_owned()),
            (None, None, None) => Ok(None),
            (Some(port), Some(certificate), Some(key)) => {
                Ok(Some(lizm::tls::Options { port, certificate, key, trust, connections_max }))
            }
            _ => Err("options --tls-port, --tls-cert and --tls-key: given together or not at all".to_owned()),
        }
    }

    /// Those of who may submit and who may read.
    pub(super) fn auth(&mut self) -> Result<auth::Options, String> {
        let token_valid = self.text("--token-valid")?.unwrap_or_else(|| "5m".to_owned());
        Ok(auth::Options {
            token_key: self.file_of_tls("--token-key")?,
            token_valid: span("--token-valid", &token_valid, TOKEN_VALID_MIN, TOKEN_VALID_MAX)?,
            read_password: self.file_of_tls("--read-password-file")?,
        })
    }

    /// What a monitor shows to receivers.
    pub(super) fn credentials(&mut self) -> Result<Credentials, String> {
        let credentials = Credentials {
            ca: self.file_of_tls("--ca")?,
            certificate: self.file_of_tls("--cert")?,
            key: self.file_of_tls("--key")?,
            token_from: self.text("--token-from")?,
            token_file: self.path("--token-file")?,
        };
        if credentials.certificate.is_some() != credentials.key.is_some() {
            return Err("options --cert and --key: given together or not at all".to_owned());
        }
        if credentials.token_from.is_some() && credentials.certificate.is_none() {
            return Err("option --token-from: needs a certificate, --cert and --key".to_owned());
        }
        if credentials.token_from.is_some() && credentials.token_file.is_some() {
            return Err("options --token-from and --token-file: only one can be where tokens come from".to_owned());
        }
        Ok(credentials)
    }

    /// `lizm token`.
    #[cfg(feature = "tls")]
    pub(super) fn token(&mut self) -> Result<Command, String> {
        let mut hosts = Vec::new();
        while let Some(host) = self.argument("--host")? {
            hosts.push(super::checked_host(host)?);
        }
        if hosts.is_empty() {
            return Err("option --host: missing; it names the host that the token is for".to_owned());
        }
        let key_file = self.file_of_tls("--token-key")?;
        let key_file = key_file.ok_or("option --token-key: missing; it is the receiver's")?;
        let valid = self.text("--valid")?.unwrap_or_else(|| "30d".to_owned());
        let valid = span("--valid", &valid, Duration::from_secs(1), MADE_TOKEN_VALID_MAX)?;
        self.no_more()?;
        Ok(Command::Token(TokenOptions { hosts, key_file, valid }))
    }

    /// A file that means something to a program with the feature tls.
    fn file_of_tls(&mut self, option: &'static str) -> Result<Option<PathBuf>, String> {
        match self.path(option)? {
            Some(_) if !cfg!(feature = "tls") => Err(format!("option {option}: {}", auth::WITHOUT_TLS)),
            file => Ok(file),
        }
    }
}

/// Checks what options of the receiver have to do with each other.
#[cfg(feature = "tls")]
pub(super) fn check(options: &lizm::receiver::Options) -> Result<(), String> {
    if !options.plain && options.https.is_none() {
        return Err("option --no-plain: leaves no door open; --tls-port opens another".to_owned());
    }
    if options.https.as_ref().is_some_and(|https| https.trust.is_some()) && options.auth.token_key.is_none() {
        return Err("option --trust: needs a file for the keys of tokens, --token-key".to_owned());
    }
    Ok(())
}

/// Reads a span of time: a whole number, and s, m, h or d.
fn span(option: &str, text: &str, shortest: Duration, longest: Duration) -> Result<Duration, String> {
    let unit_sec = match text.as_bytes().last() {
        Some(b's') => Some(1),
        Some(b'm') => Some(60),
        Some(b'h') => Some(3600),
        Some(b'd') => Some(86_400),
        _ => None,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|digits| digits.parse::<u64>().ok());
    let span = unit_sec.zip(number).and_then(|(unit_sec, number)| number.checked_mul(unit_sec));
    let span = span.map(Duration::from_secs).filter(|span| (shortest..=longest).contains(span));
    span.ok_or_else(|| {
        let (from, to) = (shortest.as_secs(), longest.as_secs());
        format!("option {option}: {text:?} is not a time such as 90s, 5m, 12h or 30d, from {from}s to {to}s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit_and_limits() {
        let span = |text| span("--valid", text, Duration::from_secs(10), Duration::from_secs(86_400)).ok();
        let sec = |text| span(text).map(|span| span.as_secs());
        assert_eq!((sec("90s"), sec("5m"), sec("24h"), sec("1d")), (Some(90), Some(300), Some(86_400), Some(86_400)));
        for bad in ["", "s", "5", "5 m", "-5m", "9s", "2d", "18446744073709551615d", "5ä", "5M"] {
            assert_eq!(sec(bad), None, "{bad:?}");
        }
    }
}
