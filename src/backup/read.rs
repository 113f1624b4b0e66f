//! Reading a backup, with every check that needs no other backup.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use super::blocks::{BlockKind, BlockReader, CHECK_BYTES, HEADER_BYTES};
use super::write::{CONTEXT, END, GONE, HELD, MISSING, PRESENT};
use super::{BackupCounts, BackupError, BackupHead, BackupLimits, BackupSummary, values_of};
use crate::dots::{Causality, Dot};
use crate::entry::Record;
use crate::hash::{KeyHash, ValueHash};
use crate::types::Key;

/// Longest record: as many siblings as one can count.
const MAX_RECORD_BYTES: u32 = 3 + 65_535 * 64;
/// Bytes of a value that are made room for before they are there.
const RESERVED: usize = 1 << 20;

/// What comes next in a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A key and what is held under it.
    Held {
        /// Hash of the key.
        key_hash: KeyHash,
        /// The key.
        key: Key,
        /// Its siblings.
        record: Record,
    },
    /// A value of the key that came last.
    Value {
        /// Its hash.
        hash: ValueHash,
        /// Its bytes; none if they were lost when the backup was made.
        value: Option<Arc<[u8]>>,
    },
    /// A key under which nothing is held any more.
    Gone(KeyHash),
}

impl Event {
    pub(super) const fn key(&self) -> Option<&KeyHash> {
        match self {
            Self::Held { key_hash, .. } | Self::Gone(key_hash) => Some(key_hash),
            Self::Value { .. } => None,
        }
    }
}

/// Reads one backup. What it hands out was checked against the hash of its block and, values,
/// against their records; that nothing is missing is known at the end.
pub struct BackupReader<R> {
    blocks: BlockReader<R>,
    head: BackupHead,
    limits: BackupLimits,
    causality: Causality,
    part: Vec<u8>,
    at: usize,
    last: Option<KeyHash>,
    /// Values of the last key that have not come yet.
    waiting: VecDeque<(ValueHash, u64)>,
    counts: BackupCounts,
    summary: Option<BackupSummary>,
}

impl<R: Read> BackupReader<R> {
    /// Reads head and context.
    ///
    /// # Errors
    /// It is no backup, of another format, cut short, damaged, or over a limit.
    pub fn open(input: R, limits: BackupLimits) -> Result<Self, BackupError> {
        let mut blocks = BlockReader::begin(input)?;
        let head = blocks.next_block()?;
        if head.kind != BlockKind::Head {
            return Err(BackupError::Malformed("it has no head"));
        }
        let head = BackupHead::parse(&head.bytes)?;
        let mut reader = Self {
            blocks,
            head,
            limits,
            causality: Causality::default(),
            part: Vec::new(),
            at: 0,
            last: None,
            waiting: VecDeque::new(),
            counts: BackupCounts::default(),
            summary: None,
        };
        reader.read_context()?;
        Ok(reader)
    }

    /// What it is of.
    pub const fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Context and exceptions.
    pub const fn causality(&self) -> &Causality {
        &self.causality
    }

    /// What it holds, once it was read to its end.
    pub const fn summary(&self) -> Option<BackupSummary> {
        self.summary
    }

    fn read_context(&mut self) -> Result<(), BackupError> {
        let [kind] = self.array()?;
        if kind != CONTEXT {
            return Err(BackupError::Malformed("it has no context"));
        }
        let length = u32::from_le_bytes(self.array()?);
        let limit = self.limits.max_context_bytes;
        if length > limit {
            let (size, limit) = (length.into(), limit.into());
            return Err(BackupError::ContextSize { size, limit });
        }
        let context = self.bytes(u64::from(length))?;
        if self.head.envelope.algorithm().context(&context) != self.head.context {
            return Err(BackupError::Context);
        }
        self.causality = Causality::parse(&context)?;
        Ok(())
    }

    /// Lets the context go, which was checked: only that of the last of a chain counts.
    pub(super) fn forget_context(&mut self) {
        self.causality = Causality::default();
    }

    /// What comes next; none at the end, and then all of it was there.
    ///
    /// # Errors
    /// It is cut short, damaged, not what a backup can say, or over a limit.
    pub fn next_event(&mut self) -> Result<Option<Event>, BackupError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        if let Some((hash, size)) = self.waiting.pop_front() {
            return self.value(hash, size).map(Some);
        }
        match self.array()? {
            [END] => self.end().map(|()| None),
            [HELD] => self.held().map(Some),
            [GONE] if self.head.base.is_some() => {
                let key = KeyHash(self.array()?);
                self.follows(key)?;
                self.counts.gone += 1;
                Ok(Some(Event::Gone(key)))
            }
            _ => Err(BackupError::Malformed("an item is of an unknown kind")),
        }
    }

    fn held(&mut self) -> Result<Event, BackupError> {
        let length = u16::from_le_bytes(self.array()?);
        let key = self.bytes(length.into())?;
        let key = Key::new(key).map_err(|_| BackupError::Malformed("a key is none"))?;
        let length = u32::from_le_bytes(self.array()?);
        if length > MAX_RECORD_BYTES {
            return Err(BackupError::Malformed("a record is too long"));
        }
        let record = Record::parse(&self.bytes(length.into())?)
            .map_err(|_| BackupError::Malformed("a record does not parse"))?;
        let key_hash = self.head.envelope.algorithm().key_hash(&key);
        self.follows(key_hash)?;
        let values = values_of(&record);
        let values =
            values.ok_or(BackupError::Malformed("siblings of one value have two sizes"))?;
        self.waiting = values.into();
        self.counts.held += 1;
        Ok(Event::Held { key_hash, key, record })
    }

    fn follows(&mut self, key: KeyHash) -> Result<(), BackupError> {
        if self.last.is_some_and(|last| last >= key) {
            return Err(BackupError::Malformed("keys are not in their order"));
        }
        self.last = Some(key);
        Ok(())
    }

    fn value(&mut self, hash: ValueHash, size: u64) -> Result<Event, BackupError> {
        let value = match self.array()? {
            [MISSING] => {
                self.counts.missing += 1;
                None
            }
            [PRESENT] => {
                let limit = self.limits.max_value_bytes;
                if size > limit {
                    return Err(BackupError::ValueSize { size, limit });
                }
                let value = self.bytes(size)?;
                if self.head.envelope.algorithm().value_hash(&value) != hash {
                    let key = self.last.unwrap_or(KeyHash([0; 32]));
                    return Err(BackupError::Value { key, hash });
                }
                self.counts.values += 1;
                self.counts.value_bytes += size;
                Some(value.into())
            }
            _ => return Err(BackupError::Malformed("a value is neither there nor missing")),
        };
        Ok(Event::Value { hash, value })
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let block = self.blocks.next_block()?;
        if self.at < self.part.len() || block.kind != BlockKind::End {
            return Err(BackupError::Malformed("something stands behind its last item"));
        }
        let counts = BackupCounts::parse(&block.bytes);
        if counts != Ok(self.counts) {
            return Err(BackupError::Malformed("it does not hold what it counts"));
        }
        self.blocks.end()?;
        self.summary = Some(BackupSummary { counts: self.counts, hash: block.check });
        Ok(())
    }

    /// The next bytes of the body.
    fn some(&mut self, most: usize) -> Result<&[u8], BackupError> {
        while self.at == self.part.len() {
            let block = self.blocks.next_block()?;
            if block.kind != BlockKind::Body {
                return Err(BackupError::Malformed("it ends within an item"));
            }
            (self.part, self.at) = (block.bytes, 0);
        }
        let from = self.at;
        self.at = self.part.len().min(from.saturating_add(most));
        Ok(&self.part[from..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let (mut array, mut filled) = ([0; N], 0);
        while filled < N {
            let some = self.some(N - filled)?;
            array[filled..filled + some.len()].copy_from_slice(some);
            filled += some.len();
        }
        Ok(array)
    }

    /// So many bytes; room is made as they come.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, BackupError> {
        let too_long = |_| BackupError::Malformed("a length is beyond memory");
        let length = usize::try_from(length).map_err(too_long)?;
        let mut bytes = Vec::with_capacity(length.min(RESERVED));
        while bytes.len() < length {
            let missing = length - bytes.len();
            bytes.extend_from_slice(self.some(missing)?);
        }
        Ok(bytes)
    }
}

/// Checks that what is held was seen as it must have been: not dead, and the context as far on as
/// it can be.
pub(super) fn check_dots(record: &Record, causality: &Causality) -> Result<(), BackupError> {
    let unsound = |dot: &Dot| {
        causality.exceptions().contains(*dot)
            || Some(dot.counter()) == causality.counter(dot.writer()).checked_add(1)
    };
    match record.siblings().iter().map(|sibling| sibling.dot).find(unsound) {
        Some(dot) => Err(BackupError::Dot(dot)),
        None => Ok(()),
    }
}

/// What a backup holds, read from its last block alone: not that this is true.
///
/// # Errors
/// It does not end as a backup does.
pub fn read_summary(mut input: impl Read + Seek) -> Result<BackupSummary, BackupError> {
    const TAIL: usize = HEADER_BYTES + BackupCounts::BYTES + CHECK_BYTES;
    let length = input.seek(SeekFrom::End(0))?;
    let cut = BackupError::Cut(length);
    let Some(from) = length.checked_sub(TAIL as u64) else { return Err(cut) };
    input.seek(SeekFrom::Start(from))?;
    let mut tail = [0; TAIL];
    input.read_exact(&mut tail)?;
    let (header, rest) = tail.split_at(HEADER_BYTES);
    let (counts, hash) = rest.split_at(BackupCounts::BYTES);
    let size = (BackupCounts::BYTES as u32).to_le_bytes();
    let expected = [&[BlockKind::End as u8, 0][..], &size, &size].concat();
    match (BackupCounts::parse(counts), hash.try_into()) {
        (Ok(counts), Ok(hash)) if header == expected => Ok(BackupSummary { counts, hash }),
        _ => Err(cut),
    }
}
