//! The first block: which collection, at which moment, and what it goes on from.

use super::BackupError;
use crate::codec::{CodecError, Reader, Writing};
use crate::hash::{ContextHash, StateHash};
use crate::merkle::{Envelope, MAX_ENVELOPE_BYTES};
use crate::types::{CollectionSpec, NodeId};

const FULL: u8 = 1;
const PART: u8 = 2;

/// Longest head in bytes.
pub const MAX_HEAD_BYTES: usize = 1 + 32 + 8 + 4 * 8 + 2 + MAX_ENVELOPE_BYTES + 32 + 8 + 32;

/// A place in the change log of one store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LogPlace {
    /// Counts recoveries, and is drawn anew by a restore.
    pub epoch: u64,
    /// Id of the log of the opening that wrote last; 0: nothing was written yet.
    pub log_id: u64,
    /// Position of that log's first row.
    pub log_first: u64,
    /// Position of the last change.
    pub position: u64,
}

/// What a part goes on from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Base {
    /// Position in the change log behind which its changes stand.
    pub position: u64,
    /// The state then.
    pub state: StateHash,
}

/// What a backup is of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BackupHead {
    /// The node that made it.
    pub node: NodeId,
    /// When, by that node's wall clock, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Where its change log was.
    pub log: LogPlace,
    /// What its root binds: name, settings, tree hash and totals.
    pub envelope: Envelope,
    /// Hash of context and exceptions.
    pub context: ContextHash,
    /// Of a part: its base.
    pub base: Option<Base>,
}

impl BackupHead {
    /// Of a full backup that no part can go on from.
    #[must_use]
    pub fn full(node: NodeId, taken_ms: u64, envelope: Envelope, context: ContextHash) -> Self {
        Self { node, taken_ms, log: LogPlace::default(), envelope, context, base: None }
    }

    /// Name, algorithm and policy.
    #[must_use]
    pub const fn spec(&self) -> &CollectionSpec {
        self.envelope.spec()
    }

    /// Root and context in one hash: what the backup is of.
    #[must_use]
    pub fn state(&self) -> StateHash {
        self.envelope.algorithm().state(&self.envelope.root(), &self.context)
    }

    /// The bytes of the first block, at most [`MAX_HEAD_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let envelope = self.envelope.to_bytes();
        let mut bytes = Vec::with_capacity(MAX_HEAD_BYTES);
        bytes.put_u8(if self.base.is_some() { PART } else { FULL });
        bytes.put_bytes(&self.node.0);
        bytes.put_u64(self.taken_ms);
        let LogPlace { epoch, log_id, log_first, position } = self.log;
        for number in [epoch, log_id, log_first, position] {
            bytes.put_u64(number);
        }
        bytes.put_u16(envelope.len() as u16);
        bytes.put_bytes(&envelope);
        bytes.put_bytes(&self.context.0);
        if let Some(Base { position, state }) = &self.base {
            bytes.put_u64(*position);
            bytes.put_bytes(&state.0);
        }
        bytes
    }

    /// Reads the bytes strictly: what is accepted is written again byte for byte.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackupError> {
        Self::read(bytes).map_err(|_| BackupError::Malformed("its head does not parse"))
    }

    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let (node, taken_ms) = (NodeId(reader.array()?), reader.u64()?);
        let log = LogPlace {
            epoch: reader.u64()?,
            log_id: reader.u64()?,
            log_first: reader.u64()?,
            position: reader.u64()?,
        };
        let envelope = reader.u16()?;
        let envelope = Envelope::parse(reader.bytes(usize::from(envelope))?)
            .map_err(|_| CodecError::Invalid("the envelope does not parse"))?;
        let context = ContextHash(reader.array()?);
        let base = match kind {
            FULL => None,
            PART => Some(Base { position: reader.u64()?, state: StateHash(reader.array()?) }),
            _ => return Err(CodecError::Invalid("an unknown kind")),
        };
        reader.finish()?;
        if base.is_some_and(|base| base.position > log.position) {
            return Err(CodecError::Invalid("the base is later than the backup"));
        }
        Ok(Self { node, taken_ms, log, envelope, context, base })
    }
}
