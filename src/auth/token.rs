//! Tokens: JSON Web Tokens (RFC 7519) under HMAC with SHA-256, in the compact form of RFC 7515.
//!
//! The first key of the key file signs, and all of them verify, so that a key can be replaced while its tokens are still
//! good. The header of a token is a constant: the algorithm that it names is never looked up.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::identity::{AuthError, Identity};
use crate::reload::Reloaded;
use crate::sample::check_host;

/// Longest token in bytes: it fits a head of 8 KiB and a datagram beside their other lines.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Shortest key in bytes: as long as the hash (RFC 7518, 3.2). The longest is a bound on a file that is no key file.
const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: usize = 1024;
/// Most keys in a file: one that signs, and those it replaces. A token of another receiver costs a try with each.
const KEYS_MAX: usize = 8;
/// What every token of ours begins with: `{"alg":"HS256","typ":"JWT"}` and a dot.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.";

/// The claims of a token.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// Subject: the first of the hosts, `operator` or `join`.
    sub: String,
    hosts: Vec<String>,
    /// Whether it is good for the removal of any host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    operator: bool,
    /// Of a join token: the hosts that may join with it. They are no `hosts`, for which a token is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join: Option<Vec<String>>,
    /// Whether it was given for a join token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    joined: bool,
    /// Issued at, and expires at, in seconds since the Unix epoch.
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

/// A token as it is given to its bearer (RFC 6749, 5.1).
#[derive(Debug, Serialize)]
pub struct IssuedToken {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    hosts: Vec<String>,
}

impl IssuedToken {
    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.access_token
    }
}

/// Checks the name of a host, or a pattern of names, that a token is to be for.
///
/// # Errors
/// A sentence that says what to do.
pub fn check_token_host(host: &str) -> Result<(), String> {
    match host {
        "*" | "*." => Err("host: '*' stands for no host. '*.example.org' stands for the names of one more label, and \
            lizm token --join makes a token with which any host gets one of its own, and lizm token --operator one that \
            removes any host; none submits for all"
            .to_owned()),
        _ => check_host(host),
    }
}

/// The SHA-256 of a secret word, as hexadecimal digits.
#[must_use]
pub fn digest(secret: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of a key file.
pub struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Reads keys: a line each, of 32 to 1024 bytes. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: &str| format!("token key {}: {why}", file.display());
        let text = fs::read(file).map_err(|error| wrong(&error.to_string()))?;
        let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).collect();
        if lines.is_empty() || lines.len() > KEYS_MAX {
            return Err(wrong(&format!("holds {} keys, a line each; 1 to {KEYS_MAX} are needed", lines.len())));
        }
        if let Some(key) = lines.iter().find(|key| !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len())) {
            let bytes = key.len();
            return Err(wrong(&format!("a key is {bytes} bytes long; {KEY_BYTES_MIN} to {KEY_BYTES_MAX} are needed")));
        }
        Ok(Self(lines.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect()))
    }

    /// Reads keys as [`Keys::read`] does. A file that is missing is made, with one key, readable by its owner alone. The
    /// second value is a sentence for the log, if there is something to say about the file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read_or_make(file: &Path) -> Result<(Self, Option<String>), String> {
        let mut note = None;
        let wrong = |why: &str| format!("token key {}: {why}", file.display());
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(mut made) => {
                let mut key = [0; KEY_BYTES_MIN];
                SystemRandom::new().fill(&mut key).map_err(|_| wrong("the system has no random numbers"))?;
                let line = URL_SAFE_NO_PAD.encode(key) + "\n";
                let written = made.write_all(line.as_bytes()).and_then(|()| made.sync_all());
                if let Err(error) = written {
                    // Half a key would be refused by the next start.
                    let removed = fs::remove_file(file).map_or(String::new(), |()| ", and was removed".to_owned());
                    return Err(wrong(&format!("could not be written{removed}: {error}")));
                }
                note = Some(format!("Token key {} was not there, and was made", file.display()));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::metadata(file).is_ok_and(|about| about.mode() & 0o077 != 0) {
                    note = Some(format!("Token key {} is for others than its owner too", file.display()));
                }
            }
            // In a directory that cannot be written, an existing file can still be read.
            Err(error) if !file.exists() => return Err(wrong(&format!("cannot be made: {error}"))),
            Err(_) => {}
        }
        Ok((Self::read(file)?, note))
    }

    /// Makes a token for `identity`, valid for `valid` from `now`, but no longer than the identity is.
    ///
    /// # Errors
    /// When it names no host, one that no host can have, or so many that it would be too long.
    pub fn issue(&self, identity: Identity, valid: Duration, now: u64) -> Result<IssuedToken, String> {
        if identity.hosts.is_empty() && !identity.is_operator && identity.join.is_none() {
            return Err("host: a token needs one".to_owned());
        }
        let mut hosts = identity.hosts.iter().chain(identity.join.iter().flatten());
        hosts.try_for_each(|host| check_token_host(host))?;
        // A token does not outlive the certificate that it is given for.
        let end = now.saturating_add(valid.as_secs()).min(identity.expires_at.unwrap_or(u64::MAX));
        let claims = Claims {
            sub: identity.subject().to_owned(),
            hosts: identity.hosts,
            operator: identity.is_operator,
            join: identity.join,
            joined: identity.has_joined,
            iat: now,
            exp: end,
            fingerprint: identity.fingerprint,
        };
        let claims_json = serde_json::to_vec(&claims).map_err(|error| error.to_string())?;
        let mut token = HEADER.to_owned() + &URL_SAFE_NO_PAD.encode(claims_json);
        let signature = hmac::sign(&self.0[0], token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > TOKEN_BYTES_MAX {
            let names = claims.hosts.len() + claims.join.map_or(0, |hosts| hosts.len());
            return Err(format!("host: {names} names make a token longer than {TOKEN_BYTES_MAX} bytes, the limit"));
        }
        Ok(IssuedToken {
            access_token: token,
            token_type: "Bearer",
            expires_in: end.saturating_sub(now),
            hosts: claims.hosts,
        })
    }

    /// Verifies a token, and finds whose it is.
    ///
    /// # Errors
    /// When none of the keys has signed it, or it has expired at `now`.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        const MALFORMED: AuthError = AuthError::BadToken("not a token of this kind");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::BadToken("longer than 4096 bytes, the limit"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let claims = signed.strip_prefix(HEADER).ok_or(MALFORMED)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        // In constant time, and whole: a shorter signature does not verify.
        if !self.0.iter().any(|key| hmac::verify(key, signed.as_bytes(), &signature).is_ok()) {
            return Err(AuthError::BadToken("signed by no key known here"));
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| MALFORMED)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| MALFORMED)?;
        let end = claims.exp;
        let Claims { hosts, operator: is_operator, join, joined: has_joined, iat: issued_at, fingerprint, .. } = claims;
        let expires_at = Some(end);
        let identity = Identity { hosts, is_operator, fingerprint, expires_at, issued_at, join, has_joined };
        if now >= end {
            return Err(AuthError::Expired { ago_sec: now - end, identity: Arc::new(identity) });
        }
        Ok(identity)
    }
}

/// Issues and verifies tokens.
pub struct Tokens {
    keys: Reloaded<Keys>,
    valid: Duration,
    note: Option<String>,
}

impl Tokens {
    /// Tokens under the keys of `key_file`, which is made where it is missing. Tokens are issued for `valid`.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn open(key_file: &Path, valid: Duration) -> Result<Self, String> {
        let (_, note) = Keys::read_or_make(key_file)?;
        let file = key_file.to_owned();
        let keys = Reloaded::new(vec![file.clone()], move || Keys::read(&file))?;
        Ok(Self { keys, valid, note })
    }

    /// Makes a token for `identity`; see [`Keys::issue`].
    ///
    /// # Errors
    /// Those of [`Keys::issue`].
    pub fn issue(&self, identity: Identity, now: u64) -> Result<IssuedToken, String> {
        self.issue_for(identity, self.valid, now)
    }

    /// Makes a token for `identity` that is valid for `valid`; see [`Keys::issue`].
    ///
    /// # Errors
    /// Those of [`Keys::issue`].
    pub fn issue_for(&self, identity: Identity, valid: Duration, now: u64) -> Result<IssuedToken, String> {
        self.keys.current().issue(identity, valid, now)
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.current()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_440_000;

    fn keys(lines: &[&str]) -> Keys {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        fs::write(&file, lines.join("\n")).unwrap();
        Keys::read(&file).unwrap()
    }

    fn token(keys: &Keys, hosts: &[&str]) -> String {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        keys.issue(Identity { hosts, ..Identity::default() }, Duration::from_secs(300), NOW).unwrap().access_token
    }

    const OLD: &str = "the old key, of more than thirty-two bytes";
    const NEW: &str = "the new key, of more than thirty-two bytes";

    #[test]
    fn a_token_is_good_for_as_long_as_it_says() {
        let keys = keys(&["# rotated by hand", OLD, ""]);
        let token = token(&keys, &["jarvis", "friday"]);
        assert_eq!(keys.verify(&token, NOW + 299).unwrap().hosts, ["jarvis", "friday"]);
        let expired = keys.verify(&token, NOW + 310).unwrap_err();
        assert_eq!((expired.status().0, expired.to_string().as_str()), (401, "token: expired 10 seconds ago"));
    }

    #[test]
    fn keys_are_replaced_without_a_token_refused() {
        let (before, between, after) = (keys(&[OLD]), keys(&[NEW, OLD]), keys(&[NEW]));
        let (old, new) = (token(&before, &["h"]), token(&between, &["h"]));
        assert!(
            between.verify(&old, NOW).is_ok() && between.verify(&new, NOW).is_ok() && after.verify(&new, NOW).is_ok()
        );
        assert_eq!(after.verify(&old, NOW), Err(AuthError::BadToken("signed by no key known here")));
    }

    #[test]
    fn no_byte_of_a_token_can_be_another() {
        let keys = keys(&[OLD]);
        let good = token(&keys, &["jarvis"]);
        for at in 0..good.len() {
            for other in *b"Aa0_-.=" {
                let mut bad = good.clone().into_bytes();
                if std::mem::replace(&mut bad[at], other) != other {
                    let bad = String::from_utf8(bad).unwrap();
                    assert!(matches!(keys.verify(&bad, NOW), Err(AuthError::BadToken(_))), "{bad}");
                }
            }
        }
        for end in 0..good.len() {
            assert!(keys.verify(&good[..end], NOW).is_err(), "{end}");
        }
        assert!(keys.verify(&format!("{good}="), NOW).is_err() && keys.verify(&format!("{good}."), NOW).is_err());
    }

    #[test]
    fn what_a_token_says_of_its_algorithm_is_not_believed() {
        let keys = keys(&[OLD]);
        let good = token(&keys, &["jarvis"]);
        let claims = good.split('.').nth(1).unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512","typ":"JWT"}"#, r#"{"typ":"JWT","alg":"HS256"}"#] {
            let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
            let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&keys.0[0], signed.as_bytes()));
            assert!(keys.verify(&format!("{signed}.{signature}"), NOW).is_err(), "{header}");
            assert!(keys.verify(&format!("{signed}."), NOW).is_err(), "{header}");
        }
        assert_eq!(URL_SAFE_NO_PAD.decode(HEADER.trim_end_matches('.')).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn a_key_file_is_made_for_its_owner_alone_and_has_limits() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let (made, note) = Keys::read_or_make(&file).unwrap();
        assert!(note.unwrap().ends_with("was made"));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let token = token(&made, &["h"]);
        assert!(Keys::read_or_make(&file).unwrap().0.verify(&token, NOW).is_ok(), "it is made once");
        for (bad, why) in [("", "0 keys"), ("short", "5 bytes"), (&format!("{OLD}\n").repeat(9), "9 keys")] {
            fs::write(&file, bad).unwrap();
            let error = Keys::read(&file).err().unwrap();
            assert!(error.contains(why) && error.contains(&file.display().to_string()), "{error}");
        }
    }
}
