//! A replica that never forgets, and the truth about every put there ever was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use selfsame::dots::{Causality, Dot, DotSet, Writer};
use selfsame::entry::{Record, Sibling};
use selfsame::hash::{HashAlgorithm, KeyHash, Root, ValueHash};
use selfsame::limits::Limits;
use selfsame::merkle::{Envelope, Leaf, PagedTree};
use selfsame::replica::{
    ApplyOutcome, Collection, CollectionView, JoinRequest, KeyUpdate, RefusalReason,
};
use selfsame::store::Store;
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

/// What does not hold, as a sentence.
pub type Holds = Result<(), String>;

pub const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;

pub fn spec() -> CollectionSpec {
    let name = CollectionName::new("things").expect("a name");
    CollectionSpec { name, algorithm: ALGORITHM, policy: Policy::Siblings }
}

pub fn key(number: u8) -> Key {
    Key::new(vec![b'k', b'0' + number]).expect("a key")
}

pub fn key_hash(number: u8) -> KeyHash {
    ALGORITHM.key_hash(&key(number))
}

fn number_of(key: &Key) -> u8 {
    key.as_bytes()[1] - b'0'
}

pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Holds {
    if holds { Ok(()) } else { Err(what()) }
}

/// What a node holds and has seen, as sets that forget nothing.
#[derive(Clone, Default, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    pub entries: BTreeMap<u8, BTreeMap<Dot, Sibling>>,
    pub seen: BTreeSet<Dot>,
}

/// What the rules make of one update.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Predicted {
    pub added: u64,
    pub removed: u64,
    pub refused: Vec<(Dot, RefusalReason)>,
}

impl Predicted {
    /// The engine made just that of it.
    pub fn check(&self, outcome: &ApplyOutcome) -> Holds {
        let refused: Vec<_> = outcome.refused.iter().map(|item| (item.dot, item.reason)).collect();
        let same =
            (outcome.added, outcome.removed, &refused) == (self.added, self.removed, &self.refused);
        ensure(same, || format!("made {outcome:?} of it, not {self:?}"))
    }
}

impl Model {
    pub fn held(&self) -> impl Iterator<Item = (Dot, u8, &Sibling)> {
        self.entries.iter().flat_map(|(&key, siblings)| {
            siblings.iter().map(move |(&dot, sibling)| (dot, key, sibling))
        })
    }

    pub fn holds(&self, dot: Dot) -> bool {
        self.entries.values().any(|siblings| siblings.contains_key(&dot))
    }

    pub fn is_dead(&self, dot: Dot) -> bool {
        self.seen.contains(&dot) && !self.holds(dot)
    }

    pub fn dots(&self, key: u8) -> Vec<Dot> {
        self.entries.get(&key).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    pub fn add(&mut self, key: u8, sibling: Sibling) {
        self.entries.entry(key).or_default().insert(sibling.dot, sibling);
        self.seen.insert(sibling.dot);
    }

    /// Whether it was held.
    pub fn remove(&mut self, dot: Dot) -> bool {
        let mut held = false;
        for siblings in self.entries.values_mut() {
            held |= siblings.remove(&dot).is_some();
        }
        self.entries.retain(|_, siblings| !siblings.is_empty());
        held
    }

    /// Context and exceptions as the definition has them.
    pub fn canonical(&self) -> (BTreeMap<Writer, u64>, BTreeSet<Dot>) {
        let mut context: BTreeMap<Writer, u64> = BTreeMap::new();
        for dot in &self.seen {
            let counter = context.entry(dot.writer()).or_default();
            if dot.counter() == *counter + 1 {
                *counter += 1;
            }
        }
        context.retain(|_, counter| *counter > 0);
        let held: BTreeSet<Dot> = self.held().map(|(dot, ..)| dot).collect();
        let above = |dot: &&Dot| dot.counter() > context.get(&dot.writer()).copied().unwrap_or(0);
        let exceptions = self.seen.iter().filter(above).filter(|dot| !held.contains(dot));
        let exceptions = exceptions.copied().collect();
        (context, exceptions)
    }

    /// What a message says of one key, by rule D7.
    pub fn apply(
        &mut self,
        key: u8,
        update: &KeyUpdate,
        now_ms: u64,
        limits: &Limits,
    ) -> Predicted {
        let mut predicted = Predicted::default();
        let mut adds: Vec<Sibling> = Vec::new();
        for add in &update.add {
            let sibling = add.sibling;
            let known = self.seen.contains(&sibling.dot)
                || adds.iter().any(|other| other.dot == sibling.dot);
            if known {
                continue;
            }
            if sibling.stamp.beyond_drift(now_ms, limits.max_clock_drift_ms) {
                predicted.refused.push((sibling.dot, RefusalReason::Drift));
            } else if sibling.size > limits.max_value_bytes {
                predicted.refused.push((sibling.dot, RefusalReason::ValueSize));
            } else {
                adds.push(sibling);
            }
        }
        let go: BTreeSet<Dot> = match predicted.refused.is_empty() {
            true => update.remove.iter().copied().filter(|&dot| self.holds(dot)).collect(),
            false => BTreeSet::new(),
        };
        let stay = self.dots(key).iter().filter(|dot| !go.contains(dot)).count();
        if !adds.is_empty() && stay + adds.len() > limits.max_siblings.max(1) {
            let crowded = adds.drain(..).map(|sibling| (sibling.dot, RefusalReason::Siblings));
            predicted.refused.extend(crowded);
        }
        if predicted.refused.is_empty() {
            go.iter().for_each(|&dot| predicted.removed += u64::from(self.remove(dot)));
        }
        for sibling in adds {
            self.add(key, sibling);
            predicted.added += 1;
        }
        predicted
    }

    /// The end of a session with a peer that was `peer` when it began, by rule D8.
    pub fn join(&mut self, peer: &Self, refused: &DotSet) {
        for dot in peer.canonical().1 {
            if !refused.contains(dot) {
                self.remove(dot);
            }
        }
        self.seen.extend(peer.seen.iter().copied().filter(|&dot| !refused.contains(dot)));
    }

    /// What is held by both, or by one and not seen by the other.
    pub fn merged(&self, other: &Self) -> Self {
        let mut merged = Self { seen: &self.seen | &other.seen, ..Self::default() };
        for (one, another) in [(self, other), (other, self)] {
            for (dot, key, sibling) in one.held() {
                if !another.is_dead(dot) {
                    merged.add(key, *sibling);
                }
            }
        }
        merged
    }

    /// The root that goes with what is held.
    pub fn root(&self) -> Result<Root, String> {
        let leaves = self.entries.iter().map(|(&number, siblings)| {
            let record = Record::new(siblings.values().copied().collect()).map_err(text)?;
            let (digest, totals) = (record.digest(ALGORITHM), record.totals());
            Ok(Leaf { key: key_hash(number), record: digest, totals })
        });
        let leaves = leaves.collect::<Result<Vec<_>, String>>()?;
        let tree = PagedTree::build(ALGORITHM, 64, leaves).map_err(text)?;
        let envelope = Envelope::new(spec(), tree.tree_hash(), tree.totals()).map_err(text)?;
        Ok(envelope.root())
    }

    /// The collection is what this says, and sound throughout. Values among `lost` may be
    /// missing.
    pub fn check<S: Store>(
        &self,
        collection: &Collection<S>,
        lost: &BTreeSet<(u8, ValueHash)>,
    ) -> Holds {
        let snapshot = collection.snapshot().map_err(text)?;
        let found = snapshot.entries_after(None, usize::MAX, |_| true).map_err(text)?;
        let found: BTreeMap<u8, BTreeMap<Dot, Sibling>> = found
            .into_iter()
            .map(|entry| {
                let siblings = entry.record.siblings().iter().map(|s| (s.dot, *s)).collect();
                (number_of(&entry.key), siblings)
            })
            .collect();
        ensure(found == self.entries, || {
            format!("it holds {}, not {}", Shown(&found), Shown(&self.entries))
        })?;
        let (context, exceptions) = self.canonical();
        let causality = snapshot.causality();
        let pairs: BTreeMap<Writer, u64> = causality.pairs().collect();
        ensure(pairs == context, || format!("its context is {pairs:?}, not {context:?}"))?;
        let above: BTreeSet<Dot> = causality.exceptions().iter().collect();
        ensure(above == exceptions, || {
            format!("its exceptions are {above:?}, not {exceptions:?}")
        })?;
        let sound = |dot: &Dot| !self.holds(*dot) && !causality.covers(*dot);
        ensure(above.iter().all(sound), || format!("exceptions {above:?} are held or covered"))?;
        for (dot, key, sibling) in self.held() {
            let at = snapshot.key_of(dot).map_err(text)?;
            ensure(at == Some(key_hash(key)), || format!("the index has {dot} wrong"))?;
            let value = snapshot.value(&key_hash(key), &sibling.value_hash).map_err(text)?;
            let whole = value.is_some_and(|value| value.len() as u64 == sibling.size);
            ensure(whole || lost.contains(&(key, sibling.value_hash)), || {
                format!("the value of {dot} is lost")
            })?;
        }
        if let Some(present) = collection.present_writer().map_err(text)? {
            ensure(present.counter <= causality.counter(present.writer), || {
                format!("its writer stands at {present:?}, beyond its context")
            })?;
        }
        let report = collection.check().map_err(text)?;
        ensure(report.problems.is_empty(), || format!("it is not sound: {:?}", report.problems))?;
        let root = collection.root().map_err(text)?;
        ensure(root == snapshot.envelope().root(), || "its root is not that of its tree".into())
    }
}

pub fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Entries in one line.
struct Shown<'a>(&'a BTreeMap<u8, BTreeMap<Dot, Sibling>>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, siblings) in self.0 {
            write!(f, " k{key}={:?}", siblings.keys().collect::<Vec<_>>())?;
        }
        if self.0.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

/// How a put came to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kill {
    /// Somebody deleted it.
    Delete,
    /// Somebody put this in its place.
    Put(Dot),
}

/// All that was ever written, and by what it was ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Truth {
    pub written: BTreeMap<Dot, (u8, Sibling, Vec<u8>)>,
    pub kills: BTreeMap<Dot, BTreeSet<Kill>>,
    writers: BTreeMap<Writer, usize>,
}

impl Truth {
    /// A put: no dot ever stands for two.
    pub fn write(&mut self, key: u8, sibling: Sibling, value: Vec<u8>) -> Holds {
        let writers = self.writers.len();
        self.writers.entry(sibling.dot.writer()).or_insert(writers);
        let before = self.written.insert(sibling.dot, (key, sibling, value));
        ensure(before.is_none(), || format!("dot {} stands for two puts", sibling.dot))
    }

    pub fn kill(&mut self, dot: Dot, by: Kill) {
        self.kills.entry(dot).or_default().insert(by);
    }

    /// A dot as it is printed: writers are numbered in the order of their first puts.
    pub fn name(&self, dot: Dot) -> String {
        match self.writers.get(&dot.writer()) {
            Some(number) => format!("w{number}:{}", dot.counter()),
            None => dot.to_string(),
        }
    }

    pub fn names(&self, dots: impl IntoIterator<Item = Dot>) -> String {
        let names: Vec<_> = dots.into_iter().map(|dot| self.name(dot)).collect();
        names.join(" ")
    }

    /// The puts that stand where this one stood, after all that was done to it, and after what
    /// was done to those; none if somebody deleted it.
    pub fn heirs(&self, dot: Dot) -> BTreeSet<Dot> {
        let (mut heirs, mut left, mut met) = (BTreeSet::new(), vec![dot], BTreeSet::new());
        while let Some(dot) = left.pop() {
            if !met.insert(dot) {
                continue;
            }
            let Some(kills) = self.kills.get(&dot) else {
                heirs.insert(dot);
                continue;
            };
            for kill in kills {
                match kill {
                    Kill::Delete => return BTreeSet::new(),
                    Kill::Put(by) => left.push(*by),
                }
            }
        }
        heirs
    }

    /// Only what the peer held is given, and only what it had seen dead is named.
    pub fn claims(&self, updates: &[KeyUpdate], peer: &Model) -> Holds {
        for update in updates {
            let number = super::world::number_of(&update.key_hash)?;
            for add in &update.add {
                let held = peer.entries.get(&number).and_then(|s| s.get(&add.sibling.dot));
                ensure(held == Some(&add.sibling), || {
                    format!("{} is given and was not held", self.name(add.sibling.dot))
                })?;
            }
            for &dot in &update.remove {
                ensure(peer.is_dead(dot), || {
                    format!("{} is named and was not seen dead", self.name(dot))
                })?;
                ensure(self.kills.contains_key(&dot), || {
                    format!("{} is named and nobody removed it", self.name(dot))
                })?;
            }
        }
        Ok(())
    }

    /// A key that nobody deleted does not vanish while what replaced it lives at one of the nodes.
    pub fn vanished<'a>(
        &self,
        before: &Model,
        after: &Model,
        nodes: impl Iterator<Item = &'a Model> + Clone,
    ) -> Holds {
        let gone = before.entries.iter().filter(|(number, _)| !after.entries.contains_key(number));
        for (number, dot) in gone.flat_map(|(number, held)| held.keys().map(move |d| (number, d))) {
            for heir in self.heirs(*dot).into_iter().filter(|heir| !after.seen.contains(heir)) {
                ensure(!nodes.clone().any(|node| node.holds(heir)), || {
                    format!(
                        "k{number} vanished: {} went, and {}, which replaced it, is only elsewhere",
                        self.name(*dot),
                        self.name(heir)
                    )
                })?;
            }
        }
        Ok(())
    }

    /// What a node is after the end of a session. `mine` and `peer` are what both were when it
    /// began; `stale` says that the node was recovered since, so that nothing will be joined.
    pub fn joined(
        &self,
        before: &Model,
        request: &JoinRequest,
        [mine, peer]: [&Model; 2],
        refusals: bool,
        stale: bool,
    ) -> Result<Model, String> {
        let mut after = before.clone();
        let nothing = request.peer == Causality::default();
        let (context, exceptions) = peer.canonical();
        let empty = context.is_empty() && exceptions.is_empty();
        let refused = nothing && refusals;
        ensure(!nothing || refused || empty, || "joins nothing, and nothing was refused".into())?;
        if !refused {
            after.join(peer, &request.refused);
        }
        for &dot in after.seen.difference(&before.seen).filter(|_| !stale) {
            ensure(after.holds(dot) || !peer.holds(dot), || {
                format!("joins past {}, which it never got", self.name(dot))
            })?;
        }
        for (dot, ..) in mine.held().filter(|_| !refusals && !stale) {
            ensure(!peer.is_dead(dot) || !after.holds(dot), || {
                format!("keeps {}, which outlived a session that saw it dead", self.name(dot))
            })?;
        }
        Ok(after)
    }
}
