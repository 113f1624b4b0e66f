//! Patches: a value as copies from a base and inserts between them.
//!
//! Bytes: varint number of steps, then per step varint insert length, varint copy length and, if
//! that is not zero, the signed varint distance of its base offset from the end of the last copy.
//! Then the inserts, gathered: a byte 0 and they as they stand, or a byte 1 and a zstd frame whose
//! reference prefix is the copied bytes around the inserts, which both ends know.
//!
//! ```
//! use selfsame::delta::{Operation, Patch};
//! use selfsame::limits::Limits;
//!
//! let patch = Patch::new(vec![
//!     Operation::Copy { base_offset: 0, length: 4 },
//!     Operation::Insert { length: 4 },
//! ]);
//! let bytes = patch.to_bytes(b"selfsame").expect("the length fits");
//! let value = Patch::apply_bytes(&bytes, b"selfish", 8, &Limits::default())?;
//! assert_eq!(value, b"selfsame");
//! # Ok::<(), selfsame::delta::DeltaError>(())
//! ```

use super::compress::{compress, decompress};
use super::{DeltaError, varint};
use crate::codec::{CodecError, Reader};
use crate::limits::Limits;

/// Most copied bytes that inserts are compressed against.
const CONTEXT_BYTES: u64 = 128 << 10;
/// Copied bytes at least, on each side of an insert, while there is room.
const MIN_REACH: u64 = 64;
const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// One step in the making of a value, from front to back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// So many bytes of the base.
    Copy {
        /// Where they start in the base.
        base_offset: u64,
        /// How many.
        length: u64,
    },
    /// So many of the inserted bytes that come next.
    Insert {
        /// How many.
        length: u64,
    },
}

impl Operation {
    const fn length(&self) -> u64 {
        match self {
            Self::Copy { length, .. } | Self::Insert { length } => *length,
        }
    }
}

/// Operations that make a value; empty ones dropped, neighbours that continue each other merged.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Patch(Vec<Operation>);

impl Patch {
    /// From operations in order.
    #[must_use]
    pub fn new(operations: Vec<Operation>) -> Self {
        let mut patch = Self::default();
        for operation in operations {
            patch.push(operation);
        }
        patch
    }

    pub(super) fn push(&mut self, operation: Operation) {
        if operation.length() == 0 {
            return;
        }
        match (self.0.last_mut(), operation) {
            (Some(Operation::Insert { length }), Operation::Insert { length: more }) => {
                *length = length.saturating_add(more);
            }
            (
                Some(Operation::Copy { base_offset, length }),
                Operation::Copy { base_offset: next, length: more },
            ) if base_offset.checked_add(*length) == Some(next) => {
                *length = length.saturating_add(more);
            }
            _ => self.0.push(operation),
        }
    }

    /// The operations, in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// Length of the value that it makes.
    #[must_use]
    pub fn target_len(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, operation| sum.saturating_add(operation.length()))
    }

    /// Bytes that are inserted.
    #[must_use]
    pub fn inserted(&self) -> u64 {
        let inserts =
            self.0.iter().filter(|operation| matches!(operation, Operation::Insert { .. }));
        inserts.fold(0, |sum: u64, operation| sum.saturating_add(operation.length()))
    }

    /// Wire bytes; none unless the target has the length that the operations make.
    #[must_use]
    pub fn to_bytes(&self, target: &[u8]) -> Option<Vec<u8>> {
        if self.target_len() != target.len() as u64 {
            return None;
        }
        let mut bytes = self.steps_to_bytes();
        let mut inserts = Vec::new();
        let mut position = 0;
        let mut starts = Vec::with_capacity(self.0.len());
        for operation in &self.0 {
            let end = position + operation.length() as usize;
            if matches!(operation, Operation::Insert { .. }) {
                inserts.extend_from_slice(target.get(position..end)?);
            }
            starts.push(position as u64);
            position = end;
        }
        if inserts.is_empty() {
            return Some(bytes);
        }
        let context = self.context(target, |index| starts.get(index).copied());
        match compress(&inserts, Some(&context)).filter(|frame| frame.len() < inserts.len()) {
            Some(frame) => {
                bytes.push(ZSTD);
                bytes.extend_from_slice(&frame);
            }
            None => {
                bytes.push(RAW);
                bytes.extend_from_slice(&inserts);
            }
        }
        Some(bytes)
    }

    fn steps_to_bytes(&self) -> Vec<u8> {
        let mut steps = Vec::new();
        let (mut count, mut copied_to, mut rest) = (0, 0u64, &self.0[..]);
        while !rest.is_empty() {
            let mut insert = 0;
            if let [Operation::Insert { length }, tail @ ..] = rest {
                (insert, rest) = (*length, tail);
            }
            varint::put(&mut steps, insert);
            if let [Operation::Copy { base_offset, length }, tail @ ..] = rest {
                varint::put(&mut steps, *length);
                varint::put_signed(&mut steps, base_offset.wrapping_sub(copied_to) as i64);
                copied_to = base_offset.wrapping_add(*length);
                rest = tail;
            } else {
                varint::put(&mut steps, 0);
            }
            count += 1;
        }
        let mut bytes = Vec::with_capacity(steps.len() + 2);
        varint::put(&mut bytes, count);
        bytes.extend_from_slice(&steps);
        bytes
    }

    /// The copied bytes around the inserts, found in `source` (the target at the sender, the base
    /// at the receiver), where operation `index` starts at `start(index)`.
    fn context(&self, source: &[u8], start: impl Fn(usize) -> Option<u64>) -> Vec<u8> {
        let is_insert = |index: usize| matches!(self.0.get(index), Some(Operation::Insert { .. }));
        let inserts = (0..self.0.len()).filter(|index| is_insert(*index)).count() as u64;
        let reach = (CONTEXT_BYTES / 2 / inserts.max(1)).max(MIN_REACH);
        let mut context = Vec::new();
        for (index, operation) in self.0.iter().enumerate() {
            let (Operation::Copy { length, .. }, Some(start)) = (operation, start(index)) else {
                continue;
            };
            let after = index.checked_sub(1).is_some_and(is_insert);
            let head = if after { reach.min(*length) } else { 0 };
            let tail = if is_insert(index + 1) { reach.min(length - head) } else { 0 };
            if context.len() as u64 + head + tail > CONTEXT_BYTES {
                break;
            }
            for (from, len) in [(start, head), (start + length - tail, tail)] {
                let range = from as usize..(from + len) as usize;
                context.extend_from_slice(source.get(range).unwrap_or_default());
            }
        }
        context
    }

    /// Makes the value that wire bytes describe, `target_len` bytes long.
    ///
    /// # Errors
    /// Malformed, over the limits, out of the base, or another length: [`DeltaError`]. The value
    /// is allocated only once the operations are known to make exactly that length.
    pub fn apply_bytes(
        bytes: &[u8],
        base: &[u8],
        target_len: usize,
        limits: &Limits,
    ) -> Result<Vec<u8>, DeltaError> {
        let mut reader = Reader::new(bytes);
        let patch = Self::read_steps(&mut reader, base.len() as u64, limits)?;
        if patch.target_len() != target_len as u64 {
            return Err(DeltaError::Patch("its operations make another length"));
        }
        // Not above target_len, which is within the limits.
        let inserted = patch.inserted() as usize;
        let inserts = patch.read_inserts(&mut reader, base, inserted)?;
        reader.finish().map_err(malformed)?;
        patch.assemble(base, &inserts, target_len)
    }

    fn read_steps(
        reader: &mut Reader<'_>,
        base_len: u64,
        limits: &Limits,
    ) -> Result<Self, DeltaError> {
        let count = varint::read(reader).map_err(malformed)?;
        if count > (reader.remaining() / 2) as u64 {
            return Err(DeltaError::Patch("it announces more steps than it has bytes for"));
        }
        let mut patch = Self::default();
        let (mut made, mut copied_to) = (0u64, 0u64);
        for _ in 0..count {
            let insert = varint::read(reader).map_err(malformed)?;
            let copy = varint::read(reader).map_err(malformed)?;
            if insert == 0 && copy == 0 {
                return Err(DeltaError::Patch("it has an empty step"));
            }
            let overflow = DeltaError::Patch("its length overflows");
            made =
                made.checked_add(insert).and_then(|made| made.checked_add(copy)).ok_or(overflow)?;
            patch.push(Operation::Insert { length: insert });
            if copy > 0 {
                let distance = varint::read_signed(reader).map_err(malformed)?;
                let base_offset = copied_to.checked_add_signed(distance);
                let end = base_offset.and_then(|offset| offset.checked_add(copy));
                let (Some(base_offset), Some(end)) = (base_offset, end) else {
                    return Err(DeltaError::Patch("a copy overflows"));
                };
                if end > base_len {
                    return Err(DeltaError::Patch("a copy reaches beyond the base"));
                }
                patch.push(Operation::Copy { base_offset, length: copy });
                copied_to = end;
            }
            if patch.0.len() > limits.max_patch_operations {
                return Err(DeltaError::TooManyOperations(limits.max_patch_operations));
            }
        }
        Ok(patch)
    }

    fn read_inserts(
        &self,
        reader: &mut Reader<'_>,
        base: &[u8],
        inserted: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        if inserted == 0 {
            return Ok(Vec::new());
        }
        let form = reader.u8().map_err(malformed)?;
        let rest = reader.bytes(reader.remaining()).map_err(malformed)?;
        match form {
            RAW if rest.len() == inserted => Ok(rest.to_vec()),
            RAW => Err(DeltaError::Patch("its inserts have another length")),
            ZSTD => {
                let context = self.context(base, |index| match self.0.get(index) {
                    Some(Operation::Copy { base_offset, .. }) => Some(*base_offset),
                    _ => None,
                });
                decompress(rest, Some(&context), inserted).ok_or(DeltaError::Compressed)
            }
            _ => Err(DeltaError::Patch("its inserts are in an unknown form")),
        }
    }

    fn assemble(
        &self,
        base: &[u8],
        inserts: &[u8],
        target_len: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        let mut target = Vec::with_capacity(target_len);
        let mut inserts = Reader::new(inserts);
        for operation in &self.0 {
            let piece = match *operation {
                Operation::Copy { base_offset, length } => {
                    let start = base_offset as usize;
                    let piece = base.get(start..start.saturating_add(length as usize));
                    piece.ok_or(DeltaError::Patch("a copy reaches beyond the base"))?
                }
                Operation::Insert { length } => {
                    inserts.bytes(length as usize).map_err(malformed)?
                }
            };
            target.extend_from_slice(piece);
        }
        Ok(target)
    }
}

fn malformed(error: CodecError) -> DeltaError {
    DeltaError::Patch(match error {
        CodecError::Truncated => "it is cut short",
        CodecError::Trailing(_) => "bytes are left over",
        CodecError::Invalid(what) => what,
    })
}
