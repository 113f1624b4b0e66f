//! All nodes, and what is done to one of them; after each step it must be what the oracle says.

use std::sync::Arc;

use selfsame::dots::Dot;
use selfsame::entry::Sibling;
use selfsame::hash::KeyHash;
use selfsame::replica::{
    ApplyOutcome, CollectionView, IncomingSibling, JoinRequest, KeyUpdate, ReplicaError,
};

use selfsame::store::Durability;

use super::dice::Dice;
use super::disk::{Disk, WriteFault};
use super::flight::Flight;
use super::mutant::{self, Mutant};
use super::node::{Backup, Ghost, Node, Stand, Things, name};
use super::oracle::{Holds, Kill, Model, Truth, ensure, key, key_hash, text};
use super::profile::Profile;
use super::trace::Trace;

/// Writes a line of the history.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        $world.trace.note(format_args!($($what)*))
    };
}
pub(super) use note;

/// A sibling on its way outside a session, with what it superseded (rule D9).
pub struct Push {
    key: u8,
    sibling: Sibling,
    value: Vec<u8>,
    superseded: Vec<Dot>,
}

/// What the engine said, where it may fail: what it says is for a session to know.
pub type Answer<T> = Result<T, String>;

pub struct World {
    pub seed: u64,
    pub dice: Dice,
    pub now_ms: u64,
    pub profile: Profile,
    pub mutant: Option<Mutant>,
    pub nodes: Vec<Node>,
    pub flights: Vec<Flight>,
    pub flights_begun: u64,
    pub pushes: Vec<Push>,
    pub backups: Vec<Backup>,
    pub truth: Truth,
    pub trace: Trace,
    /// How sessions ended, by word.
    pub outcomes: std::collections::BTreeMap<&'static str, u64>,
}

pub fn number_of(hash: &KeyHash) -> Result<u8, String> {
    let known = (0..10).find(|&number| key_hash(number) == *hash);
    known.ok_or_else(|| format!("nobody has a key of the hash {hash}"))
}

impl World {
    pub fn begin(seed: u64, mutant: Option<Mutant>, keep: bool) -> Result<Self, String> {
        let profile = Profile::draw(&mut Dice::new(!seed));
        Self::with(profile, seed, mutant, keep)
    }

    pub fn with(
        profile: Profile,
        seed: u64,
        mutant: Option<Mutant>,
        keep: bool,
    ) -> Result<Self, String> {
        let dice = Dice::new(seed);
        let mut world = Self {
            seed,
            dice,
            now_ms: 1_000_000,
            profile,
            mutant,
            nodes: Vec::new(),
            flights: Vec::new(),
            flights_begun: 0,
            pushes: Vec::new(),
            backups: Vec::new(),
            truth: Truth::default(),
            trace: Trace::new(keep),
            outcomes: Default::default(),
        };
        note!(world, "history of seed {seed}: {:?}", world.profile);
        for _ in 0..world.profile.nodes {
            world.add_node()?;
        }
        Ok(world)
    }

    /// A node that is new and empty.
    pub fn add_node(&mut self) -> Holds {
        let at = self.nodes.len();
        let (limits, durability) = self.profile.node(&mut self.dice);
        note!(self, "{} is new: {durability:?}", name(at));
        self.nodes.push(Node::new(at, limits, durability, self.profile.page_leaves));
        self.start(at)
    }

    pub fn start(&mut self, at: usize) -> Holds {
        if self.nodes[at].open.is_some() {
            return Ok(());
        }
        let random = self.random_of(at);
        self.nodes[at].start(random)?;
        let ghost = self.nodes[at].ghost.take();
        if let Some((_, ghost)) = ghost {
            note!(self, "{}: what was answered with an error is there", name(at));
            self.took(at, &ghost)?;
        }
        let damage = self.nodes[at].open.as_ref().and_then(|open| open.collection.damage());
        note!(self, "{} opens{}", name(at), damage.map(|d| format!(": {d}")).unwrap_or_default());
        self.check(at)
    }

    /// Every opening has numbers of its own.
    fn random_of(&self, at: usize) -> Dice {
        let opening = match self.mutant {
            Some(Mutant::ReuseWriter) => 0,
            _ => self.nodes[at].openings,
        };
        Dice::new(self.seed ^ (at as u64 + 1) << 48 ^ (opening + 1) << 56)
    }

    pub fn now_at(&self, at: usize) -> u64 {
        self.nodes[at].now_ms(self.now_ms)
    }

    /// The node is what the oracle says, unless it is known to be damaged.
    pub fn check(&self, at: usize) -> Holds {
        let node = &self.nodes[at];
        let Some(things) = node.usable() else { return Ok(()) };
        if node.stand.damaged {
            return Ok(());
        }
        let held = node.model().check(&things, &node.lost);
        held.map_err(|what| format!("{} is not what it should be: {what}", node.name()))
    }

    pub fn put(&mut self, at: usize, number: u8, value: Vec<u8>, over: Option<Vec<Dot>>) -> Holds {
        let Some(things) = self.nodes[at].usable() else { return Ok(()) };
        let (now, before) = (self.now_at(at), self.written(at));
        let put = match &over {
            None => things.put(&key(number), value.clone(), now),
            Some(read) => things.put_over(&key(number), value.clone(), read, now),
        };
        let limits = &self.nodes[at].limits;
        let said = match put {
            Ok(sibling) => {
                self.took_put(at, number, sibling, value, over.as_deref())?;
                self.acknowledged(at, before)?;
                format!("as {}", self.truth.name(sibling.dot))
            }
            Err(error @ ReplicaError::ValueSize { .. }) => {
                ensure(value.len() as u64 > limits.max_value_bytes, || text(&error))?;
                "too large".into()
            }
            Err(error @ ReplicaError::Siblings { .. }) => {
                let held = self.nodes[at].model().dots(number);
                let stay =
                    held.iter().filter(|dot| over.as_ref().is_some_and(|o| !o.contains(dot)));
                ensure(stay.count() + 1 > limits.max_siblings, || text(&error))?;
                "too many siblings".into()
            }
            Err(error) => {
                self.failed(at, &error, before, Ghost::Put { key: number, value, over })?
            }
        };
        note!(self, "{} puts k{number}: {said}", name(at));
        self.check(at)
    }

    fn took_put(
        &mut self,
        at: usize,
        number: u8,
        sibling: Sibling,
        value: Vec<u8>,
        over: Option<&[Dot]>,
    ) -> Holds {
        let model = &mut self.nodes[at].stand.model;
        let mut superseded = model.dots(number);
        superseded.retain(|dot| over.is_none_or(|over| over.contains(dot)));
        for &dot in &superseded {
            model.remove(dot);
            self.truth.kill(dot, Kill::Put(sibling.dot));
        }
        model.add(number, sibling);
        self.truth.write(number, sibling, value.clone())?;
        self.nodes[at].remember();
        if self.profile.pushes && self.dice.percent(40) {
            self.pushes.push(Push { key: number, sibling, value, superseded });
        }
        Ok(())
    }

    pub fn delete(&mut self, at: usize, number: u8, read: Option<Vec<Dot>>) -> Holds {
        let Some(things) = self.nodes[at].usable() else { return Ok(()) };
        let (now, before) = (self.now_at(at), self.written(at));
        let mut dots = self.nodes[at].model().dots(number);
        dots.retain(|dot| read.as_ref().is_none_or(|read| read.contains(dot)));
        let deleted = match &read {
            None => things.delete(&key(number), now),
            Some(read) => things.delete_dots(&key(number), read, now),
        };
        let mut after = self.nodes[at].model().clone();
        for &dot in &dots {
            after.remove(dot);
            self.truth.kill(dot, Kill::Delete);
        }
        let said = match deleted {
            Ok(removed) => {
                ensure(removed == dots.len() as u64, || {
                    format!("{} deleted {removed} siblings, not {}", name(at), dots.len())
                })?;
                self.took(at, &Ghost::Model(after))?;
                self.acknowledged(at, before)?;
                self.truth.names(dots)
            }
            Err(error) => self.failed(at, &error, before, Ghost::Model(after))?,
        };
        note!(self, "{} deletes k{number}: {said}", name(at));
        self.check(at)
    }

    /// Numbers of the last batch that shows and of the last there was.
    fn written(&self, at: usize) -> (u64, u64) {
        (self.nodes[at].disk.shown(), self.nodes[at].disk.number())
    }

    /// A change failed: it shows all the same, may have reached the disk, or never happened.
    fn failed(
        &mut self,
        at: usize,
        error: &ReplicaError,
        (shown, number): (u64, u64),
        ghost: Ghost,
    ) -> Result<String, String> {
        let node = &mut self.nodes[at];
        match error {
            ReplicaError::Store(_) if node.disk.shown() > shown => self.took(at, &ghost)?,
            ReplicaError::Store(_) if node.disk.number() > number => {
                node.ghost = Some((node.disk.number(), ghost));
            }
            ReplicaError::Store(_) => {}
            ReplicaError::Damaged { .. } | ReplicaError::Rotten { .. } | ReplicaError::View(..)
                if node.stand.damaged => {}
            other => return Err(format!("{}: {other}", name(at))),
        }
        Ok(text(error))
    }

    /// A change is there.
    fn took(&mut self, at: usize, ghost: &Ghost) -> Holds {
        match ghost {
            Ghost::Model(model) => {
                self.nodes[at].stand.model = model.clone();
                self.nodes[at].remember();
                Ok(())
            }
            Ghost::Put { key: number, value, over } => {
                let Some(things) = self.nodes[at].usable() else {
                    return Err("a put cannot be looked for".into());
                };
                let entry = things.get(&key(*number)).map_err(text)?;
                let model = self.nodes[at].model();
                let new = entry.iter().flat_map(|entry| entry.record.siblings());
                let new: Vec<Sibling> =
                    new.filter(|sibling| !model.seen.contains(&sibling.dot)).copied().collect();
                let &[sibling] = new.as_slice() else {
                    return Err(format!("a put that shows is not there: {new:?}"));
                };
                self.took_put(at, *number, sibling, value.clone(), over.as_deref())
            }
        }
    }

    /// What was answered for under `always` is synced, as far as the disk tells the truth.
    fn acknowledged(&self, at: usize, (shown, _): (u64, u64)) -> Holds {
        let node = &self.nodes[at];
        let promised = node.durability == Durability::Always && node.disk.shown() > shown;
        ensure(!promised || node.disk.lies() || node.disk.is_synced(), || {
            format!("{} answered for what is not synced", node.name())
        })
    }

    /// Applies what a peer said. `claims` is what that peer was when it said so.
    pub fn apply(
        &mut self,
        at: usize,
        updates: &[KeyUpdate],
        epoch: u64,
        claims: Option<&Model>,
    ) -> Result<Answer<Vec<ApplyOutcome>>, String> {
        let Some(things) = self.nodes[at].usable() else { return Ok(Err("not open".into())) };
        if let Some(peer) = claims {
            self.truth.claims(updates, peer)?;
        }
        let (now, before) = (self.now_at(at), self.written(at));
        let model = self.nodes[at].model().clone();
        let (mut after, mut predicted) = (model.clone(), Vec::new());
        let live_epoch = things.snapshot().map(|snapshot| snapshot.epoch()).ok();
        let given = mutant::pruned(self.mutant, updates.to_vec(), &model);
        let epoch_given = match self.mutant {
            Some(Mutant::JoinAfterReset) => live_epoch.unwrap_or(epoch),
            _ => epoch,
        };
        let applied = things.apply(given, epoch_given, now);
        let stale = live_epoch.is_some_and(|live| live != epoch);
        let outcomes = match applied {
            Ok(_) if stale => {
                return Err(format!("{} applied what belongs to before a reset", name(at)));
            }
            Err(ReplicaError::OtherEpoch(what)) if stale => return Ok(Err(what)),
            Ok(outcomes) => Some(outcomes),
            Err(error) => {
                for update in updates {
                    let number = number_of(&update.key_hash)?;
                    after.apply(number, update, now, &self.nodes[at].limits);
                }
                let said = self.failed(at, &error, before, Ghost::Model(after))?;
                self.check(at)?;
                return Ok(Err(said));
            }
        };
        let outcomes = outcomes.unwrap_or_default();
        for (update, outcome) in updates.iter().zip(&outcomes) {
            let number = number_of(&update.key_hash)?;
            if !outcome.missing_values.is_empty() {
                self.check_missing(update, outcome)?;
                predicted.push(outcome.clone());
                continue;
            }
            let expected = after.apply(number, update, now, &self.nodes[at].limits);
            expected.check(outcome).map_err(|what| format!("{} {what}", name(at)))?;
        }
        self.took(at, &Ghost::Model(after))?;
        self.check_vanished(at, &model)?;
        self.check(at)?;
        Ok(Ok(outcomes))
    }

    fn check_missing(&self, update: &KeyUpdate, outcome: &ApplyOutcome) -> Holds {
        let without: Vec<Dot> = update
            .add
            .iter()
            .filter(|add| add.value.is_none())
            .map(|add| add.sibling.dot)
            .collect();
        ensure(outcome.missing_values.iter().all(|dot| without.contains(dot)), || {
            format!("values that were given are missing: {outcome:?}")
        })
    }

    /// A key that nobody deleted does not vanish while what replaced it lives somewhere.
    fn check_vanished(&self, at: usize, before: &Model) -> Holds {
        let after = self.nodes[at].model();
        let nodes = self.nodes.iter().filter(|_| self.profile.vanishing);
        let vanished = self.truth.vanished(before, after, nodes.map(Node::model));
        vanished.map_err(|what| format!("{}: {what}", name(at)))
    }

    /// The end of a session. `peer` and `mine` are what both were when it began.
    pub fn join(
        &mut self,
        at: usize,
        request: &JoinRequest,
        [mine, peer]: [&Model; 2],
        refusals: bool,
    ) -> Result<Answer<()>, String> {
        let Some(things) = self.nodes[at].usable() else { return Ok(Err("not open".into())) };
        let before = self.nodes[at].model().clone();
        let live_epoch = things.snapshot().map(|snapshot| snapshot.epoch()).ok();
        let stale = live_epoch.is_some_and(|live| live != request.epoch);
        let after = self.truth.joined(&before, request, [mine, peer], refusals, stale);
        let after = after.map_err(|what| format!("{} {what}", name(at)))?;
        let (now, written) = (self.now_at(at), self.written(at));
        let mut given = request.clone();
        match self.mutant {
            Some(Mutant::JoinPastRefused) => given = mutant::everything_of(peer, request.epoch),
            Some(Mutant::JoinAfterReset) => given.epoch = live_epoch.unwrap_or(given.epoch),
            _ => {}
        }
        let joined = match things.join(&given, now) {
            Ok(_) if stale => return Err(format!("{} joined after a reset", name(at))),
            Err(ReplicaError::OtherEpoch(what)) if stale => Err(what),
            Ok(removed) => {
                let gone = before.held().filter(|(dot, ..)| !after.holds(*dot)).count();
                ensure(removed == gone as u64, || {
                    format!("{} removed {removed} in the join, not {gone}", name(at))
                })?;
                self.took(at, &Ghost::Model(after))?;
                let synced = self.nodes[at].disk.lies() || self.nodes[at].disk.is_synced();
                ensure(synced, || format!("{} joined, and it is not synced", name(at)))?;
                self.check_vanished(at, &before)?;
                Ok(())
            }
            Err(error) => Err(self.failed(at, &error, written, Ghost::Model(after))?),
        };
        self.check(at)?;
        Ok(joined)
    }

    /// One of the siblings that travel outside sessions arrives, perhaps not for the first time.
    pub fn push(&mut self, which: usize, to: usize) -> Holds {
        let Some(things) = self.nodes[to].usable() else { return Ok(()) };
        let Push { key: number, sibling, value, superseded } = &self.pushes[which];
        let item = IncomingSibling { sibling: *sibling, value: Some(Arc::from(&value[..])) };
        let update = KeyUpdate {
            key: Some(key(*number)),
            key_hash: key_hash(*number),
            add: vec![item],
            remove: superseded.clone(),
        };
        let said = format!("{} of k{number}", self.truth.name(sibling.dot));
        let Ok(epoch) = things.snapshot().map(|snapshot| snapshot.epoch()) else { return Ok(()) };
        let applied = self.apply(to, &[update], epoch, None)?;
        let made = applied.map(|outcomes| {
            let refused = outcomes.iter().any(|outcome| !outcome.refused.is_empty());
            if refused { "refused" } else { "taken" }
        });
        note!(self, "{} is pushed {said}: {made:?}", name(to));
        Ok(())
    }

    /// The process dies, and with `power` what was not synced.
    pub fn crash(&mut self, at: usize) -> Holds {
        self.end_flights_of(at);
        self.nodes[at].stop();
        let crash = self.nodes[at].disk.crash(&mut self.dice);
        let node = &mut self.nodes[at];
        let ghost = node.ghost.take().filter(|(number, _)| *number <= crash.kept);
        node.stand = node.stand_at(crash.kept);
        if let Some((_, Ghost::Model(model))) = &ghost {
            node.stand.model = model.clone();
        } else {
            node.ghost = ghost;
        }
        node.forget_past();
        let torn = if crash.torn { ", one of them torn" } else { "" };
        note!(self, "{} crashes: {} batches lost{torn}", name(at), crash.lost);
        Ok(())
    }

    /// The process ends in good order and begins again, as short commands do.
    pub fn restart(&mut self, at: usize) -> Holds {
        let Some(things) = self.nodes[at].open.as_ref().map(|open| Arc::clone(&open.collection))
        else {
            return Ok(());
        };
        self.end_flights_of(at);
        let before = things.present_writer().ok().flatten();
        let opened = self.nodes[at].stop();
        let closed = opened.map(|opened| opened.replica.close());
        if !matches!(closed, Some(Ok(()))) {
            note!(self, "{} cannot close: {closed:?}", name(at));
            self.crash(at)?;
            return self.start(at);
        }
        drop(things);
        if !self.nodes[at].disk.lies() {
            self.nodes[at].remember();
        }
        note!(self, "{} closes", name(at));
        if self.profile.restores && self.dice.percent(60) {
            self.backup(at);
        }
        if self.dice.percent(20) {
            // and dies before it is opened again
            self.crash(at)?;
        }
        self.start(at)?;
        let resumed = self.nodes[at].usable().and_then(|c| c.present_writer().ok().flatten());
        let gone_on = resumed.is_none() || resumed == before;
        ensure(gone_on, || format!("{} goes on with {resumed:?}, not {before:?}", name(at)))
    }

    pub fn backup(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.ghost.is_some() {
            return;
        }
        let (tables, stand) = (node.disk.tables(), node.stand.clone());
        note!(self, "{} is backed up", name(at));
        let (token, lost) = (self.nodes[at].disk.token(), self.nodes[at].lost.clone());
        let stream = match self.mutant {
            None => self.nodes[at].stream(self.now_at(at)).unwrap_or_default(),
            Some(_) => None,
        };
        self.backups.push(Backup { of: at, tables, token, stand, lost, stream });
        if self.backups.len() > 4 {
            self.backups.remove(0);
        }
    }

    /// A backup of this or of another node takes the place of what is here.
    pub fn restore(&mut self, at: usize, which: usize) -> Holds {
        let backup = self.backups[which].clone();
        if let Some(stream) = &backup.stream
            && self.dice.percent(60)
        {
            return self.restore_stream(at, &backup, stream);
        }
        self.end_flights_of(at);
        if self.dice.percent(30)
            && let Some(opened) = self.nodes[at].stop()
        {
            // leaves a token that belongs to another moment
            let _ = opened.replica.close();
        }
        self.nodes[at].stop();
        let mut tables = backup.tables;
        let node = &mut self.nodes[at];
        if self.mutant == Some(Mutant::MixMoments) {
            mutant::mix_moments(&mut tables, &node.disk.tables());
        }
        node.disk.restore(tables);
        if let (Some(Mutant::CopyToken), Some(token)) = (self.mutant, &backup.token) {
            selfsame::store::Store::leave_token(&*node.disk, token);
        }
        node.ghost = None;
        node.stand = backup.stand;
        node.lost.extend(backup.lost);
        node.forget_past();
        note!(self, "{} is restored from a backup of {}", name(at), name(backup.of));
        if self.dice.percent(70) { self.start(at) } else { Ok(()) }
    }

    /// The same through the code that users have, beside whatever goes on: sessions in flight
    /// read what is no more, and must neither apply nor join.
    fn restore_stream(&mut self, at: usize, backup: &Backup, stream: &[u8]) -> Holds {
        self.start(at)?;
        let disk = &self.nodes[at].disk;
        if disk.is_sick() || disk.has_fault() || disk.lies() {
            return Ok(());
        }
        let now = self.now_at(at);
        let node = &mut self.nodes[at];
        node.restore(stream, now)?;
        node.stale = None;
        node.ghost = None;
        node.stand = backup.stand.clone();
        node.lost = backup.lost.clone();
        node.forget_past();
        note!(self, "{} restores a backup of {}", name(at), name(backup.of));
        self.check(at)
    }

    /// The collection is recovered, whether it is damaged or not (rule D10).
    pub fn recover(&mut self, at: usize) -> Holds {
        let Some(things) = self.nodes[at].open.as_ref().map(|open| Arc::clone(&open.collection))
        else {
            return Ok(());
        };
        let old = Stand { damaged: true, ..self.nodes[at].stand.clone() };
        let begun = self.nodes[at].disk.number();
        let recovered = things.recover();
        self.nodes[at].remember_at(begun + 1, old.clone());
        // cut short at its very end, it shows all the same
        let shows = self.nodes[at].disk.shown() > begun && things.damage().is_none();
        match recovered {
            Err(error) if !shows => {
                self.nodes[at].stand.damaged = true;
                note!(self, "{} cannot be recovered: {error}", name(at));
            }
            recovered => {
                let stand = &mut self.nodes[at].stand;
                let model = &mut stand.model;
                model.entries.retain(|number, _| !stand.rotten.contains(number));
                model.seen = model.held().map(|(dot, ..)| dot).collect();
                let entries = model.entries.len() as u64;
                ensure(
                    recovered.as_ref().is_ok_and(|kept| kept.entries == entries)
                        || recovered.is_err(),
                    || format!("{} recovered {recovered:?}, not {:?}", name(at), model.entries),
                )?;
                (stand.damaged, stand.rotten) = (false, Default::default());
                self.nodes[at].remember();
                if self.mutant == Some(Mutant::KeepContext) {
                    mutant::keep_context(&things, &old.model, self.now_ms);
                }
                note!(self, "{} is recovered: {recovered:?}", name(at));
            }
        }
        self.check(at)
    }

    /// Lost values are fetched again, by their hashes, from whoever has them.
    pub fn repair(&mut self, at: usize, from_truth: bool) -> Holds {
        let Some(things) = self.nodes[at].usable() else { return Ok(()) };
        let _ = things.check(); // a scrub finds them
        let Ok(lost) = things.lost_values(100) else { return Ok(()) };
        for value in lost {
            let number = number_of(&value.key)?;
            let mut bytes = self
                .nodes
                .iter()
                .filter(|node| node.at != at)
                .find_map(|node| node.usable()?.value(&value.key, &value.hash).ok().flatten());
            if from_truth {
                let mut written = self.truth.written.values();
                let known = written.find(|(_, sibling, _)| sibling.value_hash == value.hash);
                bytes = bytes.or_else(|| known.map(|(_, _, bytes)| Arc::from(&bytes[..])));
            }
            let installed = bytes.map(|bytes| things.install_value(&value.key, &bytes));
            note!(self, "{} repairs a value of k{number}: {installed:?}", name(at));
        }
        self.nodes[at].remember();
        self.check(at)
    }

    pub fn fault(&mut self, at: usize, fault: WriteFault) {
        let node = &self.nodes[at];
        if !node.stand.damaged && !node.disk.is_sick() && !node.disk.has_fault() {
            note!(self, "the disk of {} will fail: {fault:?}", name(at));
            node.disk.break_with(fault);
        }
    }

    pub fn live(&self, at: usize) -> Option<(Arc<Things>, &Disk)> {
        Some((self.nodes[at].usable()?, &self.nodes[at].disk))
    }
}
