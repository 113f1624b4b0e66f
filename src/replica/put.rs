//! Puts, deletes and imports (rules D1 to D4).

use std::sync::Arc;

use crate::codec::Writing as _;
use crate::dots::{Dot, Writer};
use crate::entry::Sibling;
use crate::hash::{KeyHash, ValueHash};
use crate::store::Store;
use crate::types::Key;

use super::ReplicaError;
use super::collection::{Collection, PresentWriter};
use super::draft::Draft;
use super::group::{Done, Over, Work};

/// What an import did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Imported {
    /// Entries written.
    pub written: u64,
    /// Entries that already had just this value, for which nothing was written.
    pub unchanged: u64,
}

/// A put, hashed before the lock is taken.
pub(super) struct Put {
    key: Key,
    pub(super) key_hash: KeyHash,
    value: Arc<[u8]>,
    value_hash: ValueHash,
}

impl<S: Store> Collection<S> {
    /// Writes a value in place of all siblings held here (rule D2).
    ///
    /// # Errors
    /// The value is too large, the store failed, or what was held is damaged.
    pub fn put(
        &self,
        key: &Key,
        value: impl Into<Arc<[u8]>>,
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        self.put_together(key, value.into(), Over::All, now_ms)
    }

    /// Writes a value in place of the siblings that the client has read; what it had not seen
    /// stays beside it (rule D2).
    ///
    /// # Errors
    /// The value is too large, too many siblings would stay, the store failed, or what was held
    /// is damaged.
    pub fn put_over(
        &self,
        key: &Key,
        value: impl Into<Arc<[u8]>>,
        read: &[Dot],
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        self.put_together(key, value.into(), Over::Read(read.to_vec()), now_ms)
    }

    /// Writes a value in place of all siblings held here, if they are just those that the client
    /// has read: compared and written in one commit.
    ///
    /// # Errors
    /// Others are held by now ([`ReplicaError::Changed`]), the value is too large, the store
    /// failed, or what was held is damaged; nothing was done.
    pub fn put_exactly(
        &self,
        key: &Key,
        value: impl Into<Arc<[u8]>>,
        read: &[Dot],
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        self.put_together(key, value.into(), Over::Exactly(read.to_vec()), now_ms)
    }

    /// Removes all siblings held here, if they are just those that the client has read.
    ///
    /// # Errors
    /// Others are held by now ([`ReplicaError::Changed`]), the store failed, or what was held is
    /// damaged; nothing was done.
    pub fn delete_exactly(
        &self,
        key: &Key,
        read: &[Dot],
        now_ms: u64,
    ) -> Result<u64, ReplicaError> {
        self.delete_together(key, Over::Exactly(read.to_vec()), now_ms)
    }

    fn put_together(
        &self,
        key: &Key,
        value: Arc<[u8]>,
        over: Over,
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        let put = self.hashed(key.clone(), value)?;
        match self.together(Work::Put(put, over), now_ms)? {
            Done::Put(sibling) => Ok(sibling),
            Done::Deleted(_) => unreachable!("a put is answered as one"),
        }
    }

    fn delete_together(&self, key: &Key, over: Over, now_ms: u64) -> Result<u64, ReplicaError> {
        match self.together(Work::Delete(self.key_hash(key), over), now_ms)? {
            Done::Deleted(removed) => Ok(removed),
            Done::Put(_) => unreachable!("a delete is answered as one"),
        }
    }

    /// Removes all siblings held here (rule D3); how many there were. Nothing is left of them.
    ///
    /// # Errors
    /// The store failed, or what was held is damaged.
    pub fn delete(&self, key: &Key, now_ms: u64) -> Result<u64, ReplicaError> {
        self.delete_together(key, Over::All, now_ms)
    }

    /// Removes the siblings that the client has read (rule D3); how many of them were held.
    ///
    /// # Errors
    /// The store failed, or what was held is damaged.
    pub fn delete_dots(&self, key: &Key, read: &[Dot], now_ms: u64) -> Result<u64, ReplicaError> {
        self.delete_together(key, Over::Read(read.to_vec()), now_ms)
    }

    /// Removes all siblings held here of many keys, in one commit; how many there were.
    ///
    /// # Errors
    /// The store failed, or what was held is damaged; nothing was removed.
    pub fn delete_all<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k Key>,
        now_ms: u64,
    ) -> Result<u64, ReplicaError> {
        let keys: Vec<KeyHash> = keys.into_iter().map(|key| self.key_hash(key)).collect();
        self.change(now_ms, |draft, _| {
            keys.iter().try_fold(0, |removed, key| {
                let held = dots(draft.siblings(key)?);
                Ok(removed + remove_all(draft, key, &held)?)
            })
        })
    }

    /// Puts many entries in one commit. An entry all of whose siblings already have the value is
    /// left as it is: importing a folder twice writes nothing.
    ///
    /// # Errors
    /// A value is too large, the store failed, or what was held is damaged; nothing was written.
    pub fn import(
        &self,
        entries: impl IntoIterator<Item = (Key, Arc<[u8]>)>,
        now_ms: u64,
    ) -> Result<Imported, ReplicaError> {
        let puts = entries
            .into_iter()
            .map(|(key, value)| self.hashed(key, value))
            .collect::<Result<Vec<_>, _>>()?;
        self.change(now_ms, |draft, writer| {
            let mut imported = Imported::default();
            for put in &puts {
                let held = draft.siblings(&put.key_hash)?;
                let same = |sibling: &Sibling| sibling.value_hash == put.value_hash;
                if !held.is_empty() && held.iter().all(same) {
                    imported.unchanged += 1;
                    continue;
                }
                let held = dots(held);
                self.draft_put(draft, writer, put, &held, now_ms)?;
                imported.written += 1;
            }
            Ok(imported)
        })
    }

    fn hashed(&self, key: Key, value: Arc<[u8]>) -> Result<Put, ReplicaError> {
        let (size, limit) = (value.len() as u64, self.node.limits.max_value_bytes);
        if size > limit {
            return Err(ReplicaError::ValueSize { size, limit });
        }
        let value_hash = self.spec.algorithm.value_hash(&value);
        Ok(Put { key_hash: self.key_hash(&key), key, value, value_hash })
    }

    pub(super) fn draft_put(
        &self,
        draft: &mut Draft<'_, S>,
        writer: &mut Option<PresentWriter>,
        put: &Put,
        over: &[Dot],
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        remove_all(draft, &put.key_hash, over)?;
        let (found, limit) =
            (draft.siblings(&put.key_hash)?.len() + 1, self.node.limits.max_siblings);
        if found > limit.max(1) {
            return Err(ReplicaError::Siblings { found, limit });
        }
        let of = (put.value.len() as u64, put.value_hash);
        let value = Some(Arc::clone(&put.value));
        self.draft_sibling(draft, writer, (&put.key, &put.key_hash), of, value, now_ms)
    }

    /// Adds a sibling with the next dot and a stamp of now. Its value must be held for this key
    /// if none is given.
    pub(super) fn draft_sibling(
        &self,
        draft: &mut Draft<'_, S>,
        writer: &mut Option<PresentWriter>,
        (key, key_hash): (&Key, &KeyHash),
        (size, value_hash): (u64, ValueHash),
        value: Option<Arc<[u8]>>,
        now_ms: u64,
    ) -> Result<Sibling, ReplicaError> {
        let (mut present, dot) = self.next_dot(draft, *writer)?;
        let sibling = Sibling { dot, stamp: self.node.stamp(now_ms)?, size, value_hash };
        draft.add(key, key_hash, sibling, value)?;
        let mut hashed = Vec::with_capacity(128);
        hashed.put_bytes(&present.puts);
        hashed.put_bytes(&key_hash.0);
        hashed.put_bytes(&sibling.to_bytes());
        present.counter = dot.counter();
        present.puts = blake3::hash(&hashed).into();
        *writer = Some(present);
        Ok(sibling)
    }

    /// The next dot of the present writer; of a fresh one before the first put of an opening
    /// (rule D1), and when somebody else was seen to use the present one.
    fn next_dot(
        &self,
        draft: &Draft<'_, S>,
        present: Option<PresentWriter>,
    ) -> Result<(PresentWriter, Dot), ReplicaError> {
        if let Some(present) = present {
            let next = Dot::of(present.writer, present.counter).and_then(Dot::next);
            if let Some(next) = next.filter(|next| next.counter() < u64::MAX)
                && !draft.is_taken(next)
            {
                return Ok((present, next));
            }
        }
        loop {
            let drawn = Writer::new(self.node.random_nonzero());
            let Some((writer, first)) =
                drawn.and_then(|writer| Some((writer, Dot::of(writer, 1)?)))
            else {
                continue;
            };
            if !draft.knows_writer(writer)? {
                return Ok((PresentWriter { writer, counter: 0, puts: [0; 32] }, first));
            }
        }
    }
}

pub(super) fn dots(siblings: &[Sibling]) -> Vec<Dot> {
    siblings.iter().map(|sibling| sibling.dot).collect()
}

pub(super) fn remove_all<S: Store>(
    draft: &mut Draft<'_, S>,
    key_hash: &KeyHash,
    dots: &[Dot],
) -> Result<u64, ReplicaError> {
    let mut removed = 0;
    for &dot in dots {
        removed += u64::from(draft.remove(key_hash, dot)?);
    }
    Ok(removed)
}
