//! Any text as a token, and any names and times in one: a token is good only if a key has signed it, for its hosts and until
//! its end. The first byte chooses what is tried.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use lizm::auth::{AuthError, Identity, Keys, Password, Principal, TOKEN_BYTES_MAX, bearer};
use lizm::sample::check_host;

use crate::asked::NOW;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("key");
    fs::write(&file, "a key of the fuzzer, of more than thirty-two bytes\n").expect("a file");
    Keys::read(&file).expect("a key")
});

static PASSWORD: LazyLock<Password> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "correct horse battery staple\n").expect("a file");
    Password::open(&file).expect("a password")
});

pub(crate) fn run(input: &[u8]) {
    let Some((what, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match what % 3 {
        0 => strange(text),
        1 => issued(text),
        _ => changed(text),
    }
}

/// A text that no key has signed.
fn strange(text: &str) {
    let token = bearer(text).unwrap_or(text);
    assert!(matches!(KEYS.verify(token, NOW), Err(AuthError::BadToken(_))), "{token:?}");
    assert!(!PASSWORD.is_in(text), "{text:?}");
}

fn token(hosts: &str) -> Option<(String, Vec<String>)> {
    let hosts: Vec<String> = hosts.split('\n').map(str::to_owned).collect();
    let issued = KEYS.issue(Identity { hosts: hosts.clone(), ..Identity::default() }, Duration::from_secs(300), NOW);
    Some((issued.ok()?.token().to_owned(), hosts))
}

/// A token for any hosts, a line each.
fn issued(text: &str) {
    let Some((token, hosts)) = token(text) else {
        let is_refused = |host| check_host(host).is_err() || matches!(host, "*" | "*.");
        assert!(text.split('\n').any(is_refused) || text.len() > TOKEN_BYTES_MAX / 4);
        return;
    };
    assert!(token.len() <= TOKEN_BYTES_MAX);
    assert_eq!(bearer(&format!("Bearer {token}")), Some(&*token));
    let identity = KEYS.verify(&token, NOW + 299).expect("it is valid");
    assert_eq!(identity.hosts, hosts);
    assert!(matches!(KEYS.verify(&token, NOW + 300), Err(AuthError::Expired { .. })));
    let principal = Principal::Identity(identity.into());
    for host in hosts.iter().filter(|host| !host.starts_with("*.")) {
        assert!(principal.authorize(host, NOW).is_ok(), "{host:?}");
    }
    // No wildcard stands for a name of one label, and none of the names is as long.
    let other = "x".repeat(hosts.iter().map(String::len).max().unwrap_or(0) + 1);
    assert!(principal.authorize(&other, NOW).is_err(), "{other:?}");
}

/// A good token in which a part is replaced by any other.
fn changed(text: &str) {
    let Some((good, _)) = token("jarvis") else { unreachable!("it is short") };
    let mut characters = text.chars();
    let at = characters.next().map_or(0, |character| character as usize % good.len());
    let rest = characters.as_str();
    let end = (at + rest.len()).min(good.len());
    let bad = format!("{}{rest}{}", &good[..at], &good[end..]);
    assert_eq!(KEYS.verify(&bad, NOW).is_ok(), bad == good, "{bad:?}");
}
