//! The token of this host's own, which a receiver gives for a join token, and the file that keeps it.
//!
//! The file is there before the receiver is asked, with the secret by which it knows the asker again: an answer that is lost
//! on its way is given again. With the token in it the join token is not needed any more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{JoinOptions, JoinToken, http};
use crate::auth;
use crate::clock::unix_now_sec;
use crate::url::{Url, encode};

/// Longest life that is believed of a host's own token. It is renewed at half of its life.
const LIFE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest file in bytes: a host of 255 bytes, all escaped, a token of 4,096 and the rest.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Bytes of the secret.
const SECRET_BYTES: usize = 32;
/// What a file is called until it is whole. It has a character that no encoded name has.
const NEW: &str = "+new";

/// What the file holds, as JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    /// The secret by which the receiver knows the asker again.
    asker: String,
    host: String,
    #[serde(default)]
    token: Option<String>,
    /// In seconds since the Unix epoch.
    #[serde(default)]
    renew_at: u64,
    #[serde(default)]
    expires_at: u64,
}

/// A token that a receiver has given.
pub(super) struct GivenToken {
    pub(super) token: Arc<str>,
    /// For how long it is good, and when it is to be renewed.
    pub(super) life: Duration,
    pub(super) renewed_in: Duration,
}

/// This host's own token for a receiver.
pub(super) struct OwnToken {
    path: PathBuf,
    join: JoinToken,
    kept: Kept,
}

impl OwnToken {
    /// Opens the file for the receiver whose tokens are at `url`, and makes it where there is none. Without a token to join
    /// with, `None` where the host has none of its own.
    ///
    /// # Errors
    /// When the file cannot be read or written, or when there is neither an own token nor one to join with. The message
    /// names the file.
    pub(super) fn open(options: &JoinOptions, url: &Url, host: &str) -> io::Result<Option<Self>> {
        let path = options.state.join(encode(&url.to_string()));
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("state {}: {error}", path.display()));
        // A host that has another name now is another host to the receiver.
        let kept = read(&path).map_err(failed)?.filter(|kept| kept.host == host);
        if matches!(options.token, JoinToken::None) && kept.as_ref().is_none_or(|kept| kept.token.is_none()) {
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&options.state).map_err(failed)?;
        let kept = match kept {
            Some(kept) => kept,
            None => {
                let kept = Kept {
                    asker: secret().map_err(failed)?,
                    host: host.to_owned(),
                    token: None,
                    renew_at: 0,
                    expires_at: 0,
                };
                write(&path, &kept).map_err(failed)?;
                kept
            }
        };
        if kept.token.is_none() {
            options.token.read().map_err(io::Error::other)?;
        }
        Ok(Some(Self { path, join: options.token.clone(), kept }))
    }

    /// The token that was kept. Whether it is still good the receiver says, and not a clock that may be wrong.
    pub(super) fn kept(&self) -> Option<GivenToken> {
        let now = unix_now_sec();
        let left = |until: u64| Duration::from_secs(until.saturating_sub(now)).min(LIFE_MAX);
        let (life, renewed_in) = (left(self.kept.expires_at), left(self.kept.renew_at).min(LIFE_MAX / 2));
        self.kept.token.as_deref().map(|token| GivenToken { token: token.into(), life, renewed_in })
    }

    /// Has the token renewed, or joins where there is none that is still good; `None` where none is needed.
    pub(super) fn ask(&mut self, agent: &ureq::Agent, url: &Url) -> Result<Option<GivenToken>, String> {
        let mut refused = None;
        if let Some(token) = &self.kept.token {
            let answer = http::post(agent, url, Some(token), &[], &[]).map_err(|error| error.details)?;
            if !matches!(answer.status, 401 | 403) {
                return answer.token().map(|given| self.take(given));
            }
            refused = Some(answer.details());
        }
        // The token to join with may be another than the one by which the host was let in.
        let join = match self.join.read() {
            Ok(join) => join,
            Err(why) => return Err(refused.unwrap_or(why)),
        };
        let body = json!({ "host": self.kept.host, "asker": self.kept.asker }).to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = http::post(agent, url, Some(&join), &headers, body.as_bytes()).map_err(|error| error.details)?;
        let given = self.take(answer.token()?);
        if given.is_some() {
            log::info!(
                "Host {:?} has joined at {url}; its own token is kept in {}",
                self.kept.host,
                self.path.display()
            );
            if url.scheme() == "http" {
                log::warn!("Its token goes over plain HTTP, where others can read it; see docs/security.md");
            }
        }
        Ok(given)
    }

    /// Keeps a token that was given.
    fn take(&mut self, given: Option<(Arc<str>, Duration)>) -> Option<GivenToken> {
        let (token, life) = given?;
        let life = life.min(LIFE_MAX);
        let now = unix_now_sec();
        (self.kept.renew_at, self.kept.expires_at) = (now + life.as_secs() / 2, now + life.as_secs());
        self.kept.token = Some(token.to_string());
        if let Err(error) = write(&self.path, &self.kept) {
            log::error!("This host's own token cannot be kept in {}: {error}", self.path.display());
        }
        Some(GivenToken { token, life, renewed_in: life / 2 })
    }
}

impl JoinToken {
    /// The token.
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::File(file) => auth::read_token(file),
            Self::None => Err("option --join: missing; this host has no token of its own any more".to_owned()),
        }
    }
}

/// A secret of the system's random numbers, in hexadecimal digits.
fn secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads a file; one that is not there, or not whole, holds nothing.
fn read(path: &Path) -> io::Result<Option<Kept>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let kept: Option<Kept> = serde_json::from_slice(&text).ok();
    Ok(kept.filter(|kept| kept.token.as_ref().is_none_or(|token| auth::check_token(token).is_ok())))
}

/// Replaces a file, which its owner alone can read.
fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let new = path.with_file_name(format!("{}{NEW}", path.file_name().unwrap_or_default().display()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(serde_json::to_string(kept)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_there_again_for_the_same_host_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let url = Url::parse("http://r:8080/api/token").unwrap();
        let missing = JoinOptions { token: JoinToken::File(directory.path().join("none")), state };
        let options = JoinOptions { token: JoinToken::Given("t".to_owned()), ..missing.clone() };
        let without = JoinOptions { token: JoinToken::None, ..missing.clone() };
        assert!(OwnToken::open(&without, &url, "jarvis").unwrap().is_none() && !without.state.exists());
        let refused = OwnToken::open(&missing, &url, "jarvis").err().unwrap().to_string();
        assert!(refused.contains("none"), "{refused}");
        let mut first = OwnToken::open(&options, &url, "jarvis").unwrap().unwrap();
        assert!(OwnToken::open(&without, &url, "jarvis").unwrap().is_none());
        assert!(first.kept().is_none() && first.kept.asker.len() == 2 * SECRET_BYTES);
        let given = first.take(Some((Arc::from("own"), Duration::from_secs(100)))).unwrap();
        assert_eq!((given.life.as_secs(), given.renewed_in.as_secs()), (100, 50));
        let again = OwnToken::open(&missing, &url, "jarvis").unwrap().unwrap();
        assert_eq!(&*OwnToken::open(&without, &url, "jarvis").unwrap().unwrap().kept().unwrap().token, "own");
        assert_eq!(again.kept.asker, first.kept.asker);
        let kept = again.kept().unwrap();
        assert!(&*kept.token == "own" && kept.renewed_in.as_secs() <= 50 && kept.life.as_secs() <= 100);
        assert_eq!(fs::metadata(&again.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(OwnToken::open(&without, &url, "friday").unwrap().is_none());
        let other = OwnToken::open(&options, &url, "friday").unwrap().unwrap();
        assert!(other.kept().is_none() && other.kept.asker != first.kept.asker);
        fs::write(&other.path, "{").unwrap();
        assert!(OwnToken::open(&options, &url, "friday").unwrap().unwrap().kept().is_none());
    }
}
