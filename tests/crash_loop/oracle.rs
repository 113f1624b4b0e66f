//! What two nodes hold and must hold, by what was asked of them and what they acknowledged.
//!
//! Every put of the test has a value of its own, known by its hash. An acknowledged operation
//! is certain; one that was killed was done whole or not at all, and the first reading decides
//! which. A session that was cut short may have moved any part of what it had to move, and
//! nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use selfsame::hash::HashAlgorithm;
use serde_json::Value;

/// A version, by its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Id(u64);

/// What a node holds: of each key the versions.
pub(crate) type Held = BTreeMap<String, BTreeSet<Id>>;

/// A put, or a delete, of one key.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) key: String,
    /// None: a delete.
    id: Option<Id>,
    size: usize,
}

impl Operation {
    /// The value that it puts.
    pub(crate) fn value(&self) -> String {
        let Some(Id(id)) = self.id else { return String::new() };
        // not one byte of it is that of another value at the same place for long
        let mut value = format!("{id}:");
        let mut state = id;
        while value.len() < self.size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value.push_str(&format!("{:x}", state >> 32));
        }
        value.truncate(self.size.max(8));
        value
    }

    pub(crate) fn is_delete(&self) -> bool {
        self.id.is_none()
    }
}

/// Operations of a process that was killed: each of another key.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) operations: Vec<Operation>,
    /// Whether they are done one after the other.
    pub(crate) ordered: bool,
    /// So many of the first ones are acknowledged.
    pub(crate) acknowledged: usize,
    /// Whether none of them is done before all of the stream before this one.
    pub(crate) last: bool,
    /// Whether its process was killed before it could begin to close: what it wrote with is lost.
    pub(crate) cut: bool,
}

impl Stream {
    /// Done one after the other, the first ones for certain.
    pub(crate) fn ordered(operations: Vec<Operation>, acknowledged: usize) -> Self {
        Self { operations, ordered: true, acknowledged, last: false, cut: false }
    }

    /// Done in any order.
    pub(crate) fn unordered(operations: Vec<Operation>) -> Self {
        Self { operations, ordered: false, acknowledged: 0, last: false, cut: false }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Fact {
    key: String,
    id: Id,
    stamp: String,
}

#[derive(Default)]
struct Node {
    held: Held,
    pending: Vec<Stream>,
    /// All that it held since both were the same.
    ever: BTreeSet<Id>,
    /// What it put.
    put: BTreeSet<Id>,
    /// Its process was killed while it had the store open, and was not about to close it.
    cut: bool,
    /// What it replaced or deleted since both were the same: nobody else may have heard of it.
    killed: BTreeSet<Id>,
    /// A restore was killed: it stands there, or where it stood.
    perhaps: Option<Moment>,
}

/// Where a node stood when it was backed up.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    held: Held,
    killed: BTreeSet<Id>,
    /// How often both had been the same by then.
    met: u64,
}

/// What is known of two nodes.
#[derive(Default)]
pub(crate) struct Oracle {
    nodes: [Node; 2],
    last: u64,
    /// Key of every value by its hash, done or not.
    written: HashMap<String, (String, Id)>,
    /// What was read under each dot, ever: (writer, counter).
    facts: BTreeMap<(String, u64), Fact>,
    dots: HashMap<Id, (String, u64)>,
    /// Versions that were replaced or deleted by somebody who saw them.
    dead: BTreeSet<Id>,
    /// Writers of processes that were killed: no version may have them that did not by then.
    retired: BTreeSet<String>,
    /// A session may have moved anything since the last reading.
    pub(crate) session: bool,
    /// How often both were the same.
    met: u64,
}

impl Oracle {
    pub(crate) fn put(&mut self, node: usize, key: &str, size: usize) -> Operation {
        self.last += 1;
        let id = Id(self.last);
        self.nodes[node].put.insert(id);
        let operation = Operation { key: key.to_owned(), id: Some(id), size };
        let hash = HashAlgorithm::Blake3.value_hash(operation.value().as_bytes()).to_string();
        let known = self.written.insert(hash, (key.to_owned(), id));
        assert!(known.is_none(), "two values are the same");
        operation
    }

    pub(crate) fn delete(&self, key: &str) -> Operation {
        Operation { key: key.to_owned(), id: None, size: 0 }
    }

    pub(crate) fn keys(&self, node: usize) -> impl Iterator<Item = &String> {
        self.nodes[node].held.keys()
    }

    /// An operation is certain.
    pub(crate) fn acknowledged(&mut self, node: usize, operation: &Operation) {
        let node = &mut self.nodes[node];
        let before = node.held.remove(&operation.key).unwrap_or_default();
        node.killed.extend(before);
        if let Some(id) = operation.id {
            node.held.insert(operation.key.clone(), [id].into());
            node.ever.insert(id);
        }
    }

    /// Operations may be done.
    pub(crate) fn begun(&mut self, node: usize, stream: Stream) {
        let node = &mut self.nodes[node];
        node.ever.extend(stream.operations.iter().filter_map(|operation| operation.id));
        node.pending.push(stream);
    }

    /// The process of a node was killed while it had the store open, far from closing it.
    pub(crate) fn cut(&mut self, node: usize) {
        self.nodes[node].cut = true;
    }

    /// Where a node stands now.
    pub(crate) fn moment(&self, node: usize) -> Moment {
        let Node { held, killed, .. } = &self.nodes[node];
        Moment { held: held.clone(), killed: killed.clone(), met: self.met }
    }

    /// A node was restored: what only it had or had removed since then is forgotten, and it goes
    /// on with none of its writers.
    pub(crate) fn restored(&mut self, node: usize, moment: Moment) {
        let met = self.met;
        let node = &mut self.nodes[node];
        // what it had removed before both were the same, the other one knows
        node.killed = if moment.met == met { moment.killed } else { BTreeSet::new() };
        node.ever = moment.held.values().flatten().copied().collect();
        node.held = moment.held;
        node.cut = true;
    }

    /// A node was restored, or not: the next reading tells.
    pub(crate) fn perhaps_restored(&mut self, node: usize, moment: Moment) {
        self.nodes[node].perhaps = Some(moment);
    }

    fn is_dead(&self, id: Id) -> bool {
        self.dead.contains(&id) || self.nodes.iter().any(|node| node.killed.contains(&id))
    }

    /// Takes in what both nodes hold, after whatever happened to them.
    pub(crate) fn read(&mut self, dumps: [&[Value]; 2]) {
        let found = dumps.map(|dump| self.parse(dump));
        for (node, found) in found.iter().enumerate() {
            if let Some(moment) = self.nodes[node].perhaps.take()
                && moment.held == *found
                && self.nodes[node].held != *found
            {
                self.restored(node, moment);
            }
            let mut whole = true;
            for stream in std::mem::take(&mut self.nodes[node].pending) {
                whole = self.resolve(node, &stream, found, whole);
            }
        }
        for (node, found) in found.into_iter().enumerate() {
            self.compare(node, &found);
            let node = &mut self.nodes[node];
            node.ever.extend(found.values().flatten());
            node.held = found;
        }
        self.retire();
        self.session = false;
    }

    /// What was cut goes on with none of the writers that its node has had.
    fn retire(&mut self) {
        for node in &mut self.nodes {
            if std::mem::take(&mut node.cut) {
                let dots = node.put.iter().filter_map(|id| self.dots.get(id));
                self.retired.extend(dots.map(|(writer, _)| writer.clone()));
            }
        }
    }

    /// What both must hold once they have spoken.
    pub(crate) fn living(&self) -> Held {
        let mut living = Held::new();
        for node in &self.nodes {
            for (key, ids) in &node.held {
                let ids = ids.iter().filter(|id| !self.is_dead(**id));
                living.entry(key.clone()).or_default().extend(ids);
            }
        }
        living.retain(|_, ids| !ids.is_empty());
        living
    }

    /// Both have the same root, and one of them holds this.
    pub(crate) fn read_of_both(&mut self, dump: &[Value]) {
        let found = self.parse(dump);
        let living = self.living();
        for (key, ids) in &living {
            assert_eq!(found.get(key), Some(ids), "{key} after a session");
        }
        let more: Vec<_> = found.keys().filter(|key| !living.contains_key(*key)).collect();
        assert!(more.is_empty(), "nobody should hold any more: {more:?}");
        self.met += 1;
        for node in &mut self.nodes {
            self.dead.append(&mut node.killed);
            node.ever = found.values().flatten().copied().collect();
            node.held.clone_from(&found);
        }
    }

    /// Every version is one that was put, under the dot under which it always was.
    fn parse(&mut self, dump: &[Value]) -> Held {
        let mut held = Held::new();
        for line in dump {
            let key = hex::decode(line["key_hex"].as_str().unwrap()).unwrap();
            let key = String::from_utf8(key).unwrap();
            for sibling in line["siblings"].as_array().unwrap() {
                let text = |name: &str| sibling[name].as_str().unwrap().to_owned();
                let Some((of, id)) = self.written.get(&text("value_hash")) else {
                    panic!("{key} holds what nobody has put: {sibling}");
                };
                assert_eq!(of, &key, "{sibling} was put under another key");
                let dot = (text("writer"), sibling["counter"].as_u64().unwrap());
                let fact = Fact { key: key.clone(), id: *id, stamp: text("stamp") };
                let known = self.facts.entry(dot.clone()).or_insert_with(|| {
                    let resumed = self.retired.contains(&dot.0);
                    assert!(!resumed, "the writer of a killed process went on: {dot:?}");
                    fact.clone()
                });
                assert_eq!(*known, fact, "dot {dot:?} stands for two versions");
                let known = self.dots.entry(*id).or_insert_with(|| dot.clone());
                assert_eq!(*known, dot, "{fact:?} has two dots");
                held.entry(key.clone()).or_default().insert(*id);
            }
        }
        held
    }

    /// Which operations were done: each whole or not at all. Whether all of them were.
    fn resolve(&mut self, node: usize, stream: &Stream, found: &Held, whole_before: bool) -> bool {
        let none = BTreeSet::new();
        let (mut undone, mut any) = (None, false);
        for (at, operation) in stream.operations.iter().enumerate() {
            let now = found.get(&operation.key).unwrap_or(&none);
            let before = self.nodes[node].held.get(&operation.key).unwrap_or(&none);
            // when nothing stands there, nothing tells whether a delete came
            let done = match operation.id {
                Some(id) => now.contains(&id),
                None => before.is_empty() || now.is_empty(),
            };
            assert!(
                done || at >= stream.acknowledged,
                "{operation:?} was acknowledged, and is lost: {before:?}, {now:?}"
            );
            if !done {
                undone = Some(at);
                continue;
            }
            if let Some(undone) = undone.filter(|_| stream.ordered) {
                let first = &stream.operations[undone];
                panic!("{operation:?} is done, and {first:?}, which came before, is not");
            }
            let certain = operation.id.is_some() || !before.is_empty();
            assert!(
                whole_before || !certain || !stream.last,
                "{operation:?} is done, and not all that came before"
            );
            any |= certain;
            self.acknowledged(node, operation);
        }
        self.nodes[node].cut |= stream.cut && any;
        undone.is_none()
    }

    /// All that is not explained by operations is explained by a session, if there was one.
    fn compare(&self, at: usize, found: &Held) {
        let none = BTreeSet::new();
        let (node, peer) = (&self.nodes[at], &self.nodes[1 - at]);
        let keys: BTreeSet<&String> = node.held.keys().chain(found.keys()).collect();
        for key in keys {
            let expected = node.held.get(key).unwrap_or(&none);
            let found = found.get(key).unwrap_or(&none);
            if expected == found {
                continue;
            }
            assert!(self.session, "node {at}, {key}: {found:?} in place of {expected:?}");
            for id in found.difference(expected) {
                assert!(peer.ever.contains(id), "node {at}, {key}: nobody could give {id:?}");
                assert!(!node.ever.contains(id), "node {at}, {key}: {id:?} is back");
            }
            for id in expected.difference(found) {
                assert!(self.is_dead(*id), "node {at}, {key}: {id:?} was removed by nobody");
            }
        }
    }
}
