//! Options about certificates, tokens and passwords.

use std::path::PathBuf;
use std::time::Duration;

use lizm::auth;
use lizm::monitor::{self, Credentials};

use super::table::Value;
#[cfg(feature = "tls")]
use super::{Command, TokenOptions, parsed_number};
use super::{Options, help};

impl Options {
    /// The HTTPS server.
    #[cfg(feature = "tls")]
    pub(super) fn https(&mut self) -> Result<Option<lizm::http::HttpsOptions>, String> {
        let port = self.text("--tls-port")?;
        let port = port.map(|port| parsed_number(self.spec("--tls-port"), "--tls-port", &port)).transpose()?;
        let (certificate, key) = (self.path("--tls-cert")?, self.path("--tls-key")?);
        let trust = self.path("--trust")?;
        match (port, certificate, key) {
            (None, None, None) if trust.is_some() => {
                Err("option --trust: needs the HTTPS server, --tls-port".to_owned())
            }
            (None, None, None) => Ok(None),
            (Some(port), Some(certificate), Some(key)) => {
                Ok(Some(lizm::http::HttpsOptions { port, certificate, key, trust }))
            }
            _ => Err("options --tls-port, --tls-cert and --tls-key: given together or not at all".to_owned()),
        }
    }

    /// Refuses the options of a server that this program was built without.
    #[cfg(not(feature = "tls"))]
    pub(super) fn refuse_https(&mut self) -> Result<(), String> {
        for option in ["--tls-port", "--tls-cert", "--tls-key", "--trust"] {
            self.file_of_tls(option)?;
        }
        Ok(())
    }

    /// Who may submit and who may read.
    pub(super) fn auth(&mut self) -> Result<auth::Options, String> {
        Ok(auth::Options {
            token_key: self.file_of_tls("--token-key")?,
            token_valid: self.span("--token-valid")?,
            read_password: self.file_of_tls("--read-password-file")?,
            allowed_hosts: self.names("--allow-host")?,
        })
    }

    /// The names of an option that may be repeated; in the environment there are spaces between them.
    fn names(&mut self, option: &'static str) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        while let Some(name) = self.argument(option)? {
            names.push(name);
        }
        if names.is_empty() {
            let listed = super::env_value(&super::variable(option))?.unwrap_or_default();
            names.extend(listed.split_whitespace().map(str::to_owned));
        }
        match names.iter().find(|name| name.is_empty() || name.contains([':', '/', '*'])) {
            Some(name) => {
                Err(format!("option {option}: {name:?} is not a name such as lizm.example.org, without a port"))
            }
            None => Ok(names),
        }
    }

    /// What a monitor trusts, and how it authenticates.
    pub(super) fn credentials(&mut self) -> Result<Credentials, String> {
        let credentials = Credentials {
            ca: self.file_of_tls("--ca")?,
            certificate: self.file_of_tls("--cert")?,
            key: self.file_of_tls("--key")?,
            token_from: self.text("--token-from")?.map(|url| monitor::token_url(&url)).transpose()?,
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
            auth::check_token_host(&host).map_err(|why| format!("option --host: {why}"))?;
            hosts.push(host);
        }
        let is_operator = self.flag("--operator")?;
        if hosts.is_empty() && !is_operator {
            let why =
                "missing; it names the host that the token is for, and --operator makes a token that removes any host";
            return Err(format!("option --host: {why}"));
        }
        let key_file = self.file_of_tls("--token-key")?;
        let key_file = key_file.ok_or("option --token-key: missing; it is the receiver's")?;
        let valid = self.span("--valid")?;
        self.no_more()?;
        Ok(Command::Token(TokenOptions { hosts, is_operator, key_file, valid }))
    }

    /// A span of time in the range of the table.
    fn span(&mut self, option: &'static str) -> Result<Duration, String> {
        let text = self.text_or_default(option)?;
        let Value::Span(least, most) = self.spec(option).value else { return Ok(Duration::ZERO) };
        let sec = span_sec(&text).filter(|sec| (least..=most).contains(sec));
        sec.map(Duration::from_secs).ok_or_else(|| {
            let (least, most) = (help::span(least), help::span(most));
            format!("option {option}: {text:?} is not a time such as 90s, 5m, 12h or 30d, from {least} to {most}")
        })
    }

    /// A file that only a program with the feature tls can use.
    fn file_of_tls(&mut self, option: &'static str) -> Result<Option<PathBuf>, String> {
        match self.path(option)? {
            Some(_) if !cfg!(feature = "tls") => Err(format!("option {option}: {}", lizm::features::WITHOUT_TLS)),
            file => Ok(file),
        }
    }
}

/// Checks the options of a receiver that depend on each other.
pub(super) fn check(options: &lizm::receiver::Options) -> Result<(), String> {
    #[cfg(feature = "tls")]
    let (has_https, has_trust) =
        (options.https.is_some(), options.https.as_ref().is_some_and(|https| https.trust.is_some()));
    #[cfg(not(feature = "tls"))]
    let (has_https, has_trust) = (false, false);
    if !options.plain && !has_https {
        let how = if cfg!(feature = "tls") { "--tls-port adds HTTPS" } else { lizm::features::WITHOUT_TLS };
        return Err(format!("option --no-plain: leaves no server; {how}"));
    }
    if has_trust && options.auth.token_key.is_none() {
        return Err("option --trust: needs a file for the keys of tokens, --token-key".to_owned());
    }
    Ok(())
}

/// The seconds of a whole number and s, m, h or d.
fn span_sec(text: &str) -> Option<u64> {
    let unit_sec = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    text.get(..text.len() - 1)?.parse::<u64>().ok()?.checked_mul(unit_sec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        assert_eq!(["90s", "5m", "24h", "1d", "0s"].map(span_sec), [90, 300, 86_400, 86_400, 0].map(Some));
        for wrong in ["", "s", "5", "5 m", "-5m", "18446744073709551615d", "5ä", "5M"] {
            assert_eq!(span_sec(wrong), None, "{wrong:?}");
        }
    }
}
