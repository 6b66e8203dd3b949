//! The token that a connection has sent last: while it sends the same, its signature need not be verified again.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::identity::{AuthError, Identity};
use super::token::Keys;

/// Longest token in bytes that is kept: most are a few hundred. Idle connections are to be small.
const KEPT_BYTES_MAX: usize = 1024;

/// What the last good token of a connection was, and whose.
#[derive(Default)]
pub struct LastToken(RefCell<Option<Box<Verified>>>);

struct Verified {
    token: Box<str>,
    identity: Arc<Identity>,
    /// What has verified it. Keys that are read again are others.
    keys: Arc<Keys>,
}

/// No token is ever logged.
impl fmt::Debug for LastToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastToken")
    }
}

impl LastToken {
    /// As [`Keys::verify`].
    pub(super) fn verify(&self, token: &str, keys: Arc<Keys>, now: u64) -> Result<Arc<Identity>, AuthError> {
        let mut last = self.0.borrow_mut();
        if let Some(Verified { token: known, identity, keys: by }) = last.as_deref()
            && **known == *token
            && Arc::ptr_eq(by, &keys)
            && identity.expires_at.is_some_and(|end| now < end)
        {
            return Ok(identity.clone());
        }
        let identity = Arc::new(keys.verify(token, now)?);
        if token.len() <= KEPT_BYTES_MAX {
            *last = Some(Box::new(Verified { token: token.into(), identity: identity.clone(), keys }));
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_same_token_is_good_until_it_expires_or_the_keys_are_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let keys = |line: &str| {
            std::fs::write(file.path(), line.repeat(32)).unwrap();
            Arc::new(Keys::read(file.path()).unwrap())
        };
        let (keys, others) = (keys("a"), keys("b"));
        let issue = |host: &str| {
            let identity = Identity { hosts: vec![host.to_owned()], ..Identity::default() };
            keys.issue(identity, Duration::from_secs(300), 1000).unwrap().token().to_owned()
        };
        let (last, a, b) = (LastToken::default(), issue("a"), issue("b"));
        let hosts = |token: &str, keys: &Arc<Keys>, now| Ok(last.verify(token, keys.clone(), now)?.hosts.clone());
        let first = last.verify(&a, keys.clone(), 1000).unwrap();
        assert!(Arc::ptr_eq(&first, &last.verify(&a, keys.clone(), 1299).unwrap()), "it is not verified again");
        assert_eq!(hosts(&b, &keys, 1000), Ok(vec!["b".to_owned()]));
        let mut damaged = b.clone();
        damaged.pop();
        assert!(matches!(hosts(&damaged, &keys, 1000), Err(AuthError::BadToken(_))));
        assert!(matches!(hosts(&b, &others, 1000), Err(AuthError::BadToken(_))));
        assert!(matches!(hosts(&b, &keys, 1300), Err(AuthError::Expired { ago_sec: 0, .. })));
        assert_eq!(hosts(&b, &keys, 1000), Ok(vec!["b".to_owned()]));
        assert_eq!(format!("{last:?}"), "LastToken");
    }
}
