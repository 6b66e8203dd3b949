//! Which server has a key: the one there is, or that of a cluster whose slots it is in.
//!
//! A cluster is learned from `CLUSTER SLOTS` of any node that answers, and again when a node says that a slot has moved
//! or does not answer. A command that a node has refused for that reason was not carried out, and goes where it belongs;
//! one that was not answered may have been, and is not sent again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::Value;

use super::super::StoreError;
use super::address::Address;
use super::node::{Answer, Job, Node, ask_once};

/// Slots of a cluster (the specification of Redis Cluster).
const SLOTS: u16 = 16_384;
/// Longest time for a command with all that follows from it: a client is promised an answer within a second.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// How often a command is sent where it was told to go: a slot moves once while it is asked for.
const ROUNDS_MAX: usize = 4;
/// How often a cluster that is not well is asked for its slots.
const LEARN_EVERY: Duration = Duration::from_millis(500);
/// How often one that is well is: a node that was added says so earlier, by refusing.
const LEARN_ANYHOW_EVERY: Duration = Duration::from_secs(30);

/// A command for the server that has a slot.
pub(super) struct Command {
    pub(super) slot: u16,
    pub(super) bytes: Vec<u8>,
    pub(super) writes: bool,
}

/// All servers of a store.
pub(super) struct Nodes {
    shared: Arc<Shared>,
    learner: Option<JoinHandle<()>>,
}

struct Shared {
    address: Address,
    /// `SCRIPT LOAD` of each script there is.
    scripts: Vec<Vec<u8>>,
    map: RwLock<Map>,
    is_stale: AtomicBool,
    is_closing: Mutex<bool>,
    wake: Condvar,
}

#[derive(Default)]
struct Map {
    nodes: Vec<Arc<Node>>,
    /// The place of each slot's node among them.
    owners: Vec<Option<u16>>,
}

/// A command on its way: its place among those that were given, and where it was told to go.
struct Pending {
    place: usize,
    node: Option<Arc<Node>>,
    is_asking: bool,
}

impl Nodes {
    /// Knows the one server, or begins to learn the cluster. `scripts` are what a node is sent that misses one.
    pub(super) fn open(address: &Address, scripts: Vec<Vec<u8>>) -> Result<Self, String> {
        let mut map = Map::default();
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
        let mut learner = None;
        if address.is_cluster {
            // Where no node answers now, one may later.
            shared.is_stale.store(shared.learn().is_err(), Ordering::Release);
            let learning = shared.clone();
            let spawned = thread::Builder::new().name("redis-cluster".into()).spawn(move || learning.keep_learning());
            learner = Some(spawned.map_err(|error| format!("store: no thread to learn the cluster: {error}"))?);
        }
        Ok(Self { shared, learner })
    }

    /// Why some samples cannot be taken now, if so.
    pub(super) fn unavailable(&self) -> Option<StoreError> {
        let map = self.shared.map.read().unwrap_or_else(PoisonError::into_inner);
        let is_whole = map.owners.len() == usize::from(SLOTS) && map.owners.iter().all(Option::is_some);
        if !is_whole {
            return Some(self.shared.incomplete());
        }
        map.nodes.iter().find_map(|node| node.unavailable())
    }

    /// Sends each command to the server that has its slot, and gives their replies, each within [`ANSWER_WITHIN`]. An
    /// error that a server answers is given as why it is unavailable.
    pub(super) fn run(&self, commands: &[Command], deadline: Instant) -> Vec<Result<Value, StoreError>> {
        let mut replies: Vec<Result<Value, StoreError>> =
            vec![Err(StoreError::new("a slot moves on and on")); commands.len()];
        let mut pending: Vec<Pending> =
            (0..commands.len()).map(|place| Pending { place, node: None, is_asking: false }).collect();
        let mut loads_scripts = false;
        for _ in 0..ROUNDS_MAX {
            if pending.is_empty() {
                break;
            }
            let sent = self.send(commands, pending, loads_scripts, &mut replies);
            pending = Vec::new();
            for (node, places, skipped, answer) in sent {
                match answer.wait(deadline) {
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
                    Err(unavailable) => {
                        places.into_iter().for_each(|place| replies[place] = Err(unavailable.clone()));
                    }
                }
            }
        }
        replies
    }

    /// Hands the commands that are pending to their nodes, one job each. What a node refuses is a reply at once.
    #[expect(clippy::type_complexity, reason = "it is read once, by its caller")]
    fn send(
        &self,
        commands: &[Command],
        pending: Vec<Pending>,
        loads_scripts: bool,
        replies: &mut [Result<Value, StoreError>],
    ) -> Vec<(Arc<Node>, Vec<usize>, Vec<usize>, Arc<Answer>)> {
        let mut by_node: BTreeMap<*const Node, (Arc<Node>, Vec<Pending>)> = BTreeMap::new();
        {
            let map = self.shared.map.read().unwrap_or_else(PoisonError::into_inner);
            for mut pending in pending {
                let owner = || {
                    let owner = map.owners.get(usize::from(commands[pending.place].slot)).copied().flatten();
                    owner.and_then(|owner| map.nodes.get(usize::from(owner))).cloned()
                };
                match pending.node.take().or_else(owner) {
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
            let (places, answer) = (pending.iter().map(|pending| pending.place).collect(), Arc::new(Answer::default()));
            match node.submit(Job { bytes, replies: count, writes, answer: answer.clone() }) {
                Ok(()) => sent.push((node, places, skipped, answer)),
                Err(unavailable) => {
                    pending.iter().for_each(|pending| replies[pending.place] = Err(unavailable.clone()));
                    self.shared.doubt();
                }
            }
        }
        sent
    }

    /// A reply as it is given; or as an error what to do instead, and whether for want of a script.
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
                    self.shared.doubt();
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
        if self.learner.take().is_some_and(|learner| learner.join().is_err()) {
            log::error!("The thread that learns the cluster had panicked");
        }
        self.shared.map.read().unwrap_or_else(PoisonError::into_inner).nodes.iter().for_each(|node| node.close());
    }
}

impl Shared {
    fn incomplete(&self) -> StoreError {
        StoreError::new(format!("{}: not every slot of the cluster is known to have a node", self.address))
    }

    /// Has the slots of a cluster learned again soon.
    fn doubt(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// The node at an address: a known one, or one that was not known before.
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

    /// The learner's thread.
    fn keep_learning(&self) {
        let (mut learned, mut was_told) = (Instant::now(), false);
        loop {
            let closing = self.is_closing.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.wake.wait_timeout_while(closing, LEARN_EVERY, |closing| !*closing);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            let is_well = {
                let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
                !map.owners.is_empty() && map.nodes.iter().all(|node| node.unavailable().is_none())
            };
            if !is_well || self.is_stale.load(Ordering::Acquire) || learned.elapsed() > LEARN_ANYHOW_EVERY {
                learned = Instant::now();
                self.is_stale.store(false, Ordering::Release);
                let failed = self.learn().err();
                if let Some(why) = &failed
                    && !was_told
                {
                    log::error!("Store: {why}; it is tried again every {} ms", LEARN_EVERY.as_millis());
                }
                was_told = failed.is_some();
            }
        }
    }

    /// Learns from a node that answers which node has which slots.
    fn learn(&self) -> Result<(), String> {
        let known: Vec<Address> = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let well = map.nodes.iter().filter(|node| node.unavailable().is_none());
            well.map(|node| node.address().clone()).collect()
        };
        let named = self.address.nodes.iter().map(|(host, port)| self.address.at(host, *port));
        let mut failed = format!("{}: no node of the cluster answers", self.address);
        for address in known.into_iter().chain(named) {
            let slots = ask_once(&address, redis::cmd("CLUSTER").arg("SLOTS"));
            match slots.and_then(|slots| self.take(&slots, &address)) {
                Ok(()) => return Ok(()),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    /// Takes an answer to `CLUSTER SLOTS`: first slot, last slot, master, replicas.
    fn take(&self, slots: &Value, asked: &Address) -> Result<(), String> {
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
        *map = Map { nodes, owners: places };
        Ok(())
    }
}

/// A key that the node of about these slots may be asked to write. That of another node it refuses, which shows that it
/// answers.
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
