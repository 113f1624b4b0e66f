//! Refusals, verification, join and certificate: how a session ends well.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::knowledge::Theirs;
use super::machine::{Flow, Session, Turn};
use super::message::{Bytes, FreeMessage, Ready, WireHead};
use super::outcome::{AbortCode, Difference, Failure, LimitName, Outcome, RefusedItem, Tally};
use super::turn::protocol;
use crate::dots::{Causality, Dot, DotSet};
use crate::entry::{Record, Totals};
use crate::hash::{KeyHash, StateHash};
use crate::merkle::{
    Certificate, CertificateMessage, Envelope, HeadStatement, LogHeadError, Signature,
};
use crate::replica::{CollectionView, JoinRecord, JoinRequest, RefusalReason, ViewError};

/// Of the exceptions that there may be, this part may come of sessions that join nothing.
const GAPS_SHARE: u64 = 16;

/// How far the join has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Joining {
    #[default]
    NotYet,
    /// Roots agree; the request waits to be polled.
    Wanted,
    Polled,
    Durable,
}

/// What both ends signed, and what its root stands for: to be kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Agreement {
    /// The certificate.
    pub certificate: Certificate,
    /// The envelope of its root.
    pub envelope: Envelope,
}

/// The end of a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Verification {
    refused: BTreeMap<Dot, RefusedItem>,
    /// Dots held of left-out keys that the peer has seen dead above its context.
    kept: DotSet,
    refusals_sent: u64,
    refusals_received: u64,
    ready_sent: Option<Ready>,
    ready_received: Option<Ready>,
    joining: Joining,
    merged: Option<Causality>,
    message: Option<CertificateMessage>,
    envelope: Option<Envelope>,
    agreement: Option<Agreement>,
    own_signature: Option<Signature>,
    peer_joined: Option<Option<Vec<u8>>>,
    /// What the peer signed of its logs, until it is polled.
    peer_heads: Option<Vec<HeadStatement>>,
    /// Whether nothing of what the peer has seen is joined, because of what was refused.
    holds_back: bool,
    remember: Option<JoinRecord>,
}

impl Verification {
    /// Whether either side has refused anything.
    pub(super) const fn has_refusals(&self) -> bool {
        self.refusals_sent > 0 || self.refusals_received > 0
    }

    /// Number of items refused.
    pub(super) fn refusals(&self) -> usize {
        self.refused.len()
    }

    /// Whether turns may still be taken.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.joining, Joining::NotYet)
    }
}

impl Session {
    /// The state that both ends hold, once the session is complete.
    #[must_use]
    pub fn agreed_state(&self) -> Option<StateHash> {
        match &self.outcome {
            Some(Outcome::Complete { certificate: None }) => {
                let root = self.ours.envelope.root();
                Some(self.ours.spec.algorithm.state(&root, &self.ours.context))
            }
            Some(Outcome::Complete { certificate: Some(certificate) }) => {
                let message = certificate.message();
                let algorithm = self.ours.spec.algorithm;
                Some(algorithm.state(message.root(), message.context()))
            }
            _ => None,
        }
    }

    /// Holds what the peer has of a key against this side's limits (rule D8).
    pub(super) fn judge(
        &mut self,
        key: KeyHash,
        view: &dyn CollectionView,
        now_ms: u64,
    ) -> Result<(), Failure> {
        if !self.takes() {
            return Ok(());
        }
        let entry = view.entry(&key)?;
        let mine = entry.as_ref().map(|entry| &entry.record);
        let news = self.knowledge.news(&key, mine, &self.ours.causality);
        let limits = &self.setup.limits;
        let peer = self.peer_seen()?;
        let merged = self.knowledge.merged(&key, mine, &self.ours.causality, peer);
        let crowded = merged.is_some_and(|merged| merged.siblings().len() > limits.max_siblings);
        let refused: Vec<_> = news
            .iter()
            .filter_map(|sibling| {
                let reason = if sibling.stamp.beyond_drift(now_ms, limits.max_clock_drift_ms) {
                    RefusalReason::Drift
                } else if sibling.size > limits.max_value_bytes {
                    RefusalReason::ValueSize
                } else if crowded {
                    RefusalReason::Siblings
                } else {
                    return None;
                };
                Some((sibling.dot, reason))
            })
            .collect();
        self.refuse(key, &refused, view)
    }

    /// Refuses items of a key: it is left out by both, and the peer is told.
    pub(super) fn refuse(
        &mut self,
        key: KeyHash,
        refused: &[(Dot, RefusalReason)],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if refused.is_empty() {
            return Ok(());
        }
        for &(dot, reason) in refused {
            let item = RefusedItem { dot, reason, by_us: true };
            self.verification.refused.insert(dot, item);
        }
        let drift = refused.iter().filter(|(_, reason)| *reason == RefusalReason::Drift);
        self.stats.refused_drift += drift.count() as u64;
        self.verification.refusals_sent += refused.len() as u64;
        self.send_free(FreeMessage::Refused(refused.to_vec()));
        self.leave_out(key, view)
    }

    /// The peer refuses items of this side.
    pub(super) fn peer_refused(
        &mut self,
        refused: &[(Dot, RefusalReason)],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        for &(dot, reason) in refused {
            let key = match view.key_of(dot)? {
                Some(key) => key,
                None => self.knowledge.learned_key(dot).ok_or_else(protocol)?,
            };
            if !self.room_for(&key) {
                continue;
            }
            let item = RefusedItem { dot, reason, by_us: false };
            self.verification.refused.insert(dot, item);
            self.leave_out(key, view)?;
        }
        self.verification.refusals_received += refused.len() as u64;
        Ok(())
    }

    fn leave_out(&mut self, key: KeyHash, view: &dyn CollectionView) -> Result<(), Failure> {
        if self.knowledge.twins().touch(&key) {
            // the lesser put cannot make way for one that is refused
            return Err(Failure::Ours(AbortCode::Clone));
        }
        let peer = Arc::clone(self.peer_seen()?);
        self.knowledge.entry(key, self.phase).excluded = true;
        self.incoming.forget(&key);
        self.knowledge.refresh(&key);
        // what of it is held above the context is not removed by the join either
        let entry = view.entry(&key)?;
        let held = entry.iter().flat_map(|entry| entry.record.siblings());
        let dead = held.filter(|sibling| peer.causality.exceptions().contains(sibling.dot));
        self.verification.kept.extend(&dead.map(|sibling| sibling.dot).collect());
        Ok(())
    }

    /// Whether the peer can end the session well by what this side has said.
    pub(super) fn has_done_its_part(&self) -> bool {
        match self.flow {
            // the taker joins by itself
            Flow::Give => self.verification.ready_sent.is_some(),
            _ => self.verification.joining == Joining::Durable,
        }
    }

    pub(super) fn peer_ready(&mut self, ready: Ready) -> Result<(), Failure> {
        self.stats.there = ready.tally;
        self.theirs.clock = Some(ready.clock);
        self.verification.ready_received = Some(ready);
        Ok(())
    }

    pub(super) fn peer_joined(&mut self, signature: Option<Vec<u8>>) -> Result<(), Failure> {
        let early = self.verification.ready_sent.is_none();
        if early || self.verification.peer_joined.replace(signature).is_some() {
            return Err(protocol());
        }
        Ok(())
    }

    /// Heads of the peer's logs: once, after this side is ready and before the peer's signature.
    pub(super) fn peer_heads(&mut self, heads: &[WireHead]) -> Result<(), Failure> {
        let verification = &self.verification;
        let early = verification.ready_sent.is_none();
        let late = verification.peer_joined.is_some() || verification.peer_heads.is_some();
        let in_order = heads.windows(2).all(|pair| pair[0].kind < pair[1].kind);
        if early || late || !in_order || heads.is_empty() {
            return Err(protocol());
        }
        let checked: Result<Vec<_>, _> =
            heads.iter().map(|head| head.check(&self.ours.spec, self.setup.peer)).collect();
        let checked = checked.map_err(|error| match error {
            LogHeadError::Signature(_) => Failure::Ours(AbortCode::Lie),
            _ => protocol(),
        })?;
        self.verification.peer_heads = Some(checked);
        Ok(())
    }

    /// What the peer has signed of its logs: whoever drives the session holds it against what
    /// was said before.
    pub fn poll_heads(&mut self) -> Vec<HeadStatement> {
        // that they came is remembered
        self.verification.peer_heads.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether this side will sign a certificate once it has joined: then heads may be told.
    #[must_use]
    pub const fn will_sign(&self) -> bool {
        self.verification.message.is_some() && self.outcome.is_none()
    }

    /// Tells the peer signed heads of this side's logs: before [`joined`](Self::joined), if the
    /// session will sign. Those that are not this side's are not told.
    pub fn tell_heads(&mut self, heads: &[HeadStatement]) {
        let mut heads: Vec<_> = heads
            .iter()
            .filter(|head| head.node() == self.setup.me)
            .filter(|head| head.fields().log().name == self.ours.spec.name)
            .map(WireHead::new)
            .collect();
        heads.sort_unstable_by_key(|head| head.kind);
        heads.dedup_by_key(|head| head.kind);
        if self.will_sign() && !heads.is_empty() {
            self.send_free(FreeMessage::Heads(heads));
        }
    }

    /// Goes on with verification as far as it can, after anything that happened.
    pub(super) fn settle(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        if self.outcome.is_some() || !self.agreed || self.turn != Turn::Over {
            return Ok(());
        }
        if self.flow == Flow::Compare {
            let differences = self.differences(view)?;
            self.outcome = Some(Outcome::Compared { differences, truncated: self.partial });
            return Ok(());
        }
        self.brake(view)?;
        if !self.incoming.is_idle() {
            return Ok(());
        }
        if self.verification.joining == Joining::NotYet {
            self.get_ready(view)?;
        }
        self.conclude()
    }

    /// Lets removals happen that were held back; stops before more keys vanish than may without
    /// being asked.
    fn brake(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        if !self.incoming.holds_back() || (self.partial && self.moves_siblings(view)?) {
            return Ok(());
        }
        let vanishing = self.incoming.vanishing();
        let limits = &self.setup.limits;
        let entries = self.ours.envelope.totals().entries;
        let many = vanishing > limits.max_removals
            && vanishing.saturating_mul(100) > entries.saturating_mul(limits.max_removals_percent);
        if many && !self.setup.config.allow_removals {
            return Err(Failure::Ours(AbortCode::Brake(vanishing)));
        }
        self.incoming.release_removals();
        Ok(())
    }

    /// Whether anybody gets siblings by this session. In one that has no room for everything, what
    /// replaces a dead sibling may be among the rest: so what would vanish waits for a session that
    /// moves nothing else.
    fn moves_siblings(&self, view: &dyn CollectionView) -> Result<bool, Failure> {
        if self.incoming.accepted() > 0 {
            return Ok(true);
        }
        let peer = self.peer_seen()?;
        for (key, _) in self.knowledge.iter().filter(|(_, known)| known.told && !known.excluded) {
            let entry = view.entry(key)?;
            let mut siblings = entry.iter().flat_map(|entry| entry.record.siblings());
            if siblings.any(|sibling| !peer.has(sibling.dot)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn get_ready(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        self.settle_overlay(view)?;
        let verification = &self.verification;
        let (sent, received) = (verification.refusals_sent, verification.refusals_received);
        let tree = self.knowledge.tree_hash();
        let same = verification.ready_sent.as_ref().is_some_and(|ready| {
            ready.tree == tree && ready.refusals_sent == sent && ready.refusals_received == received
        });
        if !same {
            let tally = self.tally(view)?;
            self.stats.here = tally;
            let clock = self.setup.clock;
            let ready =
                Ready { tree, clock, refusals_sent: sent, refusals_received: received, tally };
            self.verification.ready_sent = Some(ready.clone());
            self.send_free(FreeMessage::Ready(ready));
        }
        let Some(theirs) = &self.verification.ready_received else { return Ok(()) };
        if theirs.refusals_received != sent || theirs.refusals_sent != received {
            return Ok(()); // one of us has not heard of a refusal yet
        }
        if self.partial {
            self.outcome = Some(Outcome::Partial);
            return Ok(());
        }
        if theirs.tree != tree {
            return Err(Failure::Ours(AbortCode::RootMismatch));
        }
        if self.flow == Flow::Take && self.verification.refused.is_empty() {
            self.check_taken()?;
        }
        if self.flow == Flow::Both && self.verification.refused.is_empty() {
            self.prepare_certificate(view)?;
        }
        self.verification.holds_back =
            self.verification.has_refusals() && self.gaps(view)? < self.most_gaps();
        self.verification.joining = Joining::Wanted;
        if self.flow == Flow::Give {
            self.verification.joining = Joining::Durable;
        }
        Ok(())
    }

    /// What was taken must be the snapshot whose context is to be joined: that of the opening.
    fn check_taken(&self) -> Result<(), Failure> {
        let taken = self.tag_of(&self.knowledge.tree_hash());
        let same = Some(taken) == self.theirs.snapshot;
        if same { Ok(()) } else { Err(Failure::Ours(AbortCode::Lie)) }
    }

    /// The merged context, canonical with the merged entries, and what both will sign.
    fn prepare_certificate(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let peer = self.peer_seen()?.causality.clone();
        let mut merged = self.ours.causality.clone();
        let failed = std::cell::RefCell::new(None);
        merged.join(&peer, |dot| match self.merged_holds(dot, view) {
            Ok(held) => held,
            Err(error) => {
                failed.replace(Some(error));
                false
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        let spec = &self.ours.spec;
        let tree = self.knowledge.tree();
        let envelope = Envelope::new(spec.clone(), tree.tree_hash(), tree.totals());
        let envelope = envelope.map_err(|_| Failure::Ours(AbortCode::RootMismatch))?;
        let context = merged.hash(spec.algorithm).map_err(|_| LimitName::ContextHash)?;
        let message = CertificateMessage::new(
            spec.name.clone(),
            envelope.root(),
            context,
            [self.setup.me, self.setup.peer],
            self.id.ok_or_else(protocol)?,
            self.theirs.clock.map_or(self.setup.clock, |clock| self.setup.clock.max(clock)),
        );
        self.verification.message = Some(message.map_err(|_| protocol())?);
        self.verification.envelope = Some(envelope);
        self.verification.merged = Some(merged);
        Ok(())
    }

    fn merged_holds(&self, dot: Dot, view: &dyn CollectionView) -> Result<bool, Failure> {
        let key = match self.knowledge.twins().winning_key(dot) {
            Some(key) => Some(key),
            None => view.key_of(dot)?.or_else(|| self.knowledge.learned_key(dot)),
        };
        let Some(key) = key else { return Ok(false) };
        let entry = view.entry(&key)?;
        let mine = entry.as_ref().map(|entry| &entry.record);
        let merged = self.knowledge.merged(&key, mine, &self.ours.causality, self.peer_seen()?);
        Ok(merged.is_some_and(|merged| merged.holds(dot)))
    }

    /// What is to be joined, once both hold one root and all that was applied may be made
    /// durable together with it.
    pub fn poll_join(&mut self) -> Option<JoinRequest> {
        if self.outcome.is_some() || self.verification.joining != Joining::Wanted {
            return None;
        }
        self.verification.joining = Joining::Polled;
        if self.verification.holds_back {
            let (peer, refused) = (Causality::default(), DotSet::default());
            return Some(JoinRequest { epoch: self.ours.epoch, peer, refused });
        }
        let peer = self.theirs.seen.as_ref()?.causality.clone();
        Some(JoinRequest { epoch: self.ours.epoch, peer, refused: self.not_taken() })
    }

    /// Runs of dots, held or dead, between which something was never seen here.
    fn gaps(&self, view: &dyn CollectionView) -> Result<usize, Failure> {
        let above = Self::dots_above(view)?.map_or(usize::MAX, |above| above.run_count());
        Ok(above.saturating_add(self.ours.causality.exceptions().run_count()))
    }

    /// From so many gaps on a session with refusals joins what it can (rule D8). Below, it joins
    /// nothing: among what the peer has seen dead may be versions of a key that was left out, and
    /// nobody knows which. Whoever named them to others would make that key vanish there, although
    /// nobody deleted it and what replaced it was refused (rule D7).
    fn most_gaps(&self) -> usize {
        usize::try_from(self.setup.limits.max_exceptions / GAPS_SHARE).unwrap_or(usize::MAX)
    }

    /// Of left-out keys: all dots that the peer holds and this side may not have taken, and those
    /// held here that the peer has seen dead.
    fn not_taken(&self) -> DotSet {
        let of_peer = self
            .knowledge
            .iter()
            .filter(|(_, known)| known.excluded)
            .filter_map(|(_, known)| known.theirs.record())
            .flat_map(Record::siblings)
            .map(|sibling| sibling.dot)
            .filter(|&dot| !self.ours.causality.knows(dot));
        let mut dots: DotSet = of_peer.collect();
        dots.extend(&self.verification.kept);
        dots
    }

    /// The join is durable, or was not possible. `sign` signs with the key of this node's id.
    pub fn joined(&mut self, joined: Result<(), ViewError>, sign: &dyn Fn(&[u8]) -> [u8; 64]) {
        if self.outcome.is_some() {
            return;
        }
        if let Err(error) = joined {
            self.fail(error.into());
            return;
        }
        self.verification.joining = Joining::Durable;
        let signature = self.verification.message.as_ref().map(|message| {
            // what is signed is durable by now
            Signature::from_bytes(sign(&message.to_bytes()))
        });
        self.verification.own_signature = signature;
        let signature = signature.map(|signature| Bytes(signature.to_bytes().to_vec()));
        self.send_free(FreeMessage::Joined { signature });
        if let Err(failure) = self.conclude() {
            self.fail(failure);
        }
    }

    /// The outcome, once there is one.
    fn conclude(&mut self) -> Result<(), Failure> {
        if self.outcome.is_some() || self.verification.joining != Joining::Durable {
            return Ok(());
        }
        let refused: Vec<_> = self.verification.refused.values().copied().collect();
        match self.flow {
            Flow::Take => self.outcome = Some(Outcome::Pulled { refused }),
            Flow::Give if self.verification.peer_joined.is_some() => {
                if refused.is_empty() {
                    let envelope = self.ours.envelope.clone();
                    let merged = self.ours.causality.clone();
                    self.verification.remember = Some(self.record(&envelope, merged));
                }
                self.outcome = Some(Outcome::Pushed { refused });
            }
            Flow::Both => return self.conclude_both(refused),
            Flow::Give | Flow::Compare => {}
        }
        Ok(())
    }

    fn conclude_both(&mut self, refused: Vec<RefusedItem>) -> Result<(), Failure> {
        let Some(signature) = self.verification.peer_joined.clone() else { return Ok(()) };
        let Some(message) = self.verification.message.clone() else {
            self.outcome = Some(Outcome::Incomplete { refused });
            return Ok(());
        };
        let (Some(own), Some(theirs)) = (self.verification.own_signature, signature) else {
            return Err(protocol());
        };
        let theirs = Signature::parse(&theirs).map_err(|_| protocol())?;
        let certificate = message
            .certify([(self.setup.me, own), (self.setup.peer, theirs)])
            .map_err(|_| Failure::Ours(AbortCode::Lie))?;
        let (merged, envelope) =
            (self.verification.merged.take(), self.verification.envelope.take());
        if let (Some(merged), Some(envelope)) = (merged, envelope) {
            self.verification.remember = Some(self.record(&envelope, merged));
            self.verification.agreement =
                Some(Agreement { certificate: certificate.clone(), envelope });
        }
        self.outcome = Some(Outcome::Complete { certificate: Some(Box::new(certificate)) });
        Ok(())
    }

    fn record(&self, envelope: &Envelope, merged: Causality) -> JoinRecord {
        let (tree, totals) = (envelope.tree_hash(), envelope.totals());
        JoinRecord { log_position: self.ours.log_position, merged, tree, totals }
    }

    /// What both ends signed, once: whoever drives the session keeps it.
    pub const fn poll_agreement(&mut self) -> Option<Agreement> {
        self.verification.agreement.take()
    }

    /// What to remember of this session, now that the peer is known to have joined.
    pub const fn poll_remember(&mut self) -> Option<JoinRecord> {
        self.verification.remember.take()
    }

    fn tally(&self, view: &dyn CollectionView) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        if !self.takes() {
            return Ok(tally);
        }
        let peer = self.peer_seen()?;
        for (key, known) in self.knowledge.iter().filter(|(_, known)| !known.excluded) {
            if !known.changes_something() {
                continue;
            }
            let entry = view.entry(key)?;
            let mine = entry.map(|entry| entry.record);
            let merged = self.knowledge.merged(key, mine.as_ref(), &self.ours.causality, peer);
            match (&mine, &merged) {
                _ if mine == merged => continue,
                (None, _) => tally.added += 1,
                (_, None) => tally.removed += 1,
                _ => tally.updated += 1,
            }
            tally.conflicts += u64::from(merged.is_some_and(|merged| merged.is_conflict()));
        }
        Ok(tally)
    }

    fn differences(&self, view: &dyn CollectionView) -> Result<Vec<Difference>, Failure> {
        let peer = self.peer_seen()?;
        let mut differences = Vec::new();
        for (key_hash, known) in self.knowledge.iter() {
            if self.partial && known.theirs == Theirs::Unknown {
                // the peer had no room left to say what it holds
                continue;
            }
            let entry = view.entry(key_hash)?;
            let here = entry.as_ref().map(|entry| entry.record.clone());
            let there = known.theirs.record().cloned();
            let key = entry.map(|entry| entry.key).or_else(|| known.key.clone());
            let Some(key) = key.filter(|_| here != there) else { continue };
            let merged = self.knowledge.merged(key_hash, here.as_ref(), &self.ours.causality, peer);
            differences.push(Difference { key, here, there, merged });
        }
        differences.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(differences)
    }

    /// Totals of the tree that both hold.
    #[must_use]
    pub fn merged_totals(&self) -> Totals {
        self.knowledge.tree().totals()
    }
}
