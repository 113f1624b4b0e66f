//! Writing a backup, key by key.

use std::io::Write;

use super::blocks::{BLOCK_BYTES, BlockKind, BlockWriter};
use super::{BackupCounts, BackupError, BackupHead, BackupLimits, BackupSummary, values_of};
use crate::codec::Writing as _;
use crate::dots::Causality;
use crate::entry::Record;
use crate::hash::KeyHash;
use crate::types::Key;

pub(super) const END: u8 = 0;
pub(super) const CONTEXT: u8 = 1;
pub(super) const HELD: u8 = 2;
pub(super) const GONE: u8 = 3;

pub(super) const MISSING: u8 = 0;
pub(super) const PRESENT: u8 = 1;

/// Writes one backup. Keys come in the order of their hashes, each once, and behind each key its
/// values; a reader refuses anything else. Holds one block.
pub struct BackupWriter<W> {
    blocks: BlockWriter<W>,
    /// What of the body is not in a block yet.
    part: Vec<u8>,
    counts: BackupCounts,
}

impl<W: Write> BackupWriter<W> {
    /// Begins with the head and what was seen.
    ///
    /// # Errors
    /// The output failed, or the context is longer than a backup may have.
    pub fn begin(output: W, head: &BackupHead, causality: &Causality) -> Result<Self, BackupError> {
        Self::with(output, head, causality, true)
    }

    /// The same without compression, for whoever reads it at once.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    pub fn uncompressed(
        output: W,
        head: &BackupHead,
        causality: &Causality,
    ) -> Result<Self, BackupError> {
        Self::with(output, head, causality, false)
    }

    fn with(
        output: W,
        head: &BackupHead,
        causality: &Causality,
        compresses: bool,
    ) -> Result<Self, BackupError> {
        let context = causality.to_bytes()?;
        let limit = BackupLimits::default().max_context_bytes.into();
        if context.len() as u64 > limit {
            return Err(BackupError::ContextSize { size: context.len() as u64, limit });
        }
        let mut blocks = BlockWriter::begin(output, compresses)?;
        blocks.block(BlockKind::Head, &head.to_bytes())?;
        let part = Vec::with_capacity(BLOCK_BYTES);
        let mut writer = Self { blocks, part, counts: BackupCounts::default() };
        let mut item = vec![CONTEXT];
        item.put_u32(context.len() as u32);
        writer.put(&item)?;
        writer.put(&context)?;
        Ok(writer)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.part.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() == BLOCK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        if !self.part.is_empty() {
            self.blocks.block(BlockKind::Body, &self.part)?;
            self.part.clear();
        }
        Ok(())
    }

    /// A key and what is held under it. Its values follow.
    ///
    /// # Errors
    /// The output failed.
    pub fn held(&mut self, key: &Key, record: &Record) -> Result<(), BackupError> {
        if values_of(record).is_none() {
            return Err(BackupError::Malformed("siblings of one value have two sizes"));
        }
        let record = record.to_bytes();
        let mut item = vec![HELD];
        item.put_u16(key.as_bytes().len() as u16);
        item.put_bytes(key.as_bytes());
        item.put_u32(record.len() as u32);
        self.put(&item)?;
        self.put(&record)?;
        self.counts.held += 1;
        Ok(())
    }

    /// The next value of the last key: each that its siblings name once, in the order of the
    /// siblings. None: its bytes are lost.
    ///
    /// # Errors
    /// The output failed.
    pub fn value(&mut self, value: Option<&[u8]>) -> Result<(), BackupError> {
        match value {
            None => {
                self.counts.missing += 1;
                self.put(&[MISSING])
            }
            Some(value) => {
                self.counts.values += 1;
                self.counts.value_bytes += value.len() as u64;
                self.put(&[PRESENT])?;
                self.put(value)
            }
        }
    }

    /// A key under which nothing is held any more: in a part only.
    ///
    /// # Errors
    /// The output failed.
    pub fn gone(&mut self, key: &KeyHash) -> Result<(), BackupError> {
        self.counts.gone += 1;
        self.put(&[GONE])?;
        self.put(&key.0)
    }

    /// What was written so far.
    #[must_use]
    pub const fn counts(&self) -> BackupCounts {
        self.counts
    }

    /// Ends the backup: without this it is cut short.
    ///
    /// # Errors
    /// The output failed.
    pub fn finish(mut self) -> Result<(W, BackupSummary), BackupError> {
        self.put(&[END])?;
        self.flush()?;
        let hash = self.blocks.block(BlockKind::End, &self.counts.to_bytes())?;
        Ok((self.blocks.finish()?, BackupSummary { counts: self.counts, hash }))
    }
}
