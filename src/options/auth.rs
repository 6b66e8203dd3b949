//! Options about certificates, tokens and passwords.

use std::path::{Path, PathBuf};

use lizm::auth;
use lizm::monitor::{self, Credentials, JoinOptions, JoinToken};

use super::Options;
#[cfg(feature = "tls")]
use super::{Command, table};
#[cfg(feature = "tls")]
use crate::token_command::TokenCommand;

impl Options {
    /// The HTTPS server.
    #[cfg(feature = "tls")]
    pub(super) fn https(&mut self) -> Result<Option<lizm::http::HttpsOptions>, String> {
        let port = self.optional_number("--tls-port")?;
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

    /// Names of hosts, without ports.
    fn names(&mut self, option: &'static str) -> Result<Vec<String>, String> {
        let names = self.list(option)?;
        match names.iter().find(|name| name.is_empty() || name.contains([':', '/', '*'])) {
            Some(name) => {
                Err(format!("option {option}: {name:?} is not a name such as lizm.example.org, without a port"))
            }
            None => Ok(names),
        }
    }

    /// What a monitor trusts, and how it authenticates.
    pub(super) fn credentials(&mut self) -> Result<Credentials, String> {
        let state = self.path("--state")?;
        let mut credentials = Credentials {
            ca: self.file_of_tls("--ca")?,
            certificate: self.file_of_tls("--cert")?,
            key: self.file_of_tls("--key")?,
            token_from: self.text("--token-from")?.map(|url| monitor::token_url(&url)).transpose()?,
            token_file: self.path("--token-file")?,
            join: self.join(state.as_deref())?,
        };
        if credentials.join.is_some() && (credentials.certificate.is_some() || credentials.token_file.is_some()) {
            return Err("option --join: goes neither with --cert nor with --token-file".to_owned());
        }
        if credentials.certificate.is_some() != credentials.key.is_some() {
            return Err("options --cert and --key: given together or not at all".to_owned());
        }
        if let (Some(url), None) = (&credentials.token_from, &credentials.join) {
            if credentials.certificate.is_none() {
                return Err("option --token-from: needs a certificate, --cert and --key, or --join".to_owned());
            }
            if url.scheme() != "https" {
                return Err(format!("option --token-from: {url} is not the URL of an https receiver"));
            }
        }
        if credentials.token_from.is_some() && credentials.token_file.is_some() {
            return Err("options --token-from and --token-file: only one can be where tokens come from".to_owned());
        }
        let has_other = credentials.certificate.is_some() || credentials.token_file.is_some();
        if credentials.join.is_none() && !has_other {
            credentials.join = state.map(|state| JoinOptions { token: JoinToken::None, state });
        }
        Ok(credentials)
    }

    /// How a monitor joins.
    fn join(&mut self, state: Option<&Path>) -> Result<Option<JoinOptions>, String> {
        let token = match (self.text("--join")?, self.path("--join-file")?) {
            (Some(_), Some(_)) => return Err("options --join and --join-file: only one has the token".to_owned()),
            (None, None) => return Ok(None),
            (Some(token), None) => {
                auth::check_token(&token).map_err(|why| format!("option --join: {why}"))?;
                JoinToken::Given(token)
            }
            (None, Some(file)) => JoinToken::File(file),
        };
        let state = state.ok_or("option --state: missing; it is the directory that keeps this host's own token")?;
        Ok(Some(JoinOptions { token, state: state.to_owned() }))
    }

    /// `lizm token`.
    #[cfg(feature = "tls")]
    pub(super) fn token(&mut self) -> Result<Command, String> {
        let hosts = self.occurrences("--host")?;
        let mut checked = hosts.iter().map(|host| auth::check_token_host(host));
        checked.try_for_each(|result| result.map_err(|why| format!("option --host: {why}")))?;
        // These say what is done here alone: LIZM_JOIN is a monitor's token.
        let [is_operator, is_join, lists] =
            ["--operator", "--join", "--list"].map(|option| self.arguments.contains(option));
        let revoked = self.occurrences("--revoke")?.pop();
        let (token_file, key_file) = (self.path("--token-file")?, self.file_of_tls("--token-key")?);
        let valid = self.optional_span("--valid")?;
        if lists || revoked.is_some() {
            let receiver = self.client()?;
            return Ok(Command::Token(match revoked {
                Some(host) => {
                    lizm::sample::check_host(&host).map_err(|why| format!("option --revoke: {why}"))?;
                    TokenCommand::Revoke { receiver, host, token_file }
                }
                None => TokenCommand::List(receiver),
            }));
        }
        if is_join && is_operator {
            return Err("options --join and --operator: one token cannot be both".to_owned());
        }
        if hosts.is_empty() && !is_operator && !is_join {
            let why = "missing; it names the host that the token is for. --join makes a token with which any host gets one \
                       of its own, and --operator one that removes any host";
            return Err(format!("option --host: {why}"));
        }
        let key_file = key_file.ok_or("option --token-key: missing; it is the receiver's")?;
        let valid = valid.unwrap_or(if is_join { table::JOIN_VALID } else { table::TOKEN_VALID });
        self.no_more()?;
        let identity = match is_join {
            true => auth::Identity { join: Some(hosts), ..auth::Identity::default() },
            false => auth::Identity { hosts, is_operator, ..auth::Identity::default() },
        };
        Ok(Command::Token(TokenCommand::Print { identity, key_file, valid }))
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
