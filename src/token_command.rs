//! `lizm token`: prints tokens, lists who has joined at a receiver, and shuts a host out.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use lizm::auth::{self, Identity, Keys};
use lizm::client::{self, Client};
use lizm::clock::unix_now_sec;
use lizm::sanitize::visible;
use lizm::url::encode;
use serde::Deserialize;

/// What `lizm token` is asked.
#[derive(Debug)]
pub(crate) enum TokenCommand {
    /// To print a token.
    Print {
        /// Whose.
        identity: Identity,
        /// The receiver's file of keys.
        key_file: PathBuf,
        valid: Duration,
    },
    /// To print who has joined, and who is shut out.
    List(client::Options),
    /// To shut a host out.
    Revoke {
        receiver: client::Options,
        host: String,
        /// The file of an operator's token.
        token_file: Option<PathBuf>,
    },
}

/// A page of `GET /api/joins`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Page {
    joined: Vec<Joined>,
    shut_out: Vec<ShutOut>,
    next_after: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Joined {
    host: String,
    joined_at: u64,
    renewed_at: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ShutOut {
    host: String,
    shut_out_at: u64,
}

/// The answer to `DELETE /api/joins/HOST`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Revoked {
    had_joined: bool,
}

/// Does what is asked, and writes on `out`.
///
/// # Errors
/// Why it was not done.
pub(crate) fn run(asked: &TokenCommand, out: &mut impl Write) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    match asked {
        TokenCommand::Print { identity, key_file, valid } => {
            let issued = Keys::read(key_file)?.issue(identity.clone(), *valid, unix_now_sec())?;
            writeln!(out, "{}", issued.token()).map_err(failed)
        }
        TokenCommand::List(receiver) => list(&Client::new(receiver)?, out),
        TokenCommand::Revoke { receiver, host, token_file } => {
            let token = token_file.as_deref().map(auth::read_token).transpose()?;
            let path = format!("/api/joins/{}", encode(host));
            let Revoked { had_joined } = Client::new(receiver)?.delete(&path, token.as_deref())?;
            let note = if had_joined { "its name is free for another join" } else { "it had not joined" };
            writeln!(out, "{} is shut out; {note}", visible(host)).map_err(failed)
        }
    }
}

fn list(client: &Client, out: &mut impl Write) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let mut after = None;
    loop {
        let query = after.map(|after: String| format!("after={}", encode(&after)));
        let page: Page = client.get("/api/joins", query.as_deref())?;
        for Joined { host, joined_at, renewed_at } in &page.joined {
            writeln!(out, "joined\t{}\t{joined_at}\t{renewed_at}", visible(host)).map_err(failed)?;
        }
        for ShutOut { host, shut_out_at } in &page.shut_out {
            writeln!(out, "shut-out\t{}\t{shut_out_at}\t-", visible(host)).map_err(failed)?;
        }
        after = page.next_after;
        if after.is_none() {
            return Ok(());
        }
    }
}
