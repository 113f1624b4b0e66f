//! The beginning of a stream, kept up to date while its set changes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::mapping::Word;
use super::{IbltKey, Symbol, Symbols};
use crate::sketch::ShortId;

/// Symbols that are copied together when one of them changes after a clone.
const CHUNK: usize = 64;

/// The first symbols of the stream under [`IbltKey::KEPT`], of just the ids that were added and not
/// removed. 16 bytes of memory a symbol; an id that comes or goes costs about 2 ln(n / 2) looks at
/// n symbols. A clone shares chunks of 1 kB with the original until they change.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptSymbols(Vec<Arc<[Symbol; CHUNK]>>);

impl fmt::Debug for KeptSymbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptSymbols({})", self.len())
    }
}

impl KeptSymbols {
    /// So many of no ids, rounded up to 64.
    #[must_use]
    pub fn new(symbols: usize) -> Self {
        let none = Arc::new([Symbol::default(); CHUNK]);
        Self(vec![none; symbols.div_ceil(CHUNK)])
    }

    /// How many symbols there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        CHUNK * self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory that so many take, if nothing is shared.
    #[must_use]
    pub const fn bytes(symbols: usize) -> usize {
        let chunk = size_of::<[Symbol; CHUNK]>() + size_of::<Arc<[Symbol; CHUNK]>>() + 16;
        symbols.div_ceil(CHUNK) * chunk
    }

    /// Adds an id.
    pub fn add(&mut self, id: ShortId) {
        self.change(id, |symbol, word| symbol.add(word, 1));
    }

    /// Takes away an id that was added.
    pub fn remove(&mut self, id: ShortId) {
        self.change(id, |symbol, word| symbol.take(word, 1));
    }

    fn change(&mut self, id: ShortId, change: impl Fn(&mut Symbol, Word)) {
        let (word, mut mapping) = Word::of(&IbltKey::KEPT, id);
        let end = self.len();
        while (mapping.at as usize) < end {
            let at = mapping.at as usize;
            change(&mut Arc::make_mut(&mut self.0[at / CHUNK])[at % CHUNK], word);
            mapping.step();
        }
    }

    /// Adds all ids of another set, of as many symbols.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            for (ours, theirs) in Arc::make_mut(ours).iter_mut().zip(theirs.iter()) {
                ours.add(Word(theirs.word), theirs.count);
            }
        }
    }

    /// Some of them, as far as they go.
    pub(super) fn read(&self, range: Range<usize>) -> Symbols {
        let range = range.start.min(self.len())..range.end.min(self.len());
        Symbols(range.map(|at| self.0[at / CHUNK][at % CHUNK]).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::limits::Limits;
    use crate::sketch::iblt::Encoder;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_begin_the_stream_of_what_came_and_did_not_go(
            steps in prop::collection::vec((1u64..30, any::<bool>()), 0..80), symbols in 0usize..300,
            part in 0u64..30,
        ) {
            let mut held = BTreeMap::<u64, u32>::new();
            let mut kept = KeptSymbols::new(symbols);
            for (number, comes) in steps {
                // an id may come twice: of two entries
                let times = held.entry(number).or_default();
                let id = ShortId::new(number).expect("not 0");
                if comes {
                    *times += 1;
                    kept.add(id);
                } else if *times > 0 {
                    *times -= 1;
                    kept.remove(id);
                }
            }
            let ids = || held.iter().flat_map(|(number, times)| (0..*times).map(|_| *number));
            let of = |numbers: &mut dyn Iterator<Item = u64>| {
                let ids: Vec<_> = numbers.filter_map(ShortId::new).collect();
                Encoder::new(&IbltKey::KEPT, ids, &Limits::default())
            };
            let whole = of(&mut ids()).next_symbols(kept.len());
            prop_assert_eq!(&kept.read(0..usize::MAX), &whole);
            // in two parts
            let mut parts = [KeptSymbols::new(symbols), KeptSymbols::new(symbols)];
            for number in ids() {
                let id = ShortId::new(number).expect("not 0");
                parts[usize::from(number < part)].add(id);
            }
            let [mut one, other] = parts;
            one.merge(&other);
            prop_assert_eq!(&one, &kept);
            // as a stream that goes on where they end
            let mut stream = Encoder::of_kept(kept.clone(), &Limits::default());
            let cut = symbols / 3;
            let mut bytes = stream.next_symbols(cut).to_bytes();
            bytes.extend(stream.next_symbols(usize::MAX).to_bytes());
            prop_assert_eq!(bytes, whole.to_bytes());
            prop_assert_eq!(stream.left(), 0);
            let mut goes_on = of(&mut ids());
            goes_on.skip(stream.symbols());
            let mut all = of(&mut ids());
            let _ = all.next_symbols(kept.len());
            prop_assert_eq!(goes_on.next_symbols(50), all.next_symbols(50));
        }
    }

    #[test]
    fn a_copy_stays_as_it_is() {
        let mut kept = KeptSymbols::new(200);
        kept.add(ShortId::new(7).expect("not 0"));
        let copy = kept.clone();
        kept.remove(ShortId::new(7).expect("not 0"));
        assert_eq!(kept, KeptSymbols::new(200));
        assert_ne!(copy, kept);
        assert_eq!(kept.len(), 256);
        assert!(KeptSymbols::new(0).is_empty());
    }
}
