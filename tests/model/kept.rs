//! What many states share, and what was worked out once.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// A value that is shared and knows its hash, so that a state is compared and hashed at once
/// however much it holds.
#[derive(Debug)]
pub struct Kept<T>(Arc<(u64, T)>);

impl<T: Hash> Kept<T> {
    pub fn new(value: T) -> Self {
        let mut hasher = Gathering(Vec::with_capacity(4_096));
        value.hash(&mut hasher);
        Self(Arc::new((hasher.finish(), value)))
    }
}

/// All bytes first, then one hash over them: many small steps of a hash are slow in a debug build.
struct Gathering(Vec<u8>);

impl Hasher for Gathering {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = blake3::hash(&self.0);
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Eq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.0 == other.0.0 && self.0.1 == other.0.1)
    }
}

impl<T: Eq> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}

/// Answers of the engine: the same question to the same part of two states is asked once.
pub struct Memo<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    pub fn ask(&self, question: K, work_out: impl FnOnce(&K) -> V) -> V {
        let known = self.0.lock().expect("no holder panics").get(&question).cloned();
        known.unwrap_or_else(|| {
            let answer = work_out(&question);
            let mut answers = self.0.lock().expect("no holder panics");
            answers.insert(question, answer.clone());
            answer
        })
    }

    pub fn len(&self) -> usize {
        self.0.lock().expect("no holder panics").len()
    }
}
