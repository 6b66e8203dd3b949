//! `/api/token` for a join token, and `/api/joins`: who has joined, and who is shut out.

use serde::Serialize;
use serde_json::json;

use super::{Api, Reply};
use crate::joins::{JoinError, Joined};

/// What is said of tokens by a receiver without a key for them.
pub(super) const NONE_NEEDED: &str = "token: none is needed here; this receiver runs without --token-key";
/// Most hosts of a page of the list.
const PAGE_HOSTS: usize = 10_000;

impl From<&JoinError> for Reply {
    fn from(error: &JoinError) -> Self {
        match error {
            JoinError::Taken => Self::error(409, &error.to_string()),
            JoinError::ShutOut => Self::error(403, &error.to_string()),
            JoinError::Full => Self::error(429, &error.to_string()),
            JoinError::Store(error) => error.into(),
        }
    }
}

/// A host of the list.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JoinedHost {
    host: String,
    joined_at: u64,
    renewed_at: u64,
}

/// Lists who has joined, behind `after`, and on the first page who is shut out.
pub(super) fn list(api: &Api, after: &str) -> Reply {
    if api.authorizer().allows_all() {
        return Reply::error(404, NONE_NEEDED);
    }
    let joins = api.ingest.joins();
    let listed = joins.joined().and_then(|joined| {
        let all = joins.all_shut_out()?;
        let shut_out = all.iter().filter(|(_, record)| after.is_empty() && !record.is_back);
        let shut_out: Vec<_> =
            shut_out.map(|(host, record)| json!({ "host": host, "shut-out-at": record.shut_out_at })).collect();
        let count = joined.len();
        let mut hosts = joined.into_iter().filter(|(host, _)| host.as_str() > after);
        let listed = |(host, joined): (String, Joined)| JoinedHost {
            host,
            joined_at: joined.joined_at,
            renewed_at: joined.renewed_at,
        };
        let page: Vec<_> = (&mut hosts).take(PAGE_HOSTS).map(listed).collect();
        let next = hosts.next().and_then(|_| page.last().map(|last| last.host.clone()));
        Ok(json!({ "joined": page, "count": count, "shut-out": shut_out, "next-after": next }))
    });
    match listed {
        Ok(answer) => Reply::json(200, &answer),
        Err(error) => (&error).into(),
    }
}

/// Shuts a host out.
pub(super) fn shut_out(api: &Api, host: &str, now: u64) -> Reply {
    if api.authorizer().allows_all() {
        return Reply::error(404, NONE_NEEDED);
    }
    match api.ingest.joins().shut_out_host(host, now) {
        Ok(had_joined) => {
            log::info!("Host {host:?} is shut out");
            Reply::json(200, &json!({ "shut-out": true, "had-joined": had_joined }))
        }
        Err(error) => (&error).into(),
    }
}

#[cfg(feature = "tls")]
pub(super) use with_tokens::{join, renew};

/// What needs the keys of tokens.
#[cfg(feature = "tls")]
mod with_tokens {
    use std::fmt::Write;

    use serde::Deserialize;

    use crate::api::route::TokenClient;
    use crate::api::{Api, Reply};
    use crate::auth::{Identity, Tokens};
    use crate::joins::{JoinError, OWN_VALID};
    use crate::sample::check_host;

    /// Bytes of what an asker is known again by.
    const ASKER_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

    /// The body of `POST /api/token` with a join token.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Join {
        host: String,
        /// A secret of the one who asks: with the same one the name is given again, as after an answer that was lost.
        asker: Option<String>,
    }

    fn parse(body: &[u8]) -> Result<Join, String> {
        let form = r#"{"host": "jarvis", "asker": "a secret word"}"#;
        let asked: Join = serde_json::from_slice(body).map_err(|error| format!("body: is not {form}: {error}"))?;
        check_host(&asked.host)?;
        if asked.host.starts_with('*') {
            return Err("host: a pattern cannot join; a host has a name".to_owned());
        }
        let is_word = |word: &String| ASKER_BYTES.contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
        if !asked.asker.as_ref().is_none_or(is_word) {
            return Err("asker: is not a word of 16 to 128 letters, digits and signs".to_owned());
        }
        Ok(asked)
    }

    /// Exchanges a join token for a token of the host's own.
    pub(in crate::api) fn join(
        api: &Api,
        tokens: &Tokens,
        owner: &Identity,
        from: &TokenClient,
        body: &[u8],
        now: u64,
    ) -> Reply {
        let Join { host, asker } = match parse(body) {
            Ok(asked) => asked,
            Err(why) => return Reply::error(400, &why),
        };
        let whose = format!("{owner}, {}", client(from));
        if !owner.lets_join(&host) {
            let hosts = owner.join.as_deref().unwrap_or_default().join(", ");
            return api.refuse_token(
                403,
                &format!("host: {host:?} may not join by this token, {hosts} may"),
                &whose,
                now,
            );
        }
        let asker = asker.as_deref().map(crate::auth::digest);
        match api.ingest.joins().join(&host, asker, owner.issued_at, now) {
            Ok(issued_at) => {
                let mut line = format!("Host {host:?} has joined, {}", client(from));
                if from.is_plain {
                    let _ = write!(line, ", over plain HTTP, where others can read its token");
                }
                log::info!("{line}");
                issue(tokens, host, issued_at)
            }
            Err(error @ JoinError::Store(_)) => (&error).into(),
            Err(error) => {
                api.stats().untrusted.add(1);
                api.authorizer().log_refusal(&format!("{error}; host {host:?}, {}", client(from)), now);
                (&error).into()
            }
        }
    }

    /// Gives a host that has joined another token.
    pub(in crate::api) fn renew(api: &Api, tokens: &Tokens, owner: &std::sync::Arc<Identity>, now: u64) -> Reply {
        let joins = api.ingest.joins();
        let Some(host) = owner.hosts.first() else { return Reply::error(403, "token: for no host") };
        // Another receiver may have shut it out a moment ago.
        if let Err(error) = joins.reload() {
            return (&error).into();
        }
        let principal = crate::auth::Principal::Identity(owner.clone());
        if let Err(error) = api.ingest.authorize(&principal, host, now) {
            return (&error).into();
        }
        match joins.renew(host, now) {
            Ok(()) => issue(tokens, host.clone(), now),
            Err(error) => (&error).into(),
        }
    }

    fn issue(tokens: &Tokens, host: String, issued_at: u64) -> Reply {
        let identity = Identity { hosts: vec![host], has_joined: true, ..Identity::default() };
        match tokens.issue_for(identity, OWN_VALID, issued_at) {
            Ok(issued) => Reply::json(200, &issued).with("Cache-Control", "no-store"),
            Err(why) => Reply::error(400, &why),
        }
    }

    fn client(from: &TokenClient) -> String {
        from.address.map_or("client not known".to_owned(), |address| format!("client {address}"))
    }
}
