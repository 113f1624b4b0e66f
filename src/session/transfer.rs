//! The values that are wanted: how each is asked for, what came, what is ready to be applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::machine::{Flow, Session};
use super::merge;
use super::message::{Bases, Bulk, Bytes, FreeMessage, Message, Want, Wants};
use super::outcome::Failure;
use super::turn::protocol;
use crate::delta::{
    self, BaseId, BlockSignature, Encoded, Encoding, Expected, GapRequest, IdMargin, Signature,
    SignatureKey,
};
use crate::dots::Dot;
use crate::entry::Sibling;
use crate::hash::{KeyHash, ValueHash};
use crate::replica::{
    ApplyOutcome, CollectionView, IncomingSibling, KeyUpdate, RefusalReason, ReportCounts,
};
use crate::types::Key;

/// Values encoded to no more than this travel together in one frame.
pub(super) const GATHERED: usize = 256 << 10;
/// Bytes of a large value in one frame.
pub(super) const CHUNK: usize = 256 << 10;
/// Bytes of values that make a batch worth applying.
const BATCH_BYTES: usize = 4 << 20;
/// Keys of one batch, and what a key takes in memory while it is applied, besides its values.
const BATCH_KEYS: usize = 1_024;
const DRAFT_BYTES: usize = 3 << 10;
/// Of the memory of a session, this part is for what is just being applied.
const BATCH_SHARE: u64 = 16;
/// A value is large from this part of the memory of a session on.
const LARGE_SHARE: u64 = 16;

/// A value on its way here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Awaited {
    key: KeyHash,
    sibling: Sibling,
    bases: Vec<ValueHash>,
    /// Whether it was asked for whole after an encoding that failed.
    retried: bool,
    /// Whether it was asked for at all yet.
    requested: bool,
    /// Whether the sender was given the signature of a base, and blocks of it.
    described: [bool; 2],
}

impl Awaited {
    const fn new(key: KeyHash, sibling: Sibling) -> Self {
        let (retried, requested, described) = (false, false, [false; 2]);
        Self { key, sibling, bases: Vec::new(), retried, requested, described }
    }
}

/// What is to be asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Wanted {
    dot: Dot,
    /// Whole, and not against a base.
    whole: bool,
    signature: Option<Signature>,
}

/// A key of which not all values are here yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct PendingKey {
    key: Option<Key>,
    adds: Vec<IncomingSibling>,
    missing: usize,
    removes: Vec<Dot>,
    /// Whether a value was asked for: then the rest may come, or the key would never be whole.
    begun: bool,
    /// Bytes of what was asked for: in memory here, or on their way.
    reserved_bytes: u64,
}

/// What is to come in and to be applied.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Incoming {
    inline: BTreeMap<Dot, Arc<[u8]>>,
    pending: BTreeMap<KeyHash, PendingKey>,
    awaited: BTreeMap<Dot, Awaited>,
    wanted: VecDeque<Wanted>,
    /// How many siblings the peer has told without their values, and the numbers of those that may
    /// be wanted.
    told: u32,
    numbers: BTreeMap<Dot, u32>,
    /// What was asked for, by number.
    asked: BTreeMap<u32, Dot>,
    /// Bytes of signatures that wait with what is wanted.
    signature_bytes: usize,
    outstanding_bytes: u64,
    /// Siblings, and sizes of all values, that this session took on.
    accepted: u64,
    accepted_bytes: u64,
    issued: BTreeSet<Dot>,
    ready: VecDeque<KeyUpdate>,
    ready_bytes: usize,
    /// Bytes of what is just being applied.
    applied_bytes: usize,
    in_flight: Vec<KeyUpdate>,
    /// Keys that would vanish: held back until the brake has seen them all.
    vanishing: BTreeMap<KeyHash, KeyUpdate>,
    /// Keys that the brake let vanish before.
    vanished: u64,
    /// Keys of which only some siblings would go: held back as long, since other sessions may
    /// take the rest meanwhile, and what replaces them may be still to come in this one.
    thinning: BTreeMap<KeyHash, KeyUpdate>,
    assembling: Option<(Dot, Encoding, u64, Vec<u8>)>,
}

impl Incoming {
    /// Whether everything that is to come has come and is applied, save what would vanish.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.awaited.is_empty()
            && self.wanted.is_empty()
            && self.ready.is_empty()
            && self.in_flight.is_empty()
    }

    /// Siblings that this session took on.
    pub(super) const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Sizes of all values that this session took on.
    pub(super) const fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes
    }

    /// Bytes of values, signatures and what is being applied.
    pub(super) fn value_bytes(&self) -> usize {
        self.outstanding_bytes as usize
            + self.ready_bytes
            + self.applied_bytes
            + self.signature_bytes
    }

    /// Number of items, of values that came along, of dots that are remembered.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let items = self.pending.len()
            + self.awaited.len()
            + self.wanted.len()
            + self.ready.len()
            + self.in_flight.len()
            + self.vanishing.len()
            + self.thinning.len();
        let named = self.issued.len() + self.numbers.len() + self.asked.len();
        (items, self.inline.len(), named)
    }

    /// Whether a value is coming in that is large in so much memory.
    pub(super) fn is_assembling_much(&self, memory_bytes: u64) -> bool {
        let length = self.assembling.as_ref().map_or(0, |(_, _, length, _)| *length);
        length > memory_bytes / LARGE_SHARE
    }

    /// Whether a dot is to be added or removed already: if it is held here, it goes.
    pub(super) fn is_issued(&self, dot: Dot) -> bool {
        self.issued.contains(&dot)
    }

    /// Number of keys that would have vanished if all were let go that is held back.
    pub(super) fn vanishing(&self) -> u64 {
        self.vanished + self.vanishing.len() as u64
    }

    /// Whether removals are held back.
    pub(super) fn holds_back(&self) -> bool {
        !(self.vanishing.is_empty() && self.thinning.is_empty())
    }

    /// Lets go of the removals that were held back.
    pub(super) fn release_removals(&mut self) {
        self.vanished = self.vanishing();
        for held_back in [&mut self.vanishing, &mut self.thinning] {
            self.ready.extend(std::mem::take(held_back).into_values());
        }
    }

    /// Counts the siblings that the peer tells without their values; says how many came before.
    pub(super) fn count_told(&mut self, siblings: usize) -> u32 {
        let first = self.told;
        self.told = first.saturating_add(siblings as u32);
        first
    }

    /// Takes note of the numbers of these siblings.
    pub(super) fn number(&mut self, first: u32, siblings: &[Dot]) {
        self.numbers.extend(siblings.iter().copied().zip(first..));
    }

    /// The sibling that the peer means by a number of what it was asked for.
    fn asked(&self, of: u32) -> Result<Dot, Failure> {
        self.asked.get(&of).copied().ok_or_else(protocol)
    }

    /// A small value that came along with the state of its key.
    pub(super) fn rides_along(&mut self, dot: Dot, value: Vec<u8>) {
        self.inline.insert(dot, value.into());
    }

    /// Forgets the values that came along and were not news.
    pub(super) fn forget_inline(&mut self) {
        self.inline.clear();
    }

    /// Forgets a key that is left out.
    pub(super) fn forget(&mut self, key: &KeyHash) {
        if let Some(pending) = self.pending.remove(key) {
            self.release(pending.reserved_bytes);
        }
        self.vanishing.remove(key);
        self.thinning.remove(key);
        self.awaited.retain(|_, awaited| awaited.key != *key);
        let awaited = &self.awaited;
        self.wanted.retain(|want| awaited.contains_key(&want.dot));
        self.signature_bytes = self.wanted.iter().map(signature_bytes).sum();
        self.ready.retain(|update| update.key_hash != *key);
    }

    /// Takes back the removal of a dot, if it was held back.
    pub(super) fn spare(&mut self, dot: Dot) {
        for held_back in [&mut self.vanishing, &mut self.thinning] {
            held_back.retain(|_, update| {
                update.remove.retain(|&remove| remove != dot);
                !update.remove.is_empty()
            });
        }
    }

    fn release(&mut self, bytes: u64) {
        self.outstanding_bytes = self.outstanding_bytes.saturating_sub(bytes);
    }

    fn finish_key(&mut self, key: KeyHash) {
        if let Some(done) = self.pending.remove(&key) {
            self.release(done.reserved_bytes);
            let bytes = done.adds.iter().filter_map(|add| add.value.as_ref()).map(|v| v.len());
            self.ready_bytes += bytes.sum::<usize>();
            self.ready.push_back(KeyUpdate {
                key: done.key,
                key_hash: key,
                add: done.adds,
                remove: done.removes,
            });
        }
    }

    /// Makes room for a value that is to be asked for, once the window has it.
    fn reserve(&mut self, dot: Dot, window: u64) -> bool {
        let Some(awaited) = self.awaited.get_mut(&dot) else { return true };
        let Some(pending) = self.pending.get_mut(&awaited.key) else { return true };
        let size = if awaited.requested { 0 } else { awaited.sibling.size };
        let total = self.outstanding_bytes.saturating_add(size);
        if self.outstanding_bytes > 0 && !pending.begun && total > window {
            return false;
        }
        awaited.requested = true;
        pending.begun = true;
        pending.reserved_bytes = pending.reserved_bytes.saturating_add(size);
        self.outstanding_bytes = total;
        true
    }

    /// Whether the value comes, or came, with another sibling of the key.
    fn expects(&self, key: &KeyHash, sibling: &Sibling) -> bool {
        let Some(pending) = self.pending.get(key) else { return false };
        pending.adds.iter().any(|add| {
            add.sibling.value_hash == sibling.value_hash
                && add.sibling.dot != sibling.dot
                && (add.value.is_some() || self.awaited.contains_key(&add.sibling.dot))
        })
    }

    fn arrived(&mut self, key: KeyHash, dot: Dot, value: Option<Arc<[u8]>>) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if let Some(add) = pending.adds.iter_mut().find(|add| add.sibling.dot == dot) {
            add.value = value;
            pending.missing = pending.missing.saturating_sub(1);
        }
        if pending.missing == 0 {
            self.finish_key(key);
        }
    }
}

fn signature_bytes(want: &Wanted) -> usize {
    want.signature.as_ref().map_or(0, Signature::wire_len)
}

impl Session {
    pub(super) fn signature_key(&self) -> SignatureKey {
        SignatureKey(self.derive_key("selfsame v1 delta ids"))
    }

    pub(super) const fn takes(&self) -> bool {
        matches!(self.flow, Flow::Both | Flow::Take)
    }

    pub(super) const fn gives(&self) -> bool {
        matches!(self.flow, Flow::Both | Flow::Give)
    }

    /// Works out what is to be added and removed of a key by what is known now.
    pub(super) fn update(
        &mut self,
        key: KeyHash,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let Some(known) = self.knowledge.get(&key) else { return Ok(()) };
        if !self.takes() || known.excluded {
            return Ok(());
        }
        let entry = view.entry(&key)?;
        let mine = entry.as_ref().map(|entry| &entry.record);
        let peer = self.peer_seen()?;
        let theirs = known.theirs.record();
        let adds = self.knowledge.news(&key, mine, &self.ours.causality);
        let mut removes: Vec<Dot> = known.gone.clone();
        if known.theirs != super::knowledge::Theirs::Unknown {
            let twins = self.knowledge.twins();
            let dead = merge::dead(mine, theirs, &peer.causality);
            // of two puts under one dot the lesser makes way when the greater is applied
            removes.extend(dead.into_iter().filter(|&dot| twins.winning_key(dot).is_none()));
        }
        let vanishes = self.knowledge.merged(&key, mine, &self.ours.causality, peer).is_none();
        let full_key = known.key.clone();
        let incoming = &mut self.incoming;
        removes.retain(|&dot| incoming.issued.insert(dot));
        let adds: Vec<Sibling> =
            adds.into_iter().filter(|sibling| incoming.issued.insert(sibling.dot)).collect();
        for held_back in [&mut incoming.vanishing, &mut incoming.thinning] {
            removes.extend(held_back.remove(&key).into_iter().flat_map(|update| update.remove));
        }
        if adds.is_empty() {
            if removes.is_empty() {
                return Ok(());
            }
            if let Some(pending) = incoming.pending.get_mut(&key) {
                // together with what replaces them, or not at all
                pending.removes.extend(removes);
                return Ok(());
            }
            let update = KeyUpdate { key: None, key_hash: key, add: Vec::new(), remove: removes };
            let held_back = if vanishes { &mut incoming.vanishing } else { &mut incoming.thinning };
            held_back.insert(key, update);
            return Ok(());
        }
        for sibling in &adds {
            self.effort.largest_value = self.effort.largest_value.max(sibling.size);
            incoming.accepted += 1;
            incoming.accepted_bytes = incoming.accepted_bytes.saturating_add(sibling.size);
        }
        let pending = incoming.pending.entry(key).or_default();
        pending.key = full_key;
        pending.removes.extend(removes);
        pending.missing += adds.len();
        pending.adds.extend(adds.iter().map(|&sibling| IncomingSibling { sibling, value: None }));
        let bases = Self::bases_of(mine.map(crate::entry::Record::siblings).unwrap_or_default());
        for sibling in adds {
            self.obtain(key, sibling, &bases, view)?;
        }
        Ok(())
    }

    /// Own siblings as bases, the latest first.
    pub(super) fn bases_of(mine: &[Sibling]) -> Vec<Sibling> {
        let mut bases = mine.to_vec();
        bases.sort_unstable_by_key(|sibling| std::cmp::Reverse((sibling.stamp, sibling.dot)));
        bases.dedup_by_key(|sibling| sibling.value_hash);
        bases.truncate(Bases::MOST);
        bases
    }

    /// Gets hold of a value: it came along, is here already, or is asked for.
    fn obtain(
        &mut self,
        key: KeyHash,
        sibling: Sibling,
        bases: &[Sibling],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if let Some(value) = self.incoming.inline.remove(&sibling.dot) {
            self.incoming.arrived(key, sibling.dot, Some(value));
            return Ok(());
        }
        // a value that several siblings share is sent once
        if self.incoming.expects(&key, &sibling) || view.has_value(&key, &sibling.value_hash)? {
            self.stats.received.count_by_hash(sibling.size);
            self.incoming.arrived(key, sibling.dot, None);
            return Ok(());
        }
        let whole = !self.setup.config.enable_binary_diff;
        let mut want = Wanted { dot: sibling.dot, whole, signature: None };
        if !whole {
            let peer = self.peer_seen()?;
            if let Some(first) = bases.first().filter(|first| !peer.has(first.dot)) {
                // the sender cannot have it: the signature rides along
                want.signature = self.signature_of(&key, first, sibling.size, view)?;
            }
        }
        let bases = bases.iter().map(|base| base.value_hash).collect();
        let awaited = Awaited { bases, ..Awaited::new(key, sibling) };
        self.incoming.awaited.insert(sibling.dot, awaited);
        self.incoming.signature_bytes += signature_bytes(&want);
        self.incoming.wanted.push_back(want);
        Ok(())
    }

    fn signature_of(
        &mut self,
        key: &KeyHash,
        base: &Sibling,
        target_len: u64,
        view: &dyn CollectionView,
    ) -> Result<Option<Signature>, Failure> {
        let Some(value) = view.value(key, &base.value_hash)? else { return Ok(None) };
        let signature = Signature::of(&value, target_len, &self.signature_key(), IdMargin::First);
        if let Some(signature) = &signature {
            self.stats.received.count_signature(signature.wire_len() as u64);
        }
        Ok(signature)
    }

    /// The next request, unless as much is outstanding as may be in memory.
    pub(super) fn next_request(&mut self) -> Option<FreeMessage> {
        let limits = &self.setup.limits;
        let window = (limits.max_pending_bytes as u64).min(limits.max_session_memory_bytes / 4);
        let incoming = &mut self.incoming;
        let mut wants = Vec::new();
        let mut bytes = 0;
        while wants.len() < self.setup.config.max_batch_size.max(1) && bytes < GATHERED {
            let Some(want) = incoming.wanted.front() else { break };
            if !incoming.reserve(want.dot, window) {
                break;
            }
            let Some(want) = incoming.wanted.pop_front() else { break };
            let signature = signature_bytes(&want);
            incoming.signature_bytes -= signature;
            bytes += 16 + signature;
            wants.push(want);
        }
        let wants: Vec<Want> = wants.into_iter().filter_map(|want| self.want(want)).collect();
        (!wants.is_empty()).then(|| FreeMessage::Request(Wants::pack(wants)))
    }

    /// A want as it travels.
    fn want(&mut self, Wanted { dot, whole, signature }: Wanted) -> Option<Want> {
        let of = *self.incoming.numbers.get(&dot)?;
        self.incoming.asked.insert(of, dot);
        let awaited = self.incoming.awaited.get(&dot);
        let hashes = awaited.filter(|_| !whole).map(|awaited| awaited.bases.as_slice());
        let hashes = hashes.unwrap_or_default();
        let said = awaited.and_then(|awaited| self.knowledge.get(&awaited.key));
        let bases = if !hashes.is_empty() && said.is_some_and(|known| known.said) {
            Bases::Told
        } else {
            Bases::These(hashes.iter().map(BaseId::of).collect())
        };
        Some(Want { of, bases, signature })
    }

    /// Takes in values.
    pub(super) fn bulk_message(
        &mut self,
        bulk: Bulk,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if !self.takes() {
            return Err(protocol());
        }
        match bulk {
            Bulk::Values(items) => {
                if self.incoming.assembling.is_some() {
                    return Err(protocol());
                }
                items.into_iter().try_for_each(|item| {
                    let dot = self.incoming.asked(item.of)?;
                    self.value(dot, item.encoded, view)
                })
            }
            Bulk::Header { of, encoding, length } => {
                let dot = self.incoming.asked(of)?;
                let size = self.incoming.awaited.get(&dot).map(|awaited| awaited.sibling.size);
                let longest = size.unwrap_or(self.setup.limits.max_value_bytes) + CHUNK as u64;
                if self.incoming.assembling.is_some() || length == 0 || length > longest {
                    return Err(protocol());
                }
                self.incoming.assembling = Some((dot, encoding, length, Vec::new()));
                Ok(())
            }
            Bulk::Chunk(Bytes(chunk)) => {
                let (dot, encoding, length, mut bytes) =
                    self.incoming.assembling.take().ok_or_else(protocol)?;
                if chunk.is_empty() || (bytes.len() + chunk.len()) as u64 > length {
                    return Err(protocol());
                }
                // by doubling as it comes, but never beyond what it is to be
                let doubled = bytes.len().max(CHUNK).min(length as usize - bytes.len());
                if bytes.capacity() < bytes.len() + chunk.len() {
                    bytes.reserve_exact(doubled.max(chunk.len()));
                }
                bytes.extend_from_slice(&chunk);
                if (bytes.len() as u64) < length {
                    self.incoming.assembling = Some((dot, encoding, length, bytes));
                    return Ok(());
                }
                self.value(dot, Encoded { encoding, bytes }, view)
            }
        }
    }

    /// A value arrived: decoded and held against its hash; asked for whole once if it fails.
    fn value(
        &mut self,
        dot: Dot,
        encoded: Encoded,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        // what is not awaited any more was left out meanwhile
        let Some(awaited) = self.incoming.awaited.remove(&dot) else { return Ok(()) };
        if !awaited.requested {
            return Err(protocol());
        }
        let size = awaited.sibling.size;
        let base = match encoded.encoding.base() {
            None => None,
            Some(id) => match awaited.bases.iter().find(|hash| id.names(hash)) {
                Some(hash) => view.value(&awaited.key, hash)?,
                None => None,
            },
        };
        let decoded = delta::decode(
            &encoded,
            base.as_deref(),
            &Expected::from(&awaited.sibling),
            self.ours.spec.algorithm,
            &self.setup.limits,
        );
        if decoded.is_ok() {
            self.stats.received.count(&encoded, size);
        }
        drop((base, encoded));
        match decoded {
            Ok(value) => {
                self.incoming.arrived(awaited.key, dot, Some(value.into()));
                Ok(())
            }
            Err(_) if !awaited.retried => {
                self.ask_whole(dot, awaited);
                Ok(())
            }
            Err(_) => self.refuse(awaited.key, &[(dot, RefusalReason::Unavailable)], view),
        }
    }

    fn ask_whole(&mut self, dot: Dot, awaited: Awaited) {
        // before what is new: the key that waits for it holds its bytes until then
        self.incoming.wanted.push_front(Wanted { dot, whole: true, signature: None });
        let awaited = Awaited { retried: true, ..awaited };
        self.incoming.awaited.insert(dot, awaited);
    }

    /// The peer cannot send values: they are left out as if refused.
    pub(super) fn peer_cannot_send(
        &mut self,
        numbers: &[u32],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        for &of in numbers {
            let dot = self.incoming.asked(of)?;
            if let Some(awaited) = self.incoming.awaited.remove(&dot) {
                self.refuse(awaited.key, &[(dot, RefusalReason::Unavailable)], view)?;
            }
        }
        Ok(())
    }

    /// A base is described to the sender of a value once: by signature, then by blocks.
    fn describes(&mut self, dot: Dot, round: usize) -> Result<Option<Awaited>, Failure> {
        let Some(awaited) = self.incoming.awaited.get_mut(&dot) else { return Ok(None) };
        let again = std::mem::replace(&mut awaited.described[round], true);
        if again || !awaited.requested {
            return Err(protocol());
        }
        Ok(Some(awaited.clone()))
    }

    pub(super) fn peer_needs_signature(
        &mut self,
        of: u32,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let dot = self.incoming.asked(of)?;
        let Some(awaited) = self.describes(dot, 0)? else { return Ok(()) };
        let base = match awaited.bases.first() {
            Some(hash) => view.value(&awaited.key, hash)?,
            None => None,
        };
        let key = self.signature_key();
        let signature =
            base.and_then(|base| Signature::of(&base, awaited.sibling.size, &key, IdMargin::First));
        match signature {
            Some(signature) => {
                self.stats.received.count_signature(signature.wire_len() as u64);
                self.send_free(FreeMessage::Signature { of, signature });
            }
            None => self.ask_whole(dot, awaited),
        }
        Ok(())
    }

    pub(super) fn peer_needs_blocks(
        &mut self,
        of: u32,
        gaps: &GapRequest,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let dot = self.incoming.asked(of)?;
        let Some(awaited) = self.describes(dot, 1)? else { return Ok(()) };
        let base = match awaited.bases.first() {
            Some(hash) => view.value(&awaited.key, hash)?,
            None => None,
        };
        let key = self.signature_key();
        let size = awaited.sibling.size;
        let blocks = base.and_then(|base| {
            BlockSignature::of_gaps(&base, size, gaps, &key, IdMargin::First).ok()
        });
        match blocks {
            Some(signature) => self.send_free(FreeMessage::Blocks { of, signature }),
            None => self.ask_whole(dot, awaited),
        }
        Ok(())
    }

    /// The next batch to apply: all or nothing of it in as few commits as the store likes.
    ///
    /// With `flush`, whatever is ready; else only once it is worth a commit.
    pub fn poll_apply(&mut self, flush: bool) -> Option<Vec<KeyUpdate>> {
        let incoming = &mut self.incoming;
        let waits = !incoming.in_flight.is_empty() || self.marks.unjudged;
        if waits || incoming.ready.is_empty() || self.outcome.is_some() {
            return None;
        }
        let room = (self.setup.limits.max_session_memory_bytes / BATCH_SHARE) as usize;
        let most = (room / DRAFT_BYTES).clamp(1, BATCH_KEYS);
        let worth = self.setup.config.max_batch_size.clamp(1, most);
        if !flush && incoming.ready.len() < worth && incoming.ready_bytes < BATCH_BYTES {
            return None;
        }
        if incoming.ready.len() > most {
            // each page of the tree is then touched by one batch
            incoming.ready.make_contiguous().sort_by_key(|update| update.key_hash);
        }
        let mut bytes = 0;
        let mut updates = Vec::new();
        while bytes < BATCH_BYTES.min(room) && updates.len() < most {
            let Some(update) = incoming.ready.pop_front() else { break };
            let values = update.add.iter().filter_map(|add| add.value.as_ref());
            bytes += values.map(|value| value.len()).sum::<usize>();
            updates.push(update);
        }
        incoming.ready_bytes = incoming.ready_bytes.saturating_sub(bytes);
        incoming.applied_bytes = bytes + updates.len() * DRAFT_BYTES;
        // the values themselves go with the updates; what stays is what an outcome is about
        incoming.in_flight = updates
            .iter()
            .map(|update| KeyUpdate {
                key: update.key.clone(),
                key_hash: update.key_hash,
                add: update
                    .add
                    .iter()
                    .map(|add| IncomingSibling { sibling: add.sibling, value: None })
                    .collect(),
                remove: update.remove.clone(),
            })
            .collect();
        Some(updates)
    }

    /// Counts what was reported of a batch that was applied.
    pub fn count_reports(&mut self, counts: ReportCounts) {
        self.stats.reports += counts;
    }

    /// What became of the batch that was last polled, in its order.
    pub fn applied(&mut self, outcomes: &[ApplyOutcome], view: &dyn CollectionView) {
        if self.outcome.is_some() {
            return;
        }
        let done = self.take_outcomes(outcomes, view).and_then(|()| self.settle(view));
        if let Err(failure) = done {
            self.fail(failure);
        }
    }

    fn take_outcomes(
        &mut self,
        outcomes: &[ApplyOutcome],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let updates = std::mem::take(&mut self.incoming.in_flight);
        self.incoming.applied_bytes = 0;
        for (update, outcome) in updates.into_iter().zip(outcomes) {
            if !outcome.missing_values.is_empty() {
                self.again_with_values(update, outcome, view)?;
            } else if !outcome.refused.is_empty() {
                let refused: Vec<_> =
                    outcome.refused.iter().map(|item| (item.dot, item.reason)).collect();
                self.refuse(update.key_hash, &refused, view)?;
            }
        }
        Ok(())
    }

    /// A value counted on as being here is gone from the live state: the snapshot still has it,
    /// or it is asked for.
    fn again_with_values(
        &mut self,
        update: KeyUpdate,
        outcome: &ApplyOutcome,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let key = update.key_hash;
        let missing = update.add.len();
        let siblings: Vec<Sibling> = update.add.iter().map(|add| add.sibling).collect();
        let pending = PendingKey {
            key: update.key,
            adds: update.add,
            missing,
            removes: update.remove,
            ..PendingKey::default()
        };
        self.incoming.pending.insert(key, pending);
        for sibling in siblings {
            let lost = outcome.missing_values.contains(&sibling.dot);
            match view.value(&key, &sibling.value_hash)? {
                Some(value) => self.incoming.arrived(key, sibling.dot, Some(value)),
                None if !lost => self.incoming.arrived(key, sibling.dot, None),
                None => {
                    self.ask_whole(sibling.dot, Awaited::new(key, sibling));
                }
            }
        }
        Ok(())
    }

    pub(super) fn send_free(&mut self, message: FreeMessage) {
        self.control.push_back(Message::Free(message));
    }

    /// A key of this session for one purpose, known to both ends and to nobody else.
    pub(super) fn derive_key(&self, purpose: &'static str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&self.setup.secret);
        hasher.finalize().into()
    }
}
