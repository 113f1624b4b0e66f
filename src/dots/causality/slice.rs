//! Some writers of a context, to be changed apart and put back.

use std::collections::{BTreeMap, BTreeSet};

use super::Causality;
use crate::dots::{DotSet, Writer};

impl Causality {
    /// What was seen of these writers alone: canonical where the whole is. Whoever changes few
    /// writers changes a slice, and puts it back when it is safe on disk.
    #[must_use]
    pub fn slice(&self, writers: impl IntoIterator<Item = Writer>) -> Self {
        let mut slice = Self { context: BTreeMap::new(), exceptions: DotSet::default() };
        // each once, however often it is named
        for writer in BTreeSet::from_iter(writers) {
            if let Some(&counter) = self.context.get(&writer) {
                slice.context.insert(writer, counter);
            }
            slice.exceptions.set_writer(writer, &self.exceptions);
        }
        slice
    }

    /// Puts back a changed slice: of its writers only what the slice says is known afterwards.
    /// A writer never vanishes from a slice, since nothing that was seen is unseen later.
    pub fn put_back(&mut self, slice: &Self) {
        let writers = slice.context.keys().copied().chain(slice.exceptions.writers());
        for writer in BTreeSet::from_iter(writers) {
            self.exceptions.set_writer(writer, &slice.exceptions);
            match slice.context.get(&writer) {
                Some(&counter) => self.context.insert(writer, counter),
                None => self.context.remove(&writer),
            };
        }
    }
}
