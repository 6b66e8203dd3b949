//! Hosts that have joined, each with a token of its own that it was given for a join token, and hosts that are shut out.
//!
//! Both are records of the store, so that all receivers that share it know them. A name joins once: whoever asks for it
//! again is refused until it is shut out, but for the same asker, whose first answer may have been lost. A host that is
//! shut out is good by no token that was made before, and by no certificate until it joins again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::auth::{AuthError, Identity, Principal};
use crate::store::{Records, Store, StoreError, Swap};

/// How long a host's own token is good.
pub const OWN_VALID: Duration = Duration::from_secs(30 * 86_400);
/// The kinds of the records.
const JOINED: char = 'j';
const SHUT_OUT: char = 'r';
/// Most hosts that have joined. When there is no room, those go whose tokens have run out.
const JOINED_MAX: usize = 100_000;
/// Most hosts that are shut out.
const SHUT_OUT_MAX: usize = 100_000;

/// A host that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Joined {
    /// When it joined, in seconds since the Unix epoch.
    pub joined_at: u64,
    /// When its newest token was made, in seconds since the Unix epoch.
    pub renewed_at: u64,
    /// The digest of what the asker is known again by, if it has said something.
    asker: Option<String>,
}

/// A host that is shut out, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShutOut {
    /// The tokens that were made until then are not good for it, in seconds since the Unix epoch.
    pub shut_out_at: u64,
    /// Whether it has joined again.
    pub is_back: bool,
}

/// Why a host is not given a token.
#[derive(Debug)]
pub enum JoinError {
    /// Another has joined by this name.
    Taken,
    /// The host was shut out after the join token was made.
    ShutOut,
    /// There are as many hosts as may be.
    Full,
    /// The store cannot take it.
    Store(StoreError),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => {
                f.write_str("host: has joined already; 'lizm token --revoke' shuts it out, and frees its name")
            }
            Self::ShutOut => {
                f.write_str("host: was shut out after this join token was made; a newer one lets it in again")
            }
            Self::Full => write!(f, "host: {JOINED_MAX} have joined already, the limit"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for JoinError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Who has joined, and who is shut out.
pub struct Joins {
    store: Arc<Store>,
    /// Who is shut out, as of the last look into the store.
    shut_out: RwLock<HashMap<SmolStr, ShutOut>>,
}

impl Joins {
    /// The joins of a store, which is not read yet.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, shut_out: RwLock::default() }
    }

    /// Reads who is shut out. Other receivers may have changed it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn reload(&self) -> Result<(), StoreError> {
        let records = self.store.records(SHUT_OUT)?;
        let read =
            records.iter().filter_map(|(key, record)| Some((host_of(key).into(), parse(key, record.as_deref()?)?)));
        *self.shut_out.write().unwrap_or_else(PoisonError::into_inner) = read.collect();
        Ok(())
    }

    fn shut_out(&self, host: &str) -> Option<ShutOut> {
        self.shut_out.read().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    /// Checks that a principal, which may act for `host`, is not one that was shut out.
    ///
    /// # Errors
    /// When it was.
    pub fn check(&self, principal: &Principal, host: &str) -> Result<(), AuthError> {
        let Principal::Identity(identity) = principal else { return Ok(()) };
        match self.shut_out(host) {
            Some(record) if !identity.is_operator && record.bars(identity) => {
                Err(AuthError::ShutOut { host: host.to_owned(), identity: identity.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Lets a host join at `now` by a join token that was made at `made_at`. `asker` is what the one who asks is known
    /// again by. Returns when its own token is to be made, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it may not join.
    pub fn join(&self, host: &str, asker: Option<String>, made_at: u64, now: u64) -> Result<u64, JoinError> {
        self.reload()?;
        let shut_out = self.shut_out(host);
        if shut_out.is_some_and(|record| made_at < record.shut_out_at) {
            return Err(JoinError::ShutOut);
        }
        // Later than what is not good any more, in the same second too.
        let at = shut_out.map_or(now, |record| now.max(record.shut_out_at + 1));
        match self.hold(host, Joined { joined_at: at, renewed_at: at, asker: asker.clone() }, now)? {
            Some(held) if held.asker.is_none() || held.asker != asker => return Err(JoinError::Taken),
            Some(held) => self.note_renewal(host, held, at)?,
            None => {}
        }
        if let Some(record) = shut_out.filter(|record| !record.is_back) {
            self.write(SHUT_OUT, host, &ShutOut { is_back: true, ..record })?;
            self.reload()?;
        }
        Ok(at)
    }

    /// Notes that a host is given another token of its own at `now`.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn renew(&self, host: &str, now: u64) -> Result<(), JoinError> {
        // A store in memory may have forgotten it.
        if let Some(held) = self.hold(host, Joined { joined_at: now, renewed_at: now, asker: None }, now)? {
            self.note_renewal(host, held, now)?;
        }
        Ok(())
    }

    fn note_renewal(&self, host: &str, held: Joined, now: u64) -> Result<(), StoreError> {
        match self.swap(host, Some(&held), &Joined { renewed_at: now, ..held.clone() })? {
            Swap::Done => Ok(()),
            _ => Err(StoreError::new("another request of this host has come at the same time")),
        }
    }

    /// Makes the record of a host that has joined, or returns the one that there is.
    fn hold(&self, host: &str, new: Joined, now: u64) -> Result<Option<Joined>, JoinError> {
        let mut swapped = self.swap(host, None, &new)?;
        if swapped == Swap::Full {
            self.remove_expired(now)?;
            swapped = self.swap(host, None, &new)?;
        }
        match swapped {
            Swap::Done => Ok(None),
            Swap::Full => Err(JoinError::Full),
            // A record that cannot be read is somebody's.
            Swap::Other(held) => match held.and_then(|held| parse(host, &held)) {
                Some(held) => Ok(Some(held)),
                None => Err(JoinError::Taken),
            },
        }
    }

    /// Removes the hosts whose tokens have run out.
    fn remove_expired(&self, now: u64) -> Result<(), StoreError> {
        let mut records = self.store.records(JOINED)?;
        records.retain(|key, record| {
            let joined = record.as_deref().and_then(|record| parse::<Joined>(key, record));
            joined.is_some_and(|joined| joined.renewed_at.saturating_add(OWN_VALID.as_secs()) < now)
        });
        records.values_mut().for_each(|record| *record = None);
        self.store.write_records(&records, None)
    }

    /// Shuts a host out at `now`, and frees its name. Returns whether it had joined.
    ///
    /// # Errors
    /// When the store cannot be read or written, or as many are shut out as may be.
    pub fn shut_out_host(&self, host: &str, now: u64) -> Result<bool, JoinError> {
        self.reload()?;
        let count = self.shut_out.read().unwrap_or_else(PoisonError::into_inner).len();
        if count >= SHUT_OUT_MAX && self.shut_out(host).is_none() {
            return Err(JoinError::Full);
        }
        let held = self.joined()?.remove(host);
        // The clock of the receiver that has made its token may be ahead of this one's.
        let shut_out_at = held.as_ref().map_or(now, |held| held.renewed_at.max(now));
        self.write(SHUT_OUT, host, &ShutOut { shut_out_at, is_back: false })?;
        self.store.write_records(&Records::from([(key_of(JOINED, host), None)]), None)?;
        self.reload()?;
        Ok(held.is_some())
    }

    /// The hosts that have joined.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn joined(&self) -> Result<BTreeMap<String, Joined>, StoreError> {
        let records = self.store.records(JOINED)?;
        let read = |(key, record): (&String, &Option<Vec<u8>>)| {
            Some((host_of(key).to_owned(), parse(key, record.as_deref()?)?))
        };
        Ok(records.iter().filter_map(read).collect())
    }

    /// The hosts that are shut out, sorted, and those that were and are back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all_shut_out(&self) -> Result<Vec<(SmolStr, ShutOut)>, StoreError> {
        self.reload()?;
        let known = self.shut_out.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut hosts: Vec<_> = known.into_iter().collect();
        hosts.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(hosts)
    }

    fn swap(&self, host: &str, old: Option<&Joined>, new: &Joined) -> Result<Swap, StoreError> {
        let old = old.map(encode).transpose()?;
        self.store.swap_record(&key_of(JOINED, host), old.as_deref(), &encode(new)?, JOINED_MAX)
    }

    fn write(&self, kind: char, host: &str, record: &impl Serialize) -> Result<(), StoreError> {
        self.store.write_records(&Records::from([(key_of(kind, host), Some(encode(record)?))]), None)
    }
}

impl ShutOut {
    /// Whether the bearer is shut out by this.
    fn bars(self, identity: &Identity) -> bool {
        identity.issued_at <= self.shut_out_at || identity.fingerprint.is_some() && !self.is_back
    }
}

fn key_of(kind: char, host: &str) -> String {
    format!("{kind}{host}")
}

/// The host of a key, behind its kind.
fn host_of(key: &str) -> &str {
    key.get(1..).unwrap_or_default()
}

fn encode(record: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::new(error.to_string()))
}

/// Reads a record. The log names one that cannot be read.
fn parse<'r, T: Deserialize<'r>>(key: &str, record: &'r [u8]) -> Option<T> {
    serde_json::from_slice(record).inspect_err(|error| log::error!("Joins: record {key:?} is left out: {error}")).ok()
}
