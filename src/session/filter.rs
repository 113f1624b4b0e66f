//! Bloom exchange: a filter over the dots held, and a second one over what passed the first.

use std::collections::BTreeMap;

use super::config::Strategy;
use super::machine::{Flow, Session};
use super::message::TurnMessage;
use super::outcome::{AbortCode, Failure};
use super::phase::Phase;
use super::plan::{self, Cost, Method};
use super::stats::PlanStep;
use super::turn::{TurnItem, protocol};
use super::wire;
use crate::hash::KeyHash;
use crate::limits::Limits;
use crate::mutants::{Mutant, breaks};
use crate::replica::CollectionView;
use crate::sketch::bloom::{BloomFilter, FilterSeed, WireFilter};

/// What a frame holds besides a filter, and some.
const FRAME_MARGIN: usize = 1 << 10;

impl Session {
    /// Sends a filter over all dots held, for about so many differences.
    pub(super) fn send_first_filter(
        &mut self,
        estimate: u64,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let mut dots = Vec::new();
        self.overlay_dots(view, |dot, _| dots.push(dot))?;
        let items = dots.len() as u64;
        let fpr = self.filter_rate(items, estimate);
        let sized = match self.strategy {
            Strategy::Bloom => items.max(self.setup.config.bloom_filter_items as u64),
            _ => items,
        };
        let mut filter = self.empty_filter(&self.filter_seed(false), sized, fpr);
        dots.iter().for_each(|&dot| filter.insert(dot));
        let filter = filter.to_wire();
        self.effort.sketch_bytes += filter.bits.len();
        let message = TurnMessage::Filter { filter, items, second: false };
        self.items.push_back(TurnItem::Message(Box::new(message)));
        self.methods.push((Method::Bloom, self.progress));
        Ok(())
    }

    /// The rate of a filter: as configured when forced, else by the formula.
    pub(super) fn filter_rate(&self, items: u64, estimate: u64) -> f64 {
        match self.strategy {
            Strategy::Bloom => self.setup.config.bloom_filter_fpr,
            _ => plan::filter_rate(items, estimate),
        }
    }

    /// A filter that fits a frame, with a higher rate if it must.
    fn empty_filter(&self, seed: &FilterSeed, items: u64, fpr: f64) -> BloomFilter {
        let limits = &self.setup.limits;
        let most = limits.max_filter_bytes.min(wire::MAX_FRAME_BYTES - FRAME_MARGIN);
        let limits = Limits { max_filter_bytes: most, ..limits.clone() };
        BloomFilter::new(items, fpr, seed, &limits)
    }

    fn filter_seed(&self, second: bool) -> FilterSeed {
        FilterSeed::derive(&self.derive_key(if second {
            "selfsame v1 bloom second"
        } else {
            "selfsame v1 bloom first"
        }))
    }

    /// What the peer's filter lacks, the peer does not hold: told if the peer has not seen it,
    /// else asked about.
    pub(super) fn peer_filter(
        &mut self,
        filter: WireFilter,
        items: u64,
        second: bool,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.first_such_filter(second)?;
        self.exchange = None;
        let seed = self.filter_seed(second);
        let filter =
            BloomFilter::from_wire(filter, &seed, &self.setup.limits).map_err(|_| protocol())?;
        let (mut lacking, mut passed) = (Vec::new(), Vec::new());
        let most = 2 * self.setup.limits.max_session_entries;
        let mut found = 0u64;
        self.charge(self.ours.envelope.totals().siblings)?;
        self.overlay_dots(view, |dot, key| {
            if filter.contains(dot) {
                passed.push(dot);
                return;
            }
            found += 1;
            if lacking.len() < most {
                lacking.push((dot, key));
            }
        })?;
        self.partial |= found > most as u64;
        let mut candidates = BTreeMap::new();
        for (dot, key) in lacking {
            if breaks(Mutant::RemoveByFilter) {
                self.remove_unasked(key, view)?;
                continue;
            }
            let seen = self.peer_seen()?.has(dot);
            if self.flow != Flow::Give && seen {
                // one version gone, the others may well be: asked in the same breath
                let entry = view.entry(&key)?;
                let peer = self.peer_seen()?;
                let siblings = entry.iter().flat_map(|entry| entry.record.siblings());
                for sibling in siblings.filter(|sibling| peer.has(sibling.dot)) {
                    candidates.insert(sibling.dot, key);
                }
                candidates.insert(dot, key);
            } else {
                self.tell(key, Phase::BloomExchange);
            }
        }
        self.ask_removed(&candidates);
        if second {
            return Ok(());
        }
        let filtered = self.methods.iter().any(|&(method, _)| method == Method::Bloom);
        if !filtered {
            let reason = "the peer chose filters".to_owned();
            let predicted = plan::filter_cost(items, self.filter_rate(items, found.max(1)));
            self.note_plan(Phase::BloomExchange, reason, predicted);
        }
        self.methods.push((Method::Bloom, self.progress));
        let own = passed.len() as u64;
        let estimate = found.max(own.abs_diff(items)).max(1);
        let fpr = self.filter_rate(own, estimate);
        let mut answer = self.empty_filter(&self.filter_seed(true), own, fpr);
        passed.iter().for_each(|&dot| answer.insert(dot));
        let filter = answer.to_wire();
        self.effort.sketch_bytes += filter.bits.len();
        let message = TurnMessage::Filter { filter, items: own, second: true };
        self.items.push_back(TurnItem::Message(Box::new(message)));
        Ok(())
    }

    /// What a session must never do: takes all that is held of a key for seen and dead at the peer.
    /// Only mutants do.
    pub(super) fn remove_unasked(
        &mut self,
        key: KeyHash,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let entry = view.entry(&key)?;
        let held = entry.iter().flat_map(|entry| entry.record.siblings());
        let held: Vec<_> = held.map(|sibling| sibling.dot).collect();
        self.knowledge.entry(key, Phase::MerkleComparison).gone.extend(held);
        self.knowledge.refresh(&key);
        self.update(key, view)
    }

    /// Each filter comes once, the second only in answer to one that this side sent.
    fn first_such_filter(&mut self, second: bool) -> Result<(), Failure> {
        let filtered = self.methods.iter().any(|&(method, _)| method == Method::Bloom);
        let sent = filtered && !self.effort.filters[0];
        let again = std::mem::replace(&mut self.effort.filters[usize::from(second)], true);
        if again || sent != second { Err(protocol()) } else { Ok(()) }
    }

    /// Begins the next way of finding what still differs.
    pub(super) fn start_detection(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        self.exchange = None;
        self.settle_overlay(view)?;
        let filtered = self.methods.iter().any(|&(method, _)| method == Method::Bloom);
        if self.strategy == Strategy::Bloom && !filtered {
            let entries = self.ours.envelope.totals().entries;
            let predicted = plan::filter_cost(entries, self.setup.config.bloom_filter_fpr);
            let reason = "forced by the strategy".to_owned();
            self.note_plan(Phase::BloomExchange, reason, predicted);
            return self.send_first_filter(entries / 10, view);
        }
        let most = self.ours.envelope.totals().entries.max(self.theirs.entries);
        if self.may_estimate() && self.is_worth_estimating(most) {
            self.begin_exchange(view)?;
            if self.exchange.is_some() || !self.methods.is_empty() {
                return Ok(());
            }
        }
        match self.methods.last() {
            Some(&(Method::Steer, before)) if before == self.progress => self.start_descent(view),
            Some(&(Method::Full, before)) if before == self.progress => {
                Err(Failure::Ours(AbortCode::RootMismatch))
            }
            _ => self.start_steering(view),
        }
    }

    pub(super) fn note_plan(&mut self, phase: Phase, reason: String, predicted: Cost) {
        self.stats.plan.push(PlanStep { phase, reason, predicted });
    }
}
