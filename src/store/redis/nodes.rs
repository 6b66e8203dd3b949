//! The nodes of a Redis or of a Redis Cluster, and the node of each slot.
//!
//! `CLUSTER SLOTS` of any node that answers gives the map of slots. It is asked for again when a node redirects a command
//! or does not answer. A node that redirects a command has not carried it out, so the command is sent to the right node.
//! A command without a reply may have been carried out, and is never sent again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::Value;

use super::super::StoreError;
use super::address::Address;
use super::node::{Answer, Job, Node, ask_once};

/// Slots of a cluster (the specification of Redis Cluster).
const SLOTS: u16 = 16_384;
/// Longest time for a command with its redirections: a client is promised an answer within a second.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// Most rounds of redirections: a slot moves once in the time of a command.
const ROUNDS_MAX: usize = 4;
/// How often the map of slots is refreshed while a node is away or a slot has moved.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// How often it is refreshed otherwise. A node that was added shows earlier, by redirections.
const REFRESH_ANYHOW_EVERY: Duration = Duration::from_secs(30);

/// A command for the node of a slot.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) slot: u16,
    pub(super) bytes: Vec<u8>,
    pub(super) writes: bool,
}

/// All nodes of a store.
pub(super) struct Nodes {
    shared: Arc<Shared>,
    refresher: Option<JoinHandle<()>>,
}

struct Shared {
    address: Address,
    /// `SCRIPT LOAD` of each script there is.
    scripts: Vec<Vec<u8>>,
    map: RwLock<SlotMap>,
    is_stale: AtomicBool,
    is_closing: Mutex<bool>,
    wake: Condvar,
}

#[derive(Default)]
struct SlotMap {
    nodes: Vec<Arc<Node>>,
    /// The place of each slot's node in `nodes`.
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        let place = self.owners.get(usize::from(slot)).copied().flatten()?;
        self.nodes.get(usize::from(place))
    }
}

/// A command without a reply yet.
struct Pending {
    /// Its place in the batch.
    place: usize,
    /// The node that it was redirected to.
    node: Option<Arc<Node>>,
    /// Whether the redirection was `ASK`.
    is_asking: bool,
}

/// Commands that were handed to a node.
pub(super) struct Sent {
    node: Arc<Node>,
    /// The generation in which the node was given them.
    generation: u64,
    answer: Arc<Answer>,
}

impl Sent {
    /// Whether [`Nodes::finish`] has a result: an error, or a reply that is a result. `None` where no reply has come yet.
    pub(super) fn has_result(&self, is_result: impl FnOnce(&Value) -> bool) -> Option<bool> {
        self.answer.peek(|replies| replies.as_ref().map_or(true, |replies| replies.first().is_some_and(is_result)))
    }
}

/// Commands of a batch that were handed to one node.
struct SentBatch {
    sent: Sent,
    /// The places of the commands in the batch.
    places: Vec<usize>,
    /// Places of replies that belong to no command of the batch: of scripts that are loaded, and of `ASKING`.
    skipped: Vec<usize>,
}

impl Nodes {
    /// Starts the one node, or the thread that refreshes the slots of a cluster. `scripts` load the scripts.
    pub(super) fn open(address: &Address, scripts: Vec<Vec<u8>>) -> Result<Self, String> {
        let mut map = SlotMap::default();
        if !address.is_cluster {
            map.nodes.push(Node::start(address.clone(), "lizm:probe".to_owned())?);
            map.owners = vec![Some(0); usize::from(SLOTS)];
        }
        let shared = Arc::new(Shared {
            address: address.clone(),
            scripts,
            map: RwLock::new(map),
            is_stale: AtomicBool::new(false),
            is_closing: Mutex::new(false),
            wake: Condvar::new(),
        });
        let mut refresher = None;
        if address.is_cluster {
            // Where no node answers now, one may later.
            shared.is_stale.store(shared.refresh().is_err(), Ordering::Release);
            let refreshed = shared.clone();
            let spawned = thread::Builder::new().name("redis-slots".into()).spawn(move || refreshed.keep_fresh());
            refresher =
                Some(spawned.map_err(|error| format!("store: no thread for the slots of the cluster: {error}"))?);
        }
        Ok(Self { shared, refresher })
    }

    /// Why some samples cannot be recorded now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        let map = self.shared.map.read().unwrap_or_else(PoisonError::into_inner);
        let is_whole = map.owners.len() == usize::from(SLOTS) && map.owners.iter().all(Option::is_some);
        if !is_whole {
            return Some(self.shared.incomplete());
        }
        map.nodes.iter().find_map(|node| node.unavailable())
    }

    /// Sends one command to the node of its slot, and has `waker` woken when its reply has come.
    pub(super) fn begin(&self, command: Command, waker: Option<&Waker>) -> Result<Sent, StoreError> {
        let Command { slot, bytes, writes } = command;
        let node = {
            let map = self.shared.map.read().unwrap_or_else(PoisonError::into_inner);
            map.owner(slot).cloned().ok_or_else(|| self.shared.incomplete())?
        };
        self.submit(node, bytes, 1, writes, waker)
    }

    fn submit(
        &self,
        node: Arc<Node>,
        bytes: Vec<u8>,
        replies: usize,
        writes: bool,
        waker: Option<&Waker>,
    ) -> Result<Sent, StoreError> {
        let answer = Arc::new(Answer::new(waker.cloned()));
        let submitted = node.submit(Job { bytes, replies, writes, answer: answer.clone() });
        let generation = submitted.inspect_err(|_| self.shared.mark_stale())?;
        Ok(Sent { node, generation, answer })
    }

    /// Waits for the reply to a command that writes until `deadline`. `None` where the node has not carried it out, because
    /// it belongs to another or misses its script.
    pub(super) fn finish(&self, sent: &Sent, deadline: Instant) -> Option<Result<Value, StoreError>> {
        match sent.node.wait(&sent.answer, true, sent.generation, deadline) {
            Ok(mut replies) => self.read(replies.pop()?, 0, &sent.node).ok(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Sends each command to the node of its slot, and returns their replies. A command without a reply by `deadline`
    /// fails, and so does one that a node answers with an error, and where none writes one whose node answers nobody.
    pub(super) fn run(&self, commands: &[Command], deadline: Instant) -> Vec<Result<Value, StoreError>> {
        let mut replies: Vec<Result<Value, StoreError>> =
            vec![Err(StoreError::new("Redis redirects a command again and again")); commands.len()];
        let mut pending: Vec<Pending> =
            (0..commands.len()).map(|place| Pending { place, node: None, is_asking: false }).collect();
        let (mut loads_scripts, writes) = (false, commands.iter().any(|command| command.writes));
        for _ in 0..ROUNDS_MAX {
            if pending.is_empty() {
                break;
            }
            let sent = self.send(commands, pending, loads_scripts, &mut replies);
            pending = Vec::new();
            for SentBatch { sent: Sent { node, generation, answer }, places, skipped } in sent {
                match node.wait(&answer, writes, generation, deadline) {
                    Ok(answers) => {
                        let answers = answers.into_iter().enumerate().filter(|(at, _)| !skipped.contains(at));
                        for (place, (_, reply)) in places.into_iter().zip(answers) {
                            match self.read(reply, place, &node) {
                                Ok(reply) => replies[place] = reply,
                                Err((again, misses_script)) => {
                                    loads_scripts |= misses_script;
                                    pending.push(again);
                                }
                            }
                        }
                    }
                    Err(error) => places.into_iter().for_each(|place| replies[place] = Err(error.clone())),
                }
            }
        }
        replies
    }

    /// Submits pending commands to their nodes, one job a node. Commands that a node rejects get their error at once.
    fn send(
        &self,
        commands: &[Command],
        pending: Vec<Pending>,
        loads_scripts: bool,
        replies: &mut [Result<Value, StoreError>],
    ) -> Vec<SentBatch> {
        let mut by_node: BTreeMap<*const Node, (Arc<Node>, Vec<Pending>)> = BTreeMap::new();
        {
            let map = self.shared.map.read().unwrap_or_else(PoisonError::into_inner);
            for mut pending in pending {
                match pending.node.take().or_else(|| map.owner(commands[pending.place].slot).cloned()) {
                    Some(node) => {
                        by_node.entry(Arc::as_ptr(&node)).or_insert_with(|| (node, Vec::new())).1.push(pending);
                    }
                    None => replies[pending.place] = Err(self.shared.incomplete()),
                }
            }
        }
        let mut sent = Vec::with_capacity(by_node.len());
        for (node, pending) in by_node.into_values() {
            let (mut bytes, mut count, mut skipped, mut writes) = (Vec::new(), 0, Vec::new(), false);
            if loads_scripts {
                self.shared.scripts.iter().for_each(|script| bytes.extend_from_slice(script));
                skipped.extend(0..self.shared.scripts.len());
                count = skipped.len();
            }
            for Pending { place, is_asking, .. } in &pending {
                if *is_asking {
                    bytes.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
                    skipped.push(count);
                    count += 1;
                }
                bytes.extend_from_slice(&commands[*place].bytes);
                writes |= commands[*place].writes;
                count += 1;
            }
            let places: Vec<usize> = pending.iter().map(|pending| pending.place).collect();
            match self.submit(node, bytes, count, writes, None) {
                Ok(handed) => sent.push(SentBatch { sent: handed, places, skipped }),
                Err(error) => places.into_iter().for_each(|place| replies[place] = Err(error.clone())),
            }
        }
        sent
    }

    /// Reads a reply. The error is a command to send again, and whether scripts must be loaded before.
    fn read(&self, reply: Value, place: usize, node: &Arc<Node>) -> Result<Result<Value, StoreError>, (Pending, bool)> {
        let Value::ServerError(error) = reply else { return Ok(Ok(reply)) };
        let to = |address: &str| {
            let (host, port) = address.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
            let host = if host.is_empty() { &*node.address().nodes.first()?.0 } else { host };
            self.shared.node_at(host, port.parse().ok()?).ok()
        };
        let details = error.details().unwrap_or_default();
        match error.code() {
            "NOSCRIPT" => return Err((Pending { place, node: Some(node.clone()), is_asking: false }, true)),
            code @ ("MOVED" | "ASK") if self.shared.address.is_cluster => {
                if code == "MOVED" {
                    self.shared.mark_stale();
                }
                if let Some(node) = to(details) {
                    return Err((Pending { place, node: Some(node), is_asking: code == "ASK" }, false));
                }
            }
            "MOVED" => {
                let why = format!("{} is a node of a cluster: --store redis+cluster://…", node.address());
                return Ok(Err(StoreError::new(why)));
            }
            _ => {}
        }
        Ok(Err(StoreError::new(format!("{} answers {} {details}", node.address(), error.code()))))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        *self.shared.is_closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if self.refresher.take().is_some_and(|refresher| refresher.join().is_err()) {
            log::error!("The thread that refreshes the slots of the cluster had panicked");
        }
        self.shared.map.read().unwrap_or_else(PoisonError::into_inner).nodes.iter().for_each(|node| node.close());
    }
}

impl Shared {
    fn incomplete(&self) -> StoreError {
        StoreError::new(format!("{}: not every slot of the cluster is known to have a node", self.address))
    }

    /// Has the slots of a cluster refreshed soon.
    fn mark_stale(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// The node at an address, which is added where it is new.
    fn node_at(&self, host: &str, port: u16) -> Result<Arc<Node>, String> {
        let at = self.address.at(host, port);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = map.nodes.iter().find(|node| *node.address() == at) {
            return Ok(known.clone());
        }
        let node = Node::start(at, "lizm:probe".to_owned())?;
        map.nodes.push(node.clone());
        Ok(node)
    }

    /// Refreshes the slots until the store is closed.
    fn keep_fresh(&self) {
        let (mut refreshed, mut was_logged) = (Instant::now(), false);
        loop {
            let closing = self.is_closing.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.wake.wait_timeout_while(closing, REFRESH_EVERY, |closing| !*closing);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            let is_well = {
                let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
                !map.owners.is_empty() && map.nodes.iter().all(|node| node.unavailable().is_none())
            };
            if !is_well || self.is_stale.load(Ordering::Acquire) || refreshed.elapsed() > REFRESH_ANYHOW_EVERY {
                refreshed = Instant::now();
                self.is_stale.store(false, Ordering::Release);
                let failed = self.refresh().err();
                if let Some(why) = &failed
                    && !was_logged
                {
                    log::error!("Store: {why}; it is tried again every {} ms", REFRESH_EVERY.as_millis());
                }
                was_logged = failed.is_some();
            }
        }
    }

    /// Asks a node that answers which node has which slots.
    fn refresh(&self) -> Result<(), String> {
        let known: Vec<Address> = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let well = map.nodes.iter().filter(|node| node.unavailable().is_none());
            well.map(|node| node.address().clone()).collect()
        };
        let named = self.address.nodes.iter().map(|(host, port)| self.address.at(host, *port));
        let mut failed = format!("{}: no node of the cluster answers", self.address);
        for address in known.into_iter().chain(named) {
            let slots = ask_once(&address, redis::cmd("CLUSTER").arg("SLOTS"));
            match slots.and_then(|slots| self.apply(&slots, &address)) {
                Ok(()) => return Ok(()),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    /// Applies a reply to `CLUSTER SLOTS`: of each range the first slot, last slot, master and replicas.
    fn apply(&self, slots: &Value, asked: &Address) -> Result<(), String> {
        let wrong = || format!("{asked}: the answer to CLUSTER SLOTS is not understood");
        let Value::Array(ranges) = slots else { return Err(wrong()) };
        let mut owners: Vec<Option<Address>> = vec![None; usize::from(SLOTS)];
        for range in ranges {
            let Value::Array(range) = range else { return Err(wrong()) };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return Err(wrong());
            };
            let [host, Value::Int(port), ..] = &master[..] else { return Err(wrong()) };
            let host = match host {
                Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
                // The node does not know by which name it was reached.
                _ => asked.nodes.first().map(|(host, _)| host.clone()).unwrap_or_default(),
            };
            let master = self.address.at(&host, u16::try_from(*port).map_err(|_| wrong())?);
            let range = usize::try_from(*first).ok().zip(usize::try_from(*last).ok());
            let owned = range.and_then(|(first, last)| owners.get_mut(first..=last)).ok_or_else(wrong)?;
            owned.fill(Some(master));
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let mut places = vec![None; usize::from(SLOTS)];
        for (slot, owner) in owners.into_iter().enumerate() {
            let Some(owner) = owner else { continue };
            let place = match nodes.iter().position(|node| *node.address() == owner) {
                Some(place) => place,
                None => {
                    let known = map.nodes.iter().find(|node| *node.address() == owner).cloned();
                    nodes.push(known.map_or_else(|| Node::start(owner, probe_key(slot)), Ok)?);
                    nodes.len() - 1
                }
            };
            places[slot] = u16::try_from(place).ok();
        }
        let gone =
            std::mem::take(&mut map.nodes).into_iter().filter(|old| !nodes.iter().any(|new| Arc::ptr_eq(old, new)));
        gone.for_each(|node| node.close());
        *map = SlotMap { nodes, owners: places };
        Ok(())
    }
}

/// A key near a slot, for the probe of the slot's node. A node redirects a key of another node, which shows as well that
/// it answers.
fn probe_key(slot: usize) -> String {
    let is_near = |n: &u32| usize::from(slot_of(n.to_string().as_bytes())).abs_diff(slot) < 100;
    format!("lizm:probe:{{{}}}", (0..1000).find(is_near).unwrap_or(0))
}

/// The slot of a hash tag: CRC-16/XMODEM, as the specification of Redis Cluster has it.
pub(super) fn slot_of(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // `CLUSTER KEYSLOT` of redis-server 7.0 for these.
        assert_eq!(0x31C3 % SLOTS, slot_of(b"123456789"));
        assert_eq!((slot_of(b"foo"), slot_of(b"user1000"), slot_of(b"")), (12182, 3443, 0));
    }
}
