//! How many leaves differ: estimators of both sides, held against each other by one of them.
//!
//! Where sketches are kept and contexts are not expected to explain everything, the hello carries
//! the initiator's estimator in eight bytes, and the answer that of the responder, as long as it
//! must be: so whoever looks for what is left can choose at once. Elsewhere the side whose turn it
//! is sends its estimator folded, and if that is not enough the other answers with its own, wrapped.

use super::config::Strategy;
use super::knowledge::Theirs;
use super::machine::Session;
use super::message::{Estimate, TurnMessage};
use super::outcome::Failure;
use super::plan;
use super::sketching::{Exchange, Frozen, Step, leaves_of};
use super::turn::protocol;
use crate::hash::KeyHash;
use crate::replica::CollectionView;
use crate::sketch::{Estimator, FoldedEstimator, Precision};

/// Up to so many differences a folded estimator sizes the answer; beyond, one that tells more
/// saves more bytes than it has.
pub(super) const FOLDED_UP_TO: u64 = 36;
/// Of more keys that both have told about each other, or dots named as removed, it is not reckoned
/// what they change of the estimators of both snapshots: they are sent anew.
const MOST_EXPLAINED: usize = 1_024;
/// The same for what this side has told and of which it does not know what the peer held before:
/// each may count as a difference that is none any more.
const MOST_GUESSED: u64 = 16;

/// What was said of how many differ, besides the messages of the exchange.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Told {
    /// The peer's snapshot.
    theirs: Option<Estimate>,
    /// Whether the peer knows the own one, and may choose.
    ours: bool,
}

impl Session {
    /// Whether an exchange may begin: once, and before anything else was tried.
    pub(super) fn may_estimate(&self) -> bool {
        self.methods.is_empty()
            && !self.effort.estimated
            && matches!(self.strategy, Strategy::Auto | Strategy::Sketch | Strategy::Iblt)
    }

    /// Whether it pays to know how many differ, when the larger side has so many entries.
    pub(super) fn is_worth_estimating(&self, most_entries: u64) -> bool {
        let kept = self.knowledge.kept_sketches().is_some();
        plan::worth_estimating(self.strategy, self.setup.config.profile, most_entries, kept)
    }

    /// The estimator of this side's snapshot for the hello, unless that costs a look at all
    /// entries, or the two have met: then contexts explain what differs.
    pub(super) fn estimator_for_hello(&mut self) -> Option<FoldedEstimator> {
        let entries = self.ours.envelope.totals().entries;
        let by_contexts = self.strategy == Strategy::Auto && self.theirs.base.is_some();
        if by_contexts || !self.is_worth_estimating(entries) {
            return None;
        }
        let folded = self.frozen().sketches?.estimator().folded();
        self.told.ours = true;
        Some(folded)
    }

    /// The answer to an estimator in a hello: as long as it must be to tell how many differ.
    pub(super) fn estimator_for_reply(
        &mut self,
        theirs: Option<FoldedEstimator>,
    ) -> Option<Estimate> {
        let theirs = theirs.filter(|_| self.may_estimate())?;
        self.told.theirs = Some(Estimate::Folded(theirs));
        let sketches = self.frozen().sketches?;
        let own = sketches.estimator();
        self.told.ours = true;
        Some(match few(own, &theirs) {
            Some(_) => Estimate::Folded(own.folded()),
            None => Estimate::Wrapped(own.wrapped()),
        })
    }

    /// The peer's answer to the estimator in this side's hello.
    pub(super) fn reply_estimates(&mut self, estimate: Option<Estimate>) -> Result<(), Failure> {
        if estimate.is_some() && !self.told.ours {
            return Err(protocol());
        }
        self.told.theirs = estimate;
        Ok(())
    }

    /// Begins an exchange: by what was said of both snapshots, if that is enough.
    pub(super) fn begin_exchange(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        self.effort.estimated = true;
        let tree = self.frozen();
        let own = self.estimator(&tree, view)?;
        if let Some(theirs) = self.told.theirs.take()
            && let Some(own) = self.unexplained(&tree, own.clone(), view)?
        {
            let (estimate, precision) = match theirs {
                Estimate::Folded(theirs) => (few(&own, &theirs), Precision::Folded),
                Estimate::Wrapped(theirs) => (own.wrapped().difference(&theirs), Precision::Full),
            };
            if estimate.is_some() || precision == Precision::Full {
                return self.choose(tree, estimate, precision, view);
            }
        }
        let estimate = Estimate::Folded(own.folded());
        self.exchange = Some(Exchange::new(tree, Step::Estimated { own, folded: true }));
        self.say(TurnMessage::Estimate(estimate), 0);
        Ok(())
    }

    /// What of the own estimator is to be held against that of the peer's snapshot, so that the
    /// difference is that of both overlays: the peer's own leaves where it has told them, and
    /// nothing where it was told. None if that is too much to reckon, or to guess.
    fn unexplained(
        &mut self,
        leaves: &Frozen,
        mut own: Estimator,
        view: &dyn CollectionView,
    ) -> Result<Option<Estimator>, Failure> {
        if self.knowledge.len() > MOST_EXPLAINED {
            return Ok(None);
        }
        let guessed = self.knowledge.iter().filter(|(_, known)| known.theirs == Theirs::Unknown);
        if self.effort.named_removed.saturating_add(guessed.count() as u64) > MOST_GUESSED {
            return Ok(None);
        }
        let keys: Vec<KeyHash> = self.knowledge.iter().map(|(key, _)| *key).collect();
        self.charge(keys.len() as u64)?;
        for key in keys {
            if let Some(leaf) = leaves.tree.get(&key, view)? {
                own.remove(&leaf.record);
            }
            let theirs = self.knowledge.get(&key).and_then(|known| known.theirs.record());
            if let Some(record) = theirs {
                own.add(&record.digest(self.ours.spec.algorithm));
            }
        }
        Ok(Some(own))
    }

    /// The estimator over the leaves: as it is kept, or by a look at each of them.
    fn estimator(
        &mut self,
        leaves: &Frozen,
        view: &dyn CollectionView,
    ) -> Result<Estimator, Failure> {
        if let Some(sketches) = &leaves.sketches {
            return Ok(sketches.estimator().clone());
        }
        self.charge(leaves.entries())?;
        let (mut estimator, mut failure) = (Estimator::default(), None);
        leaves_of(&leaves.tree, view, [true; 256], &mut failure)
            .for_each(|leaf| estimator.add(&leaf.record));
        failure.map_or(Ok(estimator), Err)
    }

    /// The peer's estimator.
    pub(super) fn peer_estimates(
        &mut self,
        estimate: Estimate,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        match estimate {
            Estimate::Folded(theirs) => {
                if !self.may_estimate() {
                    return Err(protocol());
                }
                self.effort.estimated = true;
                let tree = self.frozen();
                let own = self.estimator(&tree, view)?;
                let few = few(&own, &theirs);
                if few.is_some() {
                    return self.choose(tree, few, Precision::Folded, view);
                }
                self.say(TurnMessage::Estimate(Estimate::Wrapped(own.wrapped())), 0);
                self.exchange = Some(Exchange::new(tree, Step::Estimated { own, folded: false }));
                Ok(())
            }
            Estimate::Wrapped(theirs) => match self.exchange.take() {
                Some(Exchange { tree, step: Step::Estimated { own, folded: true }, .. }) => {
                    let estimate = own.wrapped().difference(&theirs);
                    self.choose(tree, estimate, Precision::Full, view)
                }
                _ => Err(protocol()),
            },
        }
    }

    /// The leaves that a sketch or symbols of the peer are held against: it may choose once it
    /// knows this side's estimator.
    pub(super) fn chosen_by_peer(&mut self) -> Result<Frozen, Failure> {
        match self.exchange.take() {
            Some(Exchange { tree, step: Step::Estimated { .. }, .. }) => Ok(tree),
            None if self.told.ours && self.may_estimate() => {
                self.effort.estimated = true;
                Ok(self.frozen())
            }
            _ => Err(protocol()),
        }
    }
}

/// How many differ, if eight bytes tell.
fn few(own: &Estimator, theirs: &FoldedEstimator) -> Option<u64> {
    own.folded().difference(theirs).filter(|few| *few <= FOLDED_UP_TO)
}
