//! What a side holds of keys, as it is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Bytes;
use crate::clock::Stamp;
use crate::dots::{Dot, Writer};
use crate::entry::Sibling;
use crate::hash::{HashAlgorithm, ValueHash};

/// What one side's snapshot holds of a key, told once per session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct KeyState {
    /// The key.
    pub key: Bytes,
    /// Its siblings, ascending by dot.
    pub siblings: Vec<ToldSibling>,
}

/// A sibling, as it is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ToldSibling {
    /// Position of its writer in the message's list.
    pub writer: u32,
    /// Counter of its dot.
    pub counter: u64,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its value, or what is to be asked for.
    pub content: Content,
}

/// The value of a sibling.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Content {
    /// Its size and hash.
    Named {
        /// Bytes of the value.
        size: u64,
        /// Plain hash of the value.
        hash: ValueHash,
    },
    /// The value itself, which is small: size and hash are worked out from it.
    Value(Bytes),
}

impl ToldSibling {
    /// The sibling meant; none if its writer is not in the list, or its counter is 0.
    #[must_use]
    pub fn resolve(&self, writers: &[Writer], algorithm: HashAlgorithm) -> Option<Sibling> {
        let writer = writers.get(usize::try_from(self.writer).ok()?)?;
        let (size, value_hash) = match &self.content {
            Content::Named { size, hash } => (*size, *hash),
            Content::Value(value) => (value.0.len() as u64, algorithm.value_hash(&value.0)),
        };
        Some(Sibling { dot: Dot::of(*writer, self.counter)?, stamp: self.stamp, size, value_hash })
    }
}

/// The writers of a message, each once, in the order in which they came up.
#[derive(Debug, Default)]
pub struct WriterList {
    writers: Vec<Writer>,
    places: BTreeMap<Writer, u32>,
}

impl WriterList {
    /// A sibling as it is told in this message, with its value if it rides along.
    #[must_use]
    pub fn tell(&mut self, sibling: &Sibling, value: Option<Bytes>) -> ToldSibling {
        let writer = sibling.dot.writer();
        let next = self.writers.len() as u32;
        let place = *self.places.entry(writer).or_insert(next);
        if place == next {
            self.writers.push(writer);
        }
        let named = Content::Named { size: sibling.size, hash: sibling.value_hash };
        ToldSibling {
            writer: place,
            counter: sibling.dot.counter(),
            stamp: sibling.stamp,
            content: value.map_or(named, Content::Value),
        }
    }

    /// The list, when all is told.
    #[must_use]
    pub fn into_writers(self) -> Vec<Writer> {
        self.writers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_meant() {
        let algorithm = HashAlgorithm::Blake3;
        let sibling = |writer, value: &[u8]| Sibling {
            dot: Dot::new(writer, 3).expect("not zero"),
            stamp: Stamp(5),
            size: value.len() as u64,
            value_hash: algorithm.value_hash(value),
        };
        let mut list = WriterList::default();
        let siblings = [sibling(9, b"one"), sibling(7, b"two"), sibling(9, b"three")];
        let values = [None, Some(b"two"), None];
        let told: Vec<_> = siblings
            .iter()
            .zip(values)
            .map(|(sibling, value)| list.tell(sibling, value.map(|v| Bytes(v.to_vec()))))
            .collect();
        let writers = list.into_writers();
        assert_eq!(writers.len(), 2);
        for (told, sibling) in told.iter().zip(siblings) {
            assert_eq!(told.resolve(&writers, algorithm), Some(sibling));
            assert_eq!(told.resolve(&[], algorithm), None);
        }
        let zero = ToldSibling { counter: 0, ..told[0].clone() };
        assert_eq!(zero.resolve(&writers, algorithm), None);
    }
}
