//! What peers have signed of their logs, as far as this node has heard it: the last heads, what
//! contradicts them, and whom this node has no sessions with for it.
//!
//! A node is accused of nothing but its own signatures. What it did not say, cannot prove any
//! more, or said of the log of another opening, is no contradiction.

use std::collections::BTreeMap;

use crate::codec::{CodecError, Reader, Writing as _};
use crate::hash::LogHash;
use crate::merkle::log::{Contradiction, HeadStatement, LogHeadFields, LogId, LogKind, LogSegment};
use crate::merkle::{ConsistencyProof, MerkleLog};
use crate::store::{Batch, Durability, Read, Row, Span, Store, Table};
use crate::types::NodeId;

use super::ReplicaError;
use super::clones::Accusations;
use super::collection::Collection;
use super::log::OpenLog;
use super::pages::ReadError;
use super::rows::{CollectionId, LogRow, checked, key_tail, start_row, with_check};

/// Logs of one peer and kind of which the last head is kept: the oldest make way.
const LOGS_OF_A_PEER: usize = 8;
/// Contradictions of one peer that are kept, and of all: more prove no more.
const EVIDENCE_OF_A_PEER: usize = 8;
const EVIDENCE_OF_ALL: usize = 1_024;
/// A peer is asked to prove that a log has grown this many times less often than it is told.
const TOLD_FOR_ASKED: u64 = 10;
/// Peers of which it is remembered when they were told.
const PEERS_TOLD: usize = 1_024;
/// Heads of the present change log from which proofs can be made.
const BASES: usize = 64;
/// Most items of a log that are read for one proof.
const PROOF_ITEMS: u64 = 65_536;

/// What this opening has told of its logs.
#[derive(Debug, Default)]
pub(super) struct Told {
    when_ms: BTreeMap<NodeId, u64>,
    /// The change log as it was told, the latest last: of the present opening.
    bases: Vec<(LogId, MerkleLog)>,
    pub(super) accusations: Accusations,
}

/// What a statement of a peer came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Witnessed {
    /// It is the first of its log, or goes with those before as far as that can be seen.
    Consistent,
    /// It cannot be true together with one before. Kept as evidence, under this number if there
    /// was room for it.
    Contradicts(Box<Contradiction>, Option<u64>),
}

/// A log of a peer, as far as this node has heard of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenLog {
    /// The last head that is known to have grown out of all before it.
    pub proved: HeadStatement,
    /// The greatest head seen.
    pub last: HeadStatement,
    /// When it was seen.
    pub seen_ms: u64,
    /// When the peer was last asked to prove that the one grew into the other; 0: never.
    pub asked_ms: u64,
    /// Whether it could not do so then: after a start anew it may not be able to.
    pub unproved: bool,
}

impl SeenLog {
    fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        row.put_u64(self.seen_ms);
        row.put_u64(self.asked_ms);
        row.put_u8(u8::from(self.unproved));
        let proved = self.proved.to_bytes();
        row.put_u16(proved.len() as u16);
        row.put_bytes(&proved);
        row.put_bytes(&self.last.to_bytes());
        with_check(row)
    }

    fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let invalid = |_| CodecError::Invalid("a signed head does not hold");
        let mut reader = Reader::new(checked(row)?);
        let (seen_ms, asked_ms) = (reader.u64()?, reader.u64()?);
        let unproved = reader.u8()? != 0;
        let length = reader.u16()?;
        let proved = HeadStatement::parse(reader.bytes(length.into())?).map_err(invalid)?;
        let last = HeadStatement::parse(reader.bytes(reader.remaining())?).map_err(invalid)?;
        Ok(Self { proved, last, seen_ms, asked_ms, unproved })
    }
}

/// A contradiction as it was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptEvidence {
    /// Its number in this collection.
    pub number: u64,
    /// When it was found, by this node's wall clock.
    pub found_ms: u64,
    /// What it is.
    pub contradiction: Contradiction,
}

impl CollectionId {
    fn witness(self, parts: &[&[u8]]) -> Vec<u8> {
        [&self.prefix()[..], &parts.concat()].concat()
    }

    fn seen_of(self, peer: &NodeId) -> Vec<u8> {
        self.witness(&[&[0], &peer.0])
    }

    fn seen(self, fields: &LogHeadFields, peer: &NodeId) -> Vec<u8> {
        let log = fields.log();
        self.witness(&[&[0], &peer.0, &[log.kind.id()], &log.id.0.to_be_bytes()])
    }

    fn contradiction(self, number: u64) -> Vec<u8> {
        self.witness(&[&[1], &number.to_be_bytes()])
    }

    fn distrust(self, peer: &NodeId) -> Vec<u8> {
        self.witness(&[&[2], &peer.0])
    }
}

impl<S: Store> Collection<S> {
    /// Takes note of what a peer has signed of one of its logs of this collection.
    ///
    /// # Errors
    /// The store failed.
    pub fn witness(
        &self,
        statement: &HeadStatement,
        now_ms: u64,
    ) -> Result<Witnessed, ReplicaError> {
        let _one = self.told();
        let (peer, fields) = (statement.node(), statement.fields());
        let key = self.id.seen(fields, &peer);
        let Some(seen) = self.seen_at(&key)? else {
            let mut batch = Batch::default();
            self.make_way(fields.log().kind, &peer, &mut batch)?;
            let (proved, last) = (statement.clone(), statement.clone());
            let seen = SeenLog { proved, last, seen_ms: now_ms, asked_ms: 0, unproved: false };
            batch.put(Table::Witness, &key, &seen.to_row());
            self.store.apply(batch)?;
            return Ok(Witnessed::Consistent);
        };
        for before in [&seen.proved, &seen.last] {
            if let Ok(contradiction) = Contradiction::of_two_roots(before, statement) {
                return self.keep_evidence(contradiction, now_ms);
            }
        }
        if fields.size() > seen.last.fields().size() {
            let seen = SeenLog { last: statement.clone(), seen_ms: now_ms, ..seen };
            let mut batch = Batch::default();
            batch.put(Table::Witness, &key, &seen.to_row());
            self.store.apply(batch)?;
        }
        Ok(Witnessed::Consistent)
    }

    /// Drops the log of a peer that was longest not heard of, if another one needs its place.
    fn make_way(
        &self,
        kind: LogKind,
        peer: &NodeId,
        batch: &mut Batch,
    ) -> Result<(), ReplicaError> {
        let prefix = [&self.id.seen_of(peer)[..], &[kind.id()]].concat();
        let rows = self.store.scan(Span::of(Table::Witness, &prefix), usize::MAX)?;
        let mut rows: Vec<(u64, &Row)> = rows
            .iter()
            .map(|row| (SeenLog::parse(&row.value).map_or(0, |it| it.seen_ms), row))
            .collect();
        rows.sort_by_key(|(seen_ms, _)| *seen_ms);
        let over = (rows.len() + 1).saturating_sub(LOGS_OF_A_PEER);
        for (_, row) in rows.into_iter().take(over) {
            batch.remove(Table::Witness, &row.key);
        }
        Ok(())
    }

    fn seen_at(&self, key: &[u8]) -> Result<Option<SeenLog>, ReplicaError> {
        let row = self.store.get(Table::Witness, key)?;
        // one that rotted is forgotten: nobody is accused with it
        Ok(row.and_then(|row| SeenLog::parse(&row).ok()))
    }

    /// The logs that this node has heard of: of all peers, or of one of them.
    ///
    /// # Errors
    /// The store failed.
    pub fn seen_logs(&self, peer: Option<&NodeId>) -> Result<Vec<SeenLog>, ReplicaError> {
        let prefix = peer.map_or_else(|| self.id.witness(&[&[0]]), |peer| self.id.seen_of(peer));
        let rows = self.store.scan(Span::of(Table::Witness, &prefix), usize::MAX)?;
        Ok(rows.iter().filter_map(|row| SeenLog::parse(&row.value).ok()).collect())
    }

    /// The logs of a peer of which it should prove now that they have grown: it is noted that it
    /// was asked.
    ///
    /// # Errors
    /// The store failed.
    pub fn logs_to_prove(&self, peer: &NodeId, now_ms: u64) -> Result<Vec<SeenLog>, ReplicaError> {
        let _one = self.told();
        let mut due = Vec::new();
        let every_ms = self.node.limits.heads_told_every_ms.saturating_mul(TOLD_FOR_ASKED);
        let mut batch = Batch::default();
        for seen in self.seen_logs(Some(peer))? {
            let grown = seen.proved.fields().size() < seen.last.fields().size();
            let rested = now_ms.saturating_sub(seen.asked_ms) >= every_ms;
            if grown && rested {
                let asked = SeenLog { asked_ms: now_ms, ..seen.clone() };
                let key = self.id.seen(seen.last.fields(), peer);
                batch.put(Table::Witness, &key, &asked.to_row());
                due.push(seen);
            }
        }
        if !batch.is_empty() {
            self.store.apply(batch)?;
        }
        Ok(due)
    }

    /// Takes note of what a peer answered when it was asked to prove that a log has grown; none
    /// if it could not.
    ///
    /// # Errors
    /// The store failed.
    pub fn witness_proof(
        &self,
        asked: &SeenLog,
        proof: Option<ConsistencyProof>,
        now_ms: u64,
    ) -> Result<Witnessed, ReplicaError> {
        let _one = self.told();
        let SeenLog { proved: earlier, last: later, .. } = asked;
        let holds = proof
            .as_ref()
            .map(|proof| earlier.fields().check_grown_into(later.fields(), proof).is_ok());
        if let (Some(false), Some(proof)) = (holds, proof)
            && let Ok(contradiction) = Contradiction::of_failed_proof(earlier, later, proof)
        {
            return self.keep_evidence(contradiction, now_ms);
        }
        let key = self.id.seen(later.fields(), &later.node());
        if let Some(mut seen) = self.seen_at(&key)? {
            seen.unproved = holds.is_none();
            if holds == Some(true) {
                seen.proved = later.clone();
            }
            let mut batch = Batch::default();
            batch.put(Table::Witness, &key, &seen.to_row());
            self.store.apply(batch)?;
        }
        Ok(Witnessed::Consistent)
    }

    /// Keeps what a peer contradicted itself with, synced, and has no sessions with it from now
    /// on.
    fn keep_evidence(
        &self,
        contradiction: Contradiction,
        now_ms: u64,
    ) -> Result<Witnessed, ReplicaError> {
        let peer = contradiction.node();
        let all = self.contradictions(None)?;
        let of_peer = all.iter().filter(|kept| kept.contradiction.node() == peer).count();
        let known = all.iter().find(|kept| kept.contradiction == contradiction);
        let mut batch = Batch::default();
        let number = match known {
            Some(known) => Some(known.number),
            None if of_peer < EVIDENCE_OF_A_PEER && all.len() < EVIDENCE_OF_ALL => {
                let number = all.last().map_or(1, |last| last.number + 1);
                let mut row = start_row();
                row.put_u64(now_ms);
                row.put_bytes(&contradiction.to_bytes());
                let key = self.id.contradiction(number);
                batch.put(Table::Witness, &key, &with_check(row));
                Some(number)
            }
            None => None,
        };
        let distrust = self.id.distrust(&peer);
        if self.store.get(Table::Witness, &distrust)?.is_none() {
            batch.put(Table::Witness, &distrust, &now_ms.to_le_bytes());
        }
        if !batch.is_empty() {
            self.store.commit(batch, Durability::Always)?;
        }
        Ok(Witnessed::Contradicts(Box::new(contradiction), number))
    }

    /// What peers contradicted themselves with, in the order in which it was found: all, or of
    /// one of them.
    ///
    /// # Errors
    /// The store failed.
    pub fn contradictions(&self, peer: Option<&NodeId>) -> Result<Vec<KeptEvidence>, ReplicaError> {
        let prefix = self.id.witness(&[&[1]]);
        let rows = self.store.scan(Span::of(Table::Witness, &prefix), EVIDENCE_OF_ALL)?;
        let mut found = Vec::new();
        for row in rows {
            let damaged = |error: CodecError| ReadError::row("evidence", &error).of(self.name());
            let number = u64::from_be_bytes(key_tail(&row.key).map_err(damaged)?);
            // what rotted proves nothing, and hides no other
            let Ok(body) = checked(&row.value) else { continue };
            let mut reader = Reader::new(body);
            let found_ms = reader.u64().map_err(damaged)?;
            let bytes = reader.bytes(reader.remaining()).map_err(damaged)?;
            let Ok(contradiction) = Contradiction::parse(bytes) else { continue };
            if peer.is_none_or(|peer| contradiction.node() == *peer) {
                found.push(KeptEvidence { number, found_ms, contradiction });
            }
        }
        Ok(found)
    }

    /// Since when there are no sessions with a peer; none if there may be some.
    ///
    /// # Errors
    /// The store failed.
    pub fn distrusted_since(&self, peer: &NodeId) -> Result<Option<u64>, ReplicaError> {
        let row = self.store.get(Table::Witness, &self.id.distrust(peer))?;
        Ok(row.map(|row| <[u8; 8]>::try_from(&*row).map_or(0, u64::from_le_bytes)))
    }

    /// The peers with which there are no sessions, and since when.
    ///
    /// # Errors
    /// The store failed.
    pub fn distrusted(&self) -> Result<Vec<(NodeId, u64)>, ReplicaError> {
        let prefix = self.id.witness(&[&[2]]);
        let rows = self.store.scan(Span::of(Table::Witness, &prefix), usize::MAX)?;
        let since = |row: &Row| <[u8; 8]>::try_from(&*row.value).map_or(0, u64::from_le_bytes);
        let found =
            rows.iter().filter_map(|row| Some((NodeId(key_tail(&row.key).ok()?), since(row))));
        Ok(found.collect())
    }

    /// Has sessions with a peer again, whatever it said: its logs are heard of as if for the first
    /// time, evidence stays. Whether there were none.
    ///
    /// # Errors
    /// The store failed.
    pub fn trust_again(&self, peer: &NodeId) -> Result<bool, ReplicaError> {
        let _one = self.told();
        let distrust = self.id.distrust(peer);
        if self.store.get(Table::Witness, &distrust)?.is_none() {
            return Ok(false);
        }
        let mut batch = Batch::default();
        batch.remove(Table::Witness, &distrust);
        let prefix = self.id.seen_of(peer);
        for key in self.store.scan_keys(Span::of(Table::Witness, &prefix), usize::MAX)? {
            batch.remove(Table::Witness, &key);
        }
        self.store.commit(batch, Durability::Always)?;
        Ok(true)
    }

    /// The heads of this node's own logs, all of them synced, if the peer has not been told for a
    /// while: those of the certificate log and of the change log of this opening.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn heads_to_tell(
        &self,
        peer: &NodeId,
        now_ms: u64,
    ) -> Result<Vec<LogHeadFields>, ReplicaError> {
        {
            let every_ms = self.node.limits.heads_told_every_ms;
            let mut told = self.told();
            let last = told.when_ms.get(peer);
            if last.is_some_and(|last| now_ms.abs_diff(*last) < every_ms) {
                return Ok(Vec::new());
            }
            if told.when_ms.len() >= PEERS_TOLD {
                told.when_ms.clear();
            }
            told.when_ms.insert(*peer, now_ms);
        }
        let mut heads = Vec::new();
        heads.extend(self.certificate_log_head()?);
        let changes = self.with_live(|live| {
            let log = live.log.as_ref();
            Ok(log.map(|log| (log.head_fields(), log.merkle().clone(), live.number)))
        })?;
        if let Some((fields, merkle, number)) = changes {
            self.store.settle(number, Durability::Always)?;
            let mut told = self.told();
            if told.bases.len() >= BASES {
                told.bases.remove(0);
            }
            told.bases.push((fields.log().id, merkle));
            heads.push(fields);
        }
        Ok(heads)
    }

    /// Proof that one of this node's logs grew from a size and root into another; none if it is
    /// another log, too long, or what would be needed was dropped or rotted. So nothing is ever
    /// proved that does not hold.
    ///
    /// # Errors
    /// The store failed, or the collection is damaged.
    pub fn prove_growth(
        &self,
        kind: LogKind,
        id: LogId,
        first: (u64, &LogHash),
        second: (u64, &LogHash),
    ) -> Result<Option<ConsistencyProof>, ReplicaError> {
        if first.0 == 0 || first.0 > second.0 {
            return Ok(None);
        }
        let segment = match kind {
            LogKind::Changes => self.change_segment(id, first.0, second.0)?,
            LogKind::Certificates => self.certificate_segment(id, second.0)?,
        };
        let proof = segment.and_then(|segment| segment.consistency(first.0));
        let algorithm = self.spec.algorithm;
        Ok(proof.filter(|proof| proof.verify(algorithm, first, second).is_ok()))
    }

    /// The change log of this opening up to a size, from the last head told before another on.
    fn change_segment(
        &self,
        id: LogId,
        first: u64,
        size: u64,
    ) -> Result<Option<LogSegment>, ReplicaError> {
        let begun = {
            let told = self.told();
            let mut bases = told.bases.iter().filter(|(of, log)| *of == id && log.size() <= first);
            bases.next_back().map(|(_, log)| log.clone())
        };
        let begun = begun.unwrap_or_else(|| MerkleLog::new(self.spec.algorithm));
        let (rows, log_first) = {
            let head = self.with_live(|live| {
                let open = live.log.as_ref().map(OpenLog::head_fields);
                let known = open.is_some_and(|open| open.log().id == id && size <= open.size());
                Ok(known.then_some(live.head.log_first))
            })?;
            let Some(log_first) = head else { return Ok(None) };
            (self.store.snapshot()?, log_first)
        };
        if size - begun.size() > PROOF_ITEMS {
            return Ok(None);
        }
        let mut leaves = Vec::new();
        for index in begun.size()..size {
            let row = rows.get(Table::Log, &self.id.log(log_first + index))?;
            let Some(row) = row.and_then(|row| LogRow::parse(&row).ok()) else { return Ok(None) };
            leaves.push(self.spec.algorithm.log_leaf(&row.item()));
        }
        Ok(Some(LogSegment::new(begun, leaves)))
    }
}
