//! Some writers of a context, to be changed apart and put back.

use std::collections::BTreeMap;

use super::Causality;
use crate::dots::{DotSet, Writer};

impl Causality {
    /// What was seen of these writers alone: canonical where the whole is. Whoever changes few
    /// writers changes a slice, and puts it back when it is safe on disk.
    #[must_use]
    pub fn slice(&self, writers: impl IntoIterator<Item = Writer>) -> Self {
        let mut slice = Self { context: BTreeMap::new(), exceptions: DotSet::default() };
        for writer in writers {
            if let Some(&counter) = self.context.get(&writer) {
                slice.context.insert(writer, counter);
            }
            for run in self.exceptions.runs_of(writer) {
                slice.exceptions.insert_run(run);
            }
        }
        slice
    }

    /// Puts back a changed slice: of its writers only what the slice says is known afterwards.
    /// A writer never vanishes from a slice, since nothing that was seen is unseen later.
    pub fn put_back(&mut self, slice: &Self) {
        for writer in slice.context.keys().copied().chain(slice.exceptions.writers()) {
            self.exceptions.remove_through(writer, u64::MAX);
            match slice.context.get(&writer) {
                Some(&counter) => self.context.insert(writer, counter),
                None => self.context.remove(&writer),
            };
        }
        self.exceptions.extend(&slice.exceptions);
    }
}
