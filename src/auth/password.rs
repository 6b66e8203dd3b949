//! The password of readers, by HTTP Basic (RFC 7617), so that a browser prompts for it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::reload::Reloaded;

/// Longest password in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The password of a file, which every reader shares.
pub struct Password(Reloaded<Digest>);

/// A keyed hash of the password: enough to compare, and not the password itself.
struct Digest {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// The password in a file: its first line.
fn read(file: &Path) -> Result<String, String> {
    let wrong = |why: &str| format!("password {}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(wrong(&format!("the first line is the password, of 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(password.to_owned())
}

/// What a reader sends in the header `Authorization`, with the password in `file`.
///
/// # Errors
/// When there is none in it; the sentence names the file.
pub fn basic(file: &Path) -> Result<String, String> {
    Ok(format!("Basic {}", STANDARD.encode(format!("lizm:{}", read(file)?))))
}

impl Digest {
    fn read(file: &Path) -> Result<Self, String> {
        let password = read(file)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| "password: the system has no random numbers to keep it by")?;
        let tag = hmac::sign(&key, password.as_bytes());
        Ok(Self { key, tag })
    }
}

impl Password {
    /// Reads the first line of `file`, and again when the file changes.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn open(file: &Path) -> Result<Self, String> {
        let path = file.to_owned();
        Reloaded::new(vec![path.clone()], move || Digest::read(&path)).map(Self)
    }

    /// Whether a header `Authorization` is of the scheme Basic.
    pub(super) fn is_given(authorization: &str) -> bool {
        authorization.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("Basic"))
    }

    /// Whether a header `Authorization` has the password, with any user name. Compares in constant time.
    #[must_use]
    pub fn is_in(&self, authorization: &str) -> bool {
        let given = authorization.split_once(' ').filter(|_| Self::is_given(authorization));
        let given = given.and_then(|(_, given)| STANDARD.decode(given.trim()).ok()).unwrap_or_default();
        let password = given.iter().position(|b| *b == b':').map_or(&[][..], |colon| &given[colon + 1..]);
        let digest = self.0.current();
        hmac::verify(&digest.key, password, digest.tag.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_whoever_gives_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        fs::write(&file, "open: sesame\nnot this\n").unwrap();
        let password = Password::open(&file).unwrap();
        let basic = |text: &str| password.is_in(&format!("Basic {}", STANDARD.encode(text)));
        assert!(basic("me:open: sesame") && basic(":open: sesame"));
        for wrong in ["me:open: sesam", "me:open: sesame\n", "open: sesame", "me:", "", "open: sesame:"] {
            assert!(!basic(wrong), "{wrong:?}");
        }
        assert!(!password.is_in("Basic") && !password.is_in("Basic !") && !password.is_in("Bearer x"));
        fs::write(&file, "\n").unwrap();
        assert!(Password::open(&file).is_err());
    }
}
