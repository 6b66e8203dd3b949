//! Who asks, and whether that may be: browsers, passwords, tokens and certificates.

#[cfg(feature = "tls")]
use std::sync::Arc;

use super::browser::BrowserError;
#[cfg(feature = "tls")]
use super::joins;
use super::route::TokenClient;
use super::{Api, ClientTransport, Reply, RequestHead, route};
#[cfg(feature = "tls")]
use crate::auth::Identity;
use crate::auth::{LastToken, Principal, ReadError, bearer};

impl Api {
    /// Finds the principal by the token in the head.
    pub(super) fn authenticate(&self, head: &RequestHead<'_>, now: u64) -> Result<Principal, Reply> {
        let token = head.authorization.and_then(bearer);
        let none = LastToken::default();
        self.ingest.authenticate(token, head.last_token.unwrap_or(&none), now).map_err(|error| Reply::from(&error))
    }

    /// Refuses what a web page may not make a browser do.
    pub(super) fn check_browser(&self, head: &RequestHead<'_>, now: u64) -> Result<(), Reply> {
        self.browser_guard.check(head).map_err(|error| {
            let counter = match error {
                BrowserError::CrossSite => &self.stats().browsers_cross_site,
                BrowserError::Host(_) => &self.stats().browsers_other_host,
            };
            counter.add(1);
            self.authorizer().log_refusal(&format!("{error}; {}", self.client(head)), now);
            Reply::error(403, &error.to_string())
        })
    }

    /// Refuses a reader without the password, where one is needed. Load balancers ask for `/health` without it.
    pub(super) fn check_read_access(&self, head: &RequestHead<'_>, now: u64) -> Result<(), Reply> {
        if route::path(head.target) == "/health" {
            return Ok(());
        }
        let Err(error) = self.read_access.check(head.authorization, head.client(&self.trusted_proxies), now) else {
            return Ok(());
        };
        let challenge = ("WWW-Authenticate", "Basic realm=\"lizm\", charset=\"UTF-8\"");
        let (status, sentence, counter, header) = match error {
            ReadError::NoPassword => {
                let sentence = "password: needed to read here, by HTTP Basic; see --read-password-file";
                return Err(Reply::error(401, sentence).with(challenge.0, challenge.1));
            }
            ReadError::WrongPassword => {
                let sentence = "password: not the one in the receiver's --read-password-file".to_owned();
                (401, sentence, &self.stats().passwords_wrong, (challenge.0, challenge.1.to_owned()))
            }
            ReadError::TooManyGuesses { retry_after_sec: sec } => {
                let sentence = format!("password: too many wrong ones from this address; try again in {sec} seconds");
                (429, sentence, &self.stats().passwords_limited, ("Retry-After", sec.to_string()))
            }
        };
        counter.add(1);
        self.authorizer().log_refusal(&format!("{sentence}; {}", self.client(head)), now);
        Err(Reply::error(status, &sentence).with(header.0, header.1))
    }

    /// The client of a request, for the log.
    pub(super) fn client(&self, head: &RequestHead<'_>) -> String {
        let address = head.client(&self.trusted_proxies);
        address.map_or("client not known".to_owned(), |address| format!("client {address}"))
    }

    /// Finds the owner of the certificate that a request came with.
    #[cfg(feature = "tls")]
    pub(super) fn certificate_owner(&self, transport: ClientTransport<'_>, now: u64) -> Result<Principal, Reply> {
        let nobody = "subject not known";
        let ClientTransport::Tls(identity) = transport else {
            let sentence = "token: given over HTTPS alone, to the owner of a certificate, or for a token to join with";
            return Err(self.refuse_token(403, sentence, nobody, now));
        };
        if self.authorizer().tokens().is_none() {
            return Err(Reply::error(404, joins::NONE_NEEDED));
        }
        let Some(identity) = identity else {
            let sentence = "token: given to the owner of a certificate, and this connection has none";
            return Err(self.refuse_token(401, sentence, nobody, now));
        };
        if let Some(end) = identity.expires_at.filter(|end| now >= *end) {
            let sentence = format!("certificate: expired {} seconds ago", now - end);
            return Err(self.refuse_token(401, &sentence, &identity.to_string(), now));
        }
        Ok(Principal::Identity(Arc::new(identity.clone())))
    }

    /// Finds the owner of a token that is good to join, or that was got by joining.
    pub(super) fn joiner(&self, head: &RequestHead<'_>, now: u64) -> Result<Principal, Reply> {
        let principal = self.authenticate(head, now)?;
        match &principal {
            Principal::Identity(identity) if identity.join.is_none() && !identity.has_joined => {
                let sentence =
                    "token: neither one to join with, nor one that a host was given for it, which is renewed";
                Err(self.refuse_token(403, sentence, &identity.to_string(), now))
            }
            _ => Ok(principal),
        }
    }

    /// Gives a token: to a host that joins or has joined one of its own, and to the owner of a certificate one for the
    /// hosts that it names.
    #[cfg(feature = "tls")]
    pub(super) fn issue_token(&self, owner: &Principal, from: &TokenClient, body: &[u8], now: u64) -> Reply {
        let (Some(tokens), Principal::Identity(owner)) = (self.authorizer().tokens(), owner) else {
            return Reply::error(404, joins::NONE_NEEDED);
        };
        if owner.join.is_some() {
            return joins::join(self, tokens, owner, from, body, now);
        }
        if owner.has_joined {
            return joins::renew(self, tokens, owner, now);
        }
        match tokens.issue(Identity::clone(owner), now) {
            Ok(issued) => Reply::json(200, &issued).with("Cache-Control", "no-store"),
            Err(why) => self.refuse_token(403, &format!("certificate: {why}"), &owner.to_string(), now),
        }
    }

    /// Counts and logs that no token was given, and to whom.
    pub(super) fn refuse_token(&self, status: u16, sentence: &str, identity: &str, now: u64) -> Reply {
        self.stats().untrusted.add(1);
        self.authorizer().log_refusal(&format!("{sentence}; {identity}"), now);
        let challenge = "Bearer realm=\"lizm\", error=\"invalid_client\"";
        Reply::error(status, sentence).with("WWW-Authenticate", challenge)
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with the feature tls it is used")]
    pub(super) fn certificate_owner(&self, _: ClientTransport<'_>, _: u64) -> Result<Principal, Reply> {
        Err(Reply::error(403, &format!("token: {}", crate::features::WITHOUT_TLS)))
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with the feature tls it is used")]
    pub(super) fn issue_token(&self, _: &Principal, _: &TokenClient, _: &[u8], _: u64) -> Reply {
        Reply::error(403, &format!("token: {}", crate::features::WITHOUT_TLS))
    }
}
