//! The messages of a session.
//!
//! Two kinds: those of a *turn*, in which one side says all it has to say about differences and
//! ends with [`TurnEnd`]; and *free* ones (requests, refusals, values), which may come at any
//! time once both openings are known.
//!
//! ```
//! use selfsame::dots::{Dot, DotSet};
//! use selfsame::session::message::WireDots;
//!
//! // sets of dots travel as runs
//! let dots: DotSet = (5..1_000).map(|at| Dot::new(7, at).expect("not zero")).collect();
//! let wire = WireDots::from(&dots);
//! assert_eq!(wire.run_count(), 1);
//! assert_eq!(wire.to_set(), Some(dots));
//! ```

mod hello;
mod opening;
mod sketching;
mod states;
mod steering;
mod wants;

pub use hello::{BaseTag, CollectionTag, Hello, HelloReply, StateTag, TagMismatch, TreeTag};
pub use opening::{Following, Opening, OpeningPart};
pub use sketching::Estimate;
pub use states::{Content, KeyState, ToldSibling, WriterList};
pub use steering::{Level, Unmatched};
pub use wants::{Bases, Want, Wants};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcome::Tally;
use super::phase::Phase;
use crate::clock::Stamp;
use crate::delta::{BlockSignature, Encoded, Encoding, GapRequest, Signature};
use crate::dots::{Causality, Dot, DotRun, DotSet, Writer};
use crate::hash::{HashAlgorithm, KeyHash, LogHash, TreeHash};
use crate::merkle::log::{HeadStatement, LogHeadFields, LogId, LogIdentity, LogKind};
use crate::merkle::{LogHeadError, SignedLogHead};
use crate::replica::RefusalReason;
use crate::sketch::bloom::WireFilter;
use crate::sketch::{Symbols, WireNames, WireRefill, WireSketch};
use crate::types::{CollectionName, CollectionSpec, NodeId, Policy, TypeError};

/// Bytes that travel as one run, not as a sequence of numbers.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// A collection's identity as peers state it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WireSpec {
    /// Its name.
    pub name: String,
    /// Its hash algorithm.
    pub algorithm: HashAlgorithm,
    /// Name and version of a custom resolver.
    pub policy: WirePolicy,
}

/// A policy as peers state it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum WirePolicy {
    /// Reads show the latest sibling.
    Lww,
    /// Reads show all.
    Siblings,
    /// A named resolver.
    Custom {
        /// Its name.
        resolver: String,
        /// Its version.
        version: u32,
    },
}

impl From<&CollectionSpec> for WireSpec {
    fn from(spec: &CollectionSpec) -> Self {
        let policy = match &spec.policy {
            Policy::Lww => WirePolicy::Lww,
            Policy::Siblings => WirePolicy::Siblings,
            Policy::Custom { resolver, version } => {
                WirePolicy::Custom { resolver: resolver.as_str().to_owned(), version: *version }
            }
        };
        Self { name: spec.name.as_str().to_owned(), algorithm: spec.algorithm, policy }
    }
}

impl TryFrom<&WireSpec> for CollectionSpec {
    type Error = TypeError;

    fn try_from(wire: &WireSpec) -> Result<Self, TypeError> {
        let policy = match &wire.policy {
            WirePolicy::Lww => Policy::Lww,
            WirePolicy::Siblings => Policy::Siblings,
            WirePolicy::Custom { resolver, version } => Policy::Custom {
                resolver: CollectionName::new(resolver.clone())?,
                version: *version,
            },
        };
        let name = CollectionName::new(wire.name.clone())?;
        Ok(Self { name, algorithm: wire.algorithm, policy })
    }
}

/// Said once at each end of a connection, before any session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Lowest protocol version spoken.
    pub version_min: u16,
    /// Highest protocol version spoken.
    pub version_max: u16,
    /// Largest value taken.
    pub max_value_bytes: u64,
    /// The node's clock: compared, so that drift is noticed before it refuses writes.
    pub clock: Stamp,
    /// Whether sessions and questions may be opened towards this end, too: a command that only
    /// dials does not answer them.
    pub serves: bool,
    /// The collections offered.
    pub collections: Vec<WireSpec>,
}

/// A set of dots as runs: per writer, gaps and lengths.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct WireDots(pub(in crate::session) Vec<(Writer, Vec<(u64, u64)>)>);

impl WireDots {
    /// Number of runs listed.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.0.iter().map(|(_, runs)| runs.len()).sum()
    }

    /// The set; none when a run is impossible.
    #[must_use]
    pub fn to_set(&self) -> Option<DotSet> {
        let mut set = DotSet::default();
        for (writer, runs) in &self.0 {
            let mut end = 0u64;
            for &(gap, more) in runs {
                let first = end.checked_add(gap)?.checked_add(1)?;
                let last = first.checked_add(more)?;
                set.insert_run(DotRun::new(*writer, first, last)?);
                end = last;
            }
        }
        Some(set)
    }
}

impl From<&DotSet> for WireDots {
    fn from(set: &DotSet) -> Self {
        let mut dots: Vec<(Writer, Vec<(u64, u64)>)> = Vec::new();
        let mut end = 0;
        for run in set.runs() {
            if dots.last().is_none_or(|(writer, _)| *writer != run.writer) {
                dots.push((run.writer, Vec::new()));
                end = 0;
            }
            if let Some((_, runs)) = dots.last_mut() {
                runs.push((run.first - end - 1, run.last - run.first));
            }
            end = run.last;
        }
        Self(dots)
    }
}

/// Context and exceptions on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum WireCausality {
    /// All pairs and exceptions.
    Whole {
        /// Writer and counter.
        pairs: Vec<(Writer, u64)>,
        /// Dots seen and dead above.
        exceptions: WireDots,
    },
    /// Against a context that both ends know.
    Difference {
        /// Pairs that are not as in the base.
        changed: Vec<(Writer, u64)>,
        /// Writers of the base that are missing.
        gone: Vec<Writer>,
        /// All exceptions.
        exceptions: WireDots,
    },
}

impl WireCausality {
    /// The shorter of whole and difference.
    #[must_use]
    pub fn new(causality: &Causality, base: Option<&Causality>) -> Self {
        let exceptions = WireDots::from(causality.exceptions());
        if let Some(base) = base {
            let changed: Vec<_> =
                causality.pairs().filter(|&(writer, at)| base.counter(writer) != at).collect();
            let gone: Vec<_> = base
                .pairs()
                .map(|(writer, _)| writer)
                .filter(|&writer| causality.counter(writer) == 0)
                .collect();
            if changed.len() + gone.len() < causality.writers() {
                return Self::Difference { changed, gone, exceptions };
            }
        }
        Self::Whole { pairs: causality.pairs().collect(), exceptions }
    }

    /// Number of writers and number of exceptions stated: to be held against limits first.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let (writers, exceptions) = match self {
            Self::Whole { pairs, exceptions } => (pairs.len(), exceptions),
            Self::Difference { changed, exceptions, .. } => (changed.len(), exceptions),
        };
        (writers, exceptions.to_set().map_or(u64::MAX, |set| set.count()))
    }

    /// The causality meant; none when it is not canonical or a base would be needed.
    #[must_use]
    pub fn resolve(&self, base: Option<&Causality>) -> Option<Causality> {
        let (context, exceptions) = match self {
            Self::Whole { pairs, exceptions } => {
                let context: BTreeMap<_, _> = pairs.iter().copied().collect();
                if context.len() != pairs.len() {
                    return None;
                }
                (context, exceptions)
            }
            Self::Difference { changed, gone, exceptions } => {
                let mut context: BTreeMap<_, _> = base?.pairs().collect();
                for writer in gone {
                    context.remove(writer);
                }
                context.extend(changed.iter().copied());
                (context, exceptions)
            }
        };
        Causality::from_parts(context, exceptions.to_set()?).ok()
    }
}

/// Hashes of the children of a prefix, 4 bits further down.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeHashes {
    /// The prefix.
    pub prefix: WirePrefix,
    /// Which of the 16 children have leaves; bit 15 is child 0.
    pub present: u16,
    /// The hashes of those, one after the other.
    pub hashes: Bytes,
}

/// Bytes of a key hash that go with a dot among [candidates](TurnMessage::Candidates).
pub const CANDIDATE_KEY_BYTES: usize = 8;

/// A prefix of key hashes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WirePrefix {
    /// Number of bits.
    pub bits: u16,
    /// The bits in whole bytes, zero-padded.
    pub bytes: Bytes,
}

/// The leaves below a prefix.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LeafList {
    /// The prefix.
    pub prefix: WirePrefix,
    /// For each leaf, ascending: what its key hash has beyond the whole bytes of the prefix, then
    /// its record digest.
    pub leaves: Bytes,
}

/// Parts of a turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TurnMessage {
    /// What this side's snapshot is (the initiator's; the responder's is in its reply).
    Opening(Opening),
    /// What this side's snapshot holds of keys.
    States {
        /// The phase that found them.
        found_by: Phase,
        /// The writers that the siblings here name by their position.
        writers: Vec<Writer>,
        /// Keys held.
        held: Vec<KeyState>,
        /// Keys of which nothing is held.
        absent: Vec<KeyHash>,
        /// Keys of which the other side's state is asked for.
        ask: Vec<KeyHash>,
    },
    /// Dots that this side has seen and does not hold.
    Removed(WireDots),
    /// Dots held that the other side has seen and seems not to hold: name those that are dead.
    Candidates {
        /// The dots.
        dots: WireDots,
        /// Of each, ascending, the first [`CANDIDATE_KEY_BYTES`] bytes of the hash of the key
        /// that holds it: where the other side looks before it calls the dot dead.
        keys: Bytes,
    },
    /// A filter over the dots held.
    Filter {
        /// The filter.
        filter: WireFilter,
        /// Number of dots in it.
        items: u64,
        /// Whether it answers the other side's filter and holds only what passed that.
        second: bool,
    },
    /// Begins a Merkle descent with whole hashes, checked up to the stated tree hash: the children
    /// of the top.
    Descend(NodeHashes),
    /// Goes on with a descent with whole hashes.
    Nodes(Vec<NodeHashes>),
    /// Leaves where a descent with whole hashes ends.
    Leaves(Vec<LeafList>),
    /// Begins a steering descent.
    Steer {
        /// Which descent of this side it is: ids are keyed anew for each.
        attempt: u8,
        /// What this side holds in all, as an answer to no node.
        top: Level,
    },
    /// Goes on with it.
    Level(Level),
    /// Says which leaves of lists are not here.
    Unmatched(Unmatched),
    /// Begins a sketch exchange, or goes on with it: the side that then knows how many differ
    /// chooses how they are found.
    Estimate(Estimate),
    /// A sketch of this side's leaves.
    Sketch(WireSketch),
    /// More of the sketch that the other side sent is asked for: some buckets were not enough.
    Refill(WireRefill),
    /// The syndromes that were asked for, packed.
    Refilled(Bytes),
    /// The next coded symbols of this side's leaves.
    Symbols {
        /// Whether the stream is one that is kept, under the key that everybody has.
        kept: bool,
        /// The symbols.
        symbols: Symbols,
    },
    /// So many more of the symbols that the other side sends are asked for.
    MoreSymbols(u32),
    /// Which leaves of the other side a sketch or symbols have shown, that this side does not hold.
    Names(WireNames),
    /// The opening of an initiator whose snapshot the responder knows ([`HelloReply::Ahead`]).
    Following(Following),
}

/// A tree, said as shortly as it can be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TreeSaid {
    /// The one that this side stated last: in its opening, or at the end of a turn.
    Unchanged,
    /// The one that the other side stated last.
    Same,
    /// This.
    Now(TreeTag),
}

/// Ends a turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TurnEnd {
    /// What this side takes for the merged snapshot by now.
    pub tree: TreeSaid,
    /// Whether this side has nothing left to say or to ask.
    pub settled: bool,
    /// Whether this side stopped at its limit of differences: the session applies what it has
    /// without joining.
    pub partial: bool,
}

/// Messages that may come at any time once both openings are known.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FreeMessage {
    /// Values wanted.
    Request(Wants),
    /// A value is large and its base is not at hand: a signature of the base is asked for.
    NeedSignature(u32),
    /// The signature of the base.
    Signature {
        /// Number of the sibling wanted.
        of: u32,
        /// Signature of the base.
        signature: Signature,
    },
    /// Block signatures of these ranges of the base are asked for.
    NeedBlocks {
        /// Number of the sibling wanted.
        of: u32,
        /// Which.
        gaps: GapRequest,
    },
    /// Block signatures of ranges of the base.
    Blocks {
        /// Number of the sibling wanted.
        of: u32,
        /// The signature.
        signature: BlockSignature,
    },
    /// Items that this side does not take.
    Refused(Vec<(Dot, RefusalReason)>),
    /// This side holds all values and its tree has this hash.
    Ready(Ready),
    /// This side's join is durable.
    Joined {
        /// Signature over the certificate's message, when there is one.
        signature: Option<Bytes>,
    },
    /// Values could not be had (rot): they are refused items of their sender.
    Unavailable(Vec<u32>),
    /// The session ends here, for a reason.
    Abort(super::outcome::AbortCode),
    /// Signed heads of this side's logs of the collection, before its signature: at most one of
    /// each kind.
    Heads(Vec<WireHead>),
}

/// A signed head of a log of the collection, as it travels: who signed, name and hash algorithm
/// are those of the session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WireHead {
    /// Kind of the log.
    pub kind: u8,
    /// Its id.
    pub id: [u8; 8],
    /// Number of its items.
    pub size: u64,
    /// Its root.
    pub root: [u8; 32],
    /// The sender's signature.
    pub signature: SignedLogHead,
}

impl WireHead {
    /// Of what a node says of a log of the session's collection.
    #[must_use]
    pub fn new(statement: &HeadStatement) -> Self {
        let fields = statement.fields();
        Self {
            kind: fields.log().kind.id(),
            id: fields.log().id.0.to_le_bytes(),
            size: fields.size(),
            root: fields.root().0,
            signature: *statement.signature(),
        }
    }

    /// What the sender says of its log.
    ///
    /// # Errors
    /// It is none, or the sender did not sign it.
    pub fn check(
        &self,
        spec: &CollectionSpec,
        sender: NodeId,
    ) -> Result<HeadStatement, LogHeadError> {
        let log = LogIdentity {
            algorithm: spec.algorithm,
            kind: LogKind::from_id(self.kind).ok_or(LogHeadError::Kind(self.kind))?,
            id: LogId(u64::from_le_bytes(self.id)),
            name: spec.name.clone(),
        };
        let fields = LogHeadFields::new(log, self.size, LogHash(self.root))?;
        HeadStatement::new(sender, fields, self.signature)
    }
}

/// Verification: this side's merged snapshot, all applied and readable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Tree hash of the merged snapshot without refused keys.
    pub tree: TreeHash,
    /// This side's clock.
    pub clock: Stamp,
    /// How many refusals this side has sent.
    pub refusals_sent: u64,
    /// How many refusals this side has taken in.
    pub refusals_received: u64,
    /// What changed at this side.
    pub tally: Tally,
}

/// Everything on the control stream of a session. A frame holds one or more of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Opens the session.
    Hello(Hello),
    /// Answers it.
    HelloReply(HelloReply),
    /// Part of a turn.
    Turn(TurnMessage),
    /// End of a turn.
    TurnEnd(TurnEnd),
    /// Outside turns.
    Free(FreeMessage),
    /// Goes on with an opening that fills more than one message.
    OpeningPart(OpeningPart),
}

/// Everything on the bulk stream of a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Bulk {
    /// Small values, several in a frame.
    Values(Vec<ValueItem>),
    /// A large value: this header, then chunks until its encoded length is reached.
    Header {
        /// Number of the sibling whose value it is.
        of: u32,
        /// How it is encoded.
        encoding: Encoding,
        /// Length of the encoded bytes.
        length: u64,
    },
    /// The next bytes of the value whose header came last.
    Chunk(Bytes),
}

/// One value in transfer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ValueItem {
    /// Number of the sibling whose value it is.
    pub of: u32,
    /// The value, encoded.
    pub encoded: Encoded,
}
