//! States that this node has had in common with a peer: whoever is still at one is strictly behind.

use std::sync::Arc;

use crate::hash::{ContextHash, TreeHash};

use super::view::JoinRecord;

/// States remembered.
const MOST_STATES: usize = 16;
/// Writers and runs of exceptions of all their contexts.
const MOST_ITEMS: usize = 16_384;

/// The latest, each once: an aid in memory. A copy stays as it is.
#[derive(Clone, Default)]
pub(super) struct CommonStates(Arc<Vec<(ContextHash, Arc<JoinRecord>)>>);

impl CommonStates {
    /// Remembers one more, with the hash of its context; the oldest make way.
    pub(super) fn remember(&mut self, context: ContextHash, record: &JoinRecord) {
        let states = Arc::make_mut(&mut self.0);
        states.retain(|(known, other)| *known != context || other.tree != record.tree);
        states.push((context, Arc::new(record.clone())));
        let items =
            |record: &JoinRecord| record.merged.writers() + record.merged.exceptions().run_count();
        let (mut kept, mut sum) = (0, 0);
        for (_, record) in states.iter().rev().take(MOST_STATES) {
            sum += items(record);
            if sum > MOST_ITEMS {
                break;
            }
            kept += 1;
        }
        states.drain(..states.len() - kept);
    }

    /// The latest of which this is true.
    pub(super) fn find(
        &self,
        is: &dyn Fn(&TreeHash, &ContextHash) -> bool,
    ) -> Option<Arc<JoinRecord>> {
        let found = self.0.iter().rev().find(|(context, record)| is(&record.tree, context));
        found.map(|(_, record)| Arc::clone(record))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dots::{Causality, DotSet, Writer};
    use crate::entry::Totals;

    fn record(log_position: u64, writers: u64) -> JoinRecord {
        let pairs = (1..=writers).map(|writer| (Writer::new(writer).unwrap(), 1));
        JoinRecord {
            log_position,
            merged: Causality::new(pairs, DotSet::default(), &DotSet::default()),
            tree: TreeHash([1; 32]),
            totals: Totals::default(),
        }
    }

    fn positions(states: &CommonStates) -> Vec<u64> {
        states.0.iter().map(|(_, record)| record.log_position).collect()
    }

    #[test]
    fn the_latest_are_kept_each_once() {
        let mut states = CommonStates::default();
        for position in 0..100u8 {
            states.remember(ContextHash([position; 32]), &record(position.into(), 1));
        }
        assert_eq!(positions(&states), (84..100).collect::<Vec<_>>());
        let copy = states.clone();
        states.remember(ContextHash([90; 32]), &record(200, 1));
        assert_eq!(states.find(&|_, context| context.0[0] == 90).unwrap().log_position, 200);
        assert_eq!(copy.find(&|_, context| context.0[0] == 90).unwrap().log_position, 90);
        assert_eq!(positions(&states).len(), 16);
        assert!(states.find(&|_, context| context.0[0] == 83).is_none());
    }

    #[test]
    fn great_contexts_make_others_go() {
        let mut states = CommonStates::default();
        for position in 0..4u8 {
            states.remember(ContextHash([position; 32]), &record(position.into(), 8_000));
        }
        assert_eq!(positions(&states), [2, 3]);
        states.remember(ContextHash([9; 32]), &record(9, 17_000));
        assert!(positions(&states).is_empty());
    }
}
