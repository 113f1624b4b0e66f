//! The stream of coded symbols of a set.

use super::mapping::{Mapping, Word};
use super::{IbltKey, KeptSymbols, Symbol, Symbols};
use crate::limits::Limits;
use crate::sketch::ShortId;

/// The coded symbols of a set, in batches: the same stream for the same set and key, in whatever
/// order its ids come and however it is cut.
///
/// 20 bytes of memory an id. A batch costs a look at each id and a few nanoseconds for each
/// symbol that it is in: about 2 ln(b / a) of those from a to b. So many small batches cost more
/// than few that grow.
#[derive(Clone, Debug)]
pub struct Encoder {
    key: IbltKey,
    words: Vec<Word>,
    states: Vec<u64>,
    /// The next symbol that each id is in: what a batch looks at first.
    next: Vec<u32>,
    made: usize,
    most: usize,
    /// What there is instead of ids.
    kept: Option<KeptSymbols>,
}

impl Encoder {
    /// The stream of these ids, each of which is to come once, up to `max_iblt_symbols`.
    #[must_use]
    pub fn new(key: &IbltKey, ids: impl IntoIterator<Item = ShortId>, limits: &Limits) -> Self {
        let ids = ids.into_iter();
        let (words, states) = ids
            .map(|id| {
                let (word, mapping) = Word::of(key, id);
                (word, mapping.state)
            })
            .collect::<(Vec<_>, Vec<_>)>();
        let next = vec![0; words.len()];
        let most = limits.max_iblt_symbols.min(u32::MAX as usize);
        Self { key: key.clone(), words, states, next, made: 0, most, kept: None }
    }

    /// The stream under [`IbltKey::KEPT`] as far as it is kept, up to `max_iblt_symbols`.
    #[must_use]
    pub fn of_kept(kept: KeptSymbols, limits: &Limits) -> Self {
        let most = limits.max_iblt_symbols.min(kept.len());
        let (words, states, next) = Default::default();
        Self { key: IbltKey::KEPT, words, states, next, made: 0, most, kept: Some(kept) }
    }

    /// How many symbols were made so far.
    #[must_use]
    pub const fn symbols(&self) -> usize {
        self.made
    }

    /// How many symbols can still be made.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.most - self.made
    }

    /// Whether the stream is read from symbols that are kept, and ends where those end.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether it is, and they are fewer than so many more: then it is to be made of all ids.
    #[must_use]
    pub const fn runs_out(&self, symbols: usize) -> bool {
        self.is_kept() && self.left() < symbols
    }

    /// Whether it is under [`IbltKey::KEPT`].
    #[must_use]
    pub fn has_kept_key(&self) -> bool {
        self.key == IbltKey::KEPT
    }

    /// Passes over so many symbols.
    pub fn skip(&mut self, symbols: usize) {
        let _ = self.next_symbols(symbols);
    }

    /// The next symbols of the stream: as many as asked for, or as are left up to
    /// `max_iblt_symbols`.
    #[must_use]
    pub fn next_symbols(&mut self, count: usize) -> Symbols {
        let count = count.min(self.left());
        if let Some(kept) = &self.kept {
            let symbols = kept.read(self.made..self.made + count);
            self.made += count;
            return symbols;
        }
        let mut symbols = vec![Symbol::default(); count];
        let first = self.made as u32;
        let end = (self.made + count) as u32;
        let ids = self.words.iter().zip(&mut self.states).zip(&mut self.next);
        for ((word, state), next) in ids {
            if *next >= end {
                continue;
            }
            let mut mapping = Mapping { state: *state, at: *next };
            while mapping.at < end {
                symbols[(mapping.at - first) as usize].add(*word, 1);
                mapping.step();
            }
            (*state, *next) = (mapping.state, mapping.at);
        }
        self.made += count;
        Symbols(symbols)
    }

    pub(super) const fn key(&self) -> &IbltKey {
        &self.key
    }
}
