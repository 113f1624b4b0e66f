//! The values that the peer asks for: how each is encoded, what is sent when.

use std::collections::{BTreeMap, VecDeque};

use super::machine::Session;
use super::message::{Bases, Bulk, Bytes, FreeMessage, ValueItem, Want, Wants};
use super::outcome::{Failure, LimitName};
use super::transfer::{CHUNK, GATHERED};
use super::turn::protocol;
use crate::delta::{
    self, BaseId, BlockSignature, ChunkMatch, DeltaError, Encoded, Patch, Signature,
};
use crate::dots::Dot;
use crate::entry::Sibling;
use crate::hash::KeyHash;
use crate::replica::CollectionView;

/// Values looked through for a base that was named.
const HISTORY: usize = 16;
/// Shorter values travel whole even when a base exists but is not at hand.
const SIGNATURE_FROM: u64 = 1 << 10;
/// A value and its base together are large from this part of the memory of a session on: then the
/// delta is a patch, in which at most this part of the value is inserted, or there is none.
const LARGE_SHARE: u64 = 4;
const MOST_INSERTED_SHARE: u64 = 8;
/// How often one value may be asked for: once, once more whole, and with a signature between.
const REQUESTS_PER_VALUE: u8 = 4;

/// A value that the peer asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked {
    of: u32,
    dot: Dot,
    bases: Vec<BaseId>,
    signature: Option<Signature>,
    matched: Option<(ChunkMatch, BlockSignature)>,
    /// Whether a signature was asked for already.
    signature_asked: bool,
}

/// What is to go out.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Outgoing {
    /// The siblings that the peer was told without their values, in order: requests name their
    /// places.
    pub(super) told: Vec<Dot>,
    asked: VecDeque<Asked>,
    waiting: BTreeMap<Dot, (Asked, Option<ChunkMatch>)>,
    times: BTreeMap<Dot, u8>,
    sending: Option<(Vec<u8>, usize)>,
    /// Bytes of signatures that wait with what was asked.
    signature_bytes: usize,
}

impl Asked {
    fn signature_bytes(&self) -> usize {
        let blocks = self.matched.as_ref().map_or(0, |(_, blocks)| blocks.wire_len());
        blocks + self.signature.as_ref().map_or(0, Signature::wire_len)
    }
}

impl Outgoing {
    fn ask(&mut self, asked: Asked, most: usize) -> Result<(), Failure> {
        self.signature_bytes += asked.signature_bytes();
        if self.signature_bytes > most {
            return Err(LimitName::PendingSignatures.into());
        }
        self.asked.push_back(asked);
        Ok(())
    }

    /// Bytes of the value being sent.
    pub(super) fn value_bytes(&self) -> usize {
        self.sending.as_ref().map_or(0, |(bytes, _)| bytes.capacity())
    }

    /// Bytes of signatures and of what was told, number of items, number of requests.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let items = self.asked.len() + self.waiting.len();
        let told = self.told.len() * size_of::<Dot>();
        (self.signature_bytes + told, items, self.times.len())
    }

    fn next(&mut self) -> Option<Asked> {
        let asked = self.asked.pop_front()?;
        self.signature_bytes -= asked.signature_bytes();
        Some(asked)
    }

    fn wait(&mut self, asked: Asked, matched: Option<ChunkMatch>) {
        self.signature_bytes += asked.signature_bytes();
        self.waiting.insert(asked.dot, (asked, matched));
    }

    fn waited(&mut self, dot: Dot) -> Option<(Asked, Option<ChunkMatch>)> {
        let waited = self.waiting.remove(&dot)?;
        self.signature_bytes -= waited.0.signature_bytes();
        Some(waited)
    }
}
impl Session {
    /// The peer wants values: each must be a sibling of this snapshot.
    pub(super) fn peer_wants(
        &mut self,
        wants: Wants,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        if !self.gives() {
            return Err(protocol());
        }
        for Want { of, bases, signature } in wants.unpack().map_err(|_| protocol())? {
            let dot = self.told(of)?;
            let times = self.outgoing.times.entry(dot).or_insert(0);
            *times += 1;
            if *times > REQUESTS_PER_VALUE {
                return Err(protocol());
            }
            let bases = match bases {
                Bases::These(bases) => bases,
                Bases::Told => self.bases_told(dot, view)?,
            };
            let asked = Asked { of, dot, bases, signature, matched: None, signature_asked: false };
            self.outgoing.ask(asked, self.setup.limits.max_pending_bytes)?;
        }
        Ok(())
    }

    /// The sibling that the peer means by a number.
    fn told(&self, of: u32) -> Result<Dot, Failure> {
        self.outgoing.told.get(of as usize).copied().ok_or_else(protocol)
    }

    /// What the peer holds of the key, as it told: what there was no room to keep is no base.
    fn bases_told(&self, dot: Dot, view: &dyn CollectionView) -> Result<Vec<BaseId>, Failure> {
        let known = view.key_of(dot)?.and_then(|key| self.knowledge.get(&key));
        let theirs = known.and_then(|known| known.theirs.record());
        let bases = theirs.map(|record| Self::bases_of(record.siblings())).unwrap_or_default();
        Ok(bases.iter().map(|base| BaseId::of(&base.value_hash)).collect())
    }

    pub(super) fn peer_signature(&mut self, of: u32, signature: Signature) -> Result<(), Failure> {
        let dot = self.told(of)?;
        let (mut asked, _) = self.outgoing.waited(dot).ok_or_else(protocol)?;
        asked.signature = Some(signature);
        self.outgoing.ask(asked, self.setup.limits.max_pending_bytes)
    }

    pub(super) fn peer_blocks(
        &mut self,
        of: u32,
        signature: BlockSignature,
    ) -> Result<(), Failure> {
        let dot = self.told(of)?;
        let (mut asked, matched) = self.outgoing.waited(dot).ok_or_else(protocol)?;
        asked.matched = Some((matched.ok_or_else(protocol)?, signature));
        self.outgoing.ask(asked, self.setup.limits.max_pending_bytes)
    }

    /// The next frame of values.
    pub(super) fn next_values(
        &mut self,
        view: &dyn CollectionView,
    ) -> Result<Option<Bulk>, Failure> {
        if let Some((bytes, sent)) = self.outgoing.sending.take() {
            let end = (sent + CHUNK).min(bytes.len());
            let chunk = bytes.get(sent..end).unwrap_or_default().to_vec();
            if end < bytes.len() {
                self.outgoing.sending = Some((bytes, end));
            }
            return Ok(Some(Bulk::Chunk(Bytes(chunk))));
        }
        let (mut items, mut gathered) = (Vec::new(), 0);
        while items.len() < self.setup.config.max_batch_size.max(1) && gathered < GATHERED {
            let Some(dot) = self.outgoing.asked.front().map(|asked| asked.dot) else { break };
            let own = self.own_sibling(dot, view)?;
            if own.is_some_and(|(_, own)| own.size > GATHERED as u64)
                && self.incoming.is_assembling_much(self.setup.limits.max_session_memory_bytes)
            {
                break; // of two large values one comes first, and nothing waits for this one
            }
            if !items.is_empty() && own.is_some_and(|(_, own)| own.size > GATHERED as u64) {
                break; // a large value travels alone
            }
            let Some(asked) = self.outgoing.next() else { break };
            let of = asked.of;
            // a retry replaces what a signature was awaited for
            self.outgoing.waited(dot);
            let Some(encoded) = self.encode(asked, own, view)? else { continue };
            if encoded.bytes.len() > GATHERED {
                let length = encoded.bytes.len() as u64;
                self.outgoing.sending = Some((encoded.bytes, 0));
                return Ok(Some(Bulk::Header { of, encoding: encoded.encoding, length }));
            }
            gathered += encoded.wire_len() + 16;
            items.push(ValueItem { of, encoded });
        }
        Ok((!items.is_empty()).then_some(Bulk::Values(items)))
    }

    /// Encodes a value; none when it has to wait for the peer or cannot be had.
    fn encode(
        &mut self,
        asked: Asked,
        own: Option<(KeyHash, Sibling)>,
        view: &dyn CollectionView,
    ) -> Result<Option<Encoded>, Failure> {
        let of = asked.of;
        let Some((key, sibling)) = own else {
            self.send_free(FreeMessage::Unavailable(vec![of]));
            return Ok(None);
        };
        let Some(value) = view.value(&key, &sibling.value_hash)? else {
            self.send_free(FreeMessage::Unavailable(vec![of]));
            return Ok(None);
        };
        let encoded = match self.delta(asked, &key, &value, view)? {
            Delta::Waits => return Ok(None),
            Delta::Made(encoded) => encoded,
            Delta::None => delta::encode_whole(&value),
        };
        self.stats.sent.count(&encoded, sibling.size);
        Ok(Some(encoded))
    }

    fn delta(
        &mut self,
        mut asked: Asked,
        key: &KeyHash,
        value: &[u8],
        view: &dyn CollectionView,
    ) -> Result<Delta, Failure> {
        let Some(&first) = asked.bases.first() else { return Ok(Delta::None) };
        if !self.setup.config.enable_binary_diff {
            return Ok(Delta::None);
        }
        let limits = &self.setup.limits;
        let large = limits.max_session_memory_bytes / LARGE_SHARE;
        for hash in view.value_hashes(key, HISTORY)? {
            let Some(&id) = asked.bases.iter().find(|id| id.names(&hash)) else { continue };
            if let Some(base) = view.value(key, &hash)? {
                if (base.len() + value.len()) as u64 > large {
                    return Ok(encode_large(&delta::diff_local(&base, value), id, value).into());
                }
                return Ok(delta::encode_with_base(&base, id, value).into());
            }
        }
        let key = self.signature_key();
        let encode = |patch: Result<Patch, DeltaError>| {
            let patch = patch.ok()?;
            if value.len() as u64 > large / 2 {
                return encode_large(&patch, first, value);
            }
            delta::encode_patch(&patch, first, value)
        };
        if let Some((matched, blocks)) = &asked.matched {
            return Ok(encode(delta::diff(value, matched, Some(blocks), &key, limits)).into());
        }
        match &asked.signature {
            Some(Signature::Blocks(blocks)) => {
                Ok(encode(delta::diff_blocks(value, blocks, &key, limits)).into())
            }
            Some(Signature::Chunks(chunks)) => {
                let Ok(matched) = delta::match_chunks(value, chunks, &key, limits) else {
                    return Ok(Delta::None);
                };
                if let Some(gaps) = matched.gaps() {
                    let of = asked.of;
                    self.outgoing.wait(asked, Some(matched));
                    self.send_free(FreeMessage::NeedBlocks { of, gaps });
                    return Ok(Delta::Waits);
                }
                Ok(encode(delta::diff(value, &matched, None, &key, limits)).into())
            }
            None if (value.len() as u64) < SIGNATURE_FROM || asked.signature_asked => {
                Ok(Delta::None)
            }
            None => {
                asked.signature_asked = true;
                let of = asked.of;
                self.outgoing.wait(asked, None);
                self.send_free(FreeMessage::NeedSignature(of));
                Ok(Delta::Waits)
            }
        }
    }

    pub(super) fn own_sibling(
        &self,
        dot: Dot,
        view: &dyn CollectionView,
    ) -> Result<Option<(KeyHash, Sibling)>, Failure> {
        let Some(key) = view.key_of(dot)? else { return Ok(None) };
        let entry = view.entry(&key)?;
        let sibling = entry.and_then(|entry| entry.record.sibling(dot).copied());
        Ok(sibling.map(|sibling| (key, sibling)))
    }
}

/// A patch of a value so large that nothing else is tried while its base is in memory: if most of
/// it is copied.
fn encode_large(patch: &Patch, base: BaseId, value: &[u8]) -> Option<Encoded> {
    let few = patch.inserted() <= value.len() as u64 / MOST_INSERTED_SHARE;
    if few { delta::encode_patch(patch, base, value) } else { None }
}

/// What came of trying a delta.
enum Delta {
    Made(Encoded),
    Waits,
    None,
}

impl From<Option<Encoded>> for Delta {
    fn from(encoded: Option<Encoded>) -> Self {
        encoded.map_or(Self::None, Self::Made)
    }
}
