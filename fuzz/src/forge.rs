//! Messages that a lying peer may send: well formed, about keys and dots that there are, and made
//! of twelve bytes each.

use selfsame::clock::Stamp;
use selfsame::codec::bits::BitWriter;
use selfsame::delta::{
    BaseId, BlockSignature, Encoded, Encoding, GapRequest, GapRun, IdMargin, Signature,
    SignatureKey,
};
use selfsame::dots::{Causality, Dot, DotRun, DotSet, Writer};
use selfsame::entry::Sibling;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest, TreeHash};
use selfsame::merkle::Envelope;
use selfsame::replica::{CollectionView, RefusalReason, WriterMark};
use selfsame::session::message::{
    Bases, Bulk, Bytes, CANDIDATE_KEY_BYTES, CollectionTag, Estimate, Following, FreeMessage,
    Hello, HelloReply, KeyState, LeafList, Level, Message, NodeHashes, Opening, Ready, StateTag,
    TreeSaid, TreeTag, TurnEnd, TurnMessage, Unmatched, ValueItem, Want, Wants, WireCausality,
    WireDots, WirePrefix, WriterList,
};
use selfsame::session::{AbortCode, Lane, Mode, Phase, Profile, Strategy, Tally, wire};
use selfsame::sketch::{
    Estimator, FoldedEstimator, IdWidth, Layout, Symbols, WireFilter, WireNames, WireRefill,
    WireSketch,
};

use crate::common::key;
use crate::session::{End, Stage};

/// How many kinds of message there are.
pub(crate) const KINDS: u8 = 34;

/// The secret of every session here.
pub(crate) const SECRET: [u8; 32] = [9; 32];

const PHASES: [Phase; 4] =
    [Phase::Announce, Phase::BloomExchange, Phase::SketchExchange, Phase::MerkleComparison];
const REASONS: [RefusalReason; 5] = [
    RefusalReason::Drift,
    RefusalReason::ValueSize,
    RefusalReason::Siblings,
    RefusalReason::SameDot,
    RefusalReason::Unavailable,
];
const MODES: [Mode; 4] = [Mode::Both, Mode::Pull, Mode::Push, Mode::Compare];

/// An attacker that knows both collections.
pub(crate) struct Forge<'a> {
    victim: &'a End,
    other: &'a End,
    made_of: [u8; 12],
    pool: Vec<Dot>,
}

impl<'a> Forge<'a> {
    pub(crate) fn new(stage: &'a Stage, to: usize, made_of: [u8; 12]) -> Self {
        let (victim, other) = (&stage.ends[to], &stage.ends[1 - to]);
        let mut pool: Vec<Dot> = victim.node.held().into_iter().collect();
        pool.extend(other.node.held());
        pool.extend(Dot::new(u64::MAX, 1));
        Self { victim, other, made_of, pool }
    }

    /// The message of this kind, encoded for its lane; none when there can be none.
    pub(crate) fn frame(&self, kind: u8) -> Option<(Lane, Vec<u8>)> {
        let message = match kind % KINDS {
            0 => self.first()?,
            1 => Message::Turn(self.opening()?),
            2..=9 => Message::Turn(self.turn(kind % KINDS)),
            10 => Message::TurnEnd(TurnEnd {
                tree: match self.byte(3) % 4 {
                    0 => TreeSaid::Unchanged,
                    1 => TreeSaid::Same,
                    _ => TreeSaid::Now(TreeTag::of(&SECRET, &self.tree(0))),
                },
                settled: self.flag(1),
                partial: self.flag(2),
            }),
            kind @ 25..=33 => Message::Turn(self.turn(kind)),
            kind @ (11..=16 | 20..=24) => Message::Free(self.free(kind)?),
            kind => return Some((Lane::Bulk, wire::encode(&self.bulk(kind)).ok()?)),
        };
        Some((Lane::Control, wire::encode(&message).ok()?))
    }

    fn byte(&self, at: usize) -> u8 {
        self.made_of[at % self.made_of.len()]
    }

    fn flag(&self, at: usize) -> bool {
        self.byte(at) & 1 != 0
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.victim.view.spec().algorithm
    }

    fn dot(&self, at: usize) -> Dot {
        let byte = self.byte(at);
        let foreign = Dot::new(u64::from(byte), u64::from(self.byte(at + 1)));
        match foreign.filter(|_| byte >= 0xe0) {
            Some(dot) => dot,
            None => self.pool[usize::from(byte) % self.pool.len()],
        }
    }

    /// Of a sibling that was told without its value, nearly always.
    fn number(&self, at: usize) -> u32 {
        match self.byte(at) {
            0xff => u32::MAX,
            byte => u32::from(byte % 16),
        }
    }

    fn writer(&self, at: usize) -> Writer {
        self.dot(at).writer()
    }

    /// Some dots, and perhaps a run that is as long as can be.
    fn dots(&self, at: usize) -> DotSet {
        let mut set: DotSet =
            (0..self.byte(at) % 4).map(|n| self.dot(at + usize::from(n))).collect();
        if self.byte(at) & 0x10 != 0 {
            let first = u64::from(self.byte(at + 1)) + 1;
            let last = if self.byte(at) & 0x20 != 0 { u64::MAX } else { first + 300 };
            if let Some(run) = DotRun::new(self.writer(at + 2), first, last) {
                set.insert_run(run);
            }
        }
        set
    }

    fn key_hash(&self, at: usize) -> KeyHash {
        self.algorithm().key_hash(&key(self.byte(at) % 20))
    }

    fn tree(&self, at: usize) -> TreeHash {
        match self.byte(at) % 4 {
            0 => self.victim.view.envelope().tree_hash(),
            1 => self.other.view.envelope().tree_hash(),
            2 => self.algorithm().empty(),
            _ => TreeHash([self.byte(at); 32]),
        }
    }

    fn sibling(&self, at: usize) -> (Sibling, Vec<u8>) {
        let value = vec![self.byte(at + 1); usize::from(self.byte(at + 2)) * 3];
        let sibling = Sibling {
            dot: self.dot(at),
            stamp: Stamp::new(1_000_000 + (u64::from(self.byte(at + 3)) << 10), 0),
            size: value.len() as u64,
            value_hash: self.algorithm().value_hash(&value),
        };
        (sibling, value)
    }

    /// A snapshot that nobody has, and its state.
    fn claim(&self) -> Option<(Opening, StateTag)> {
        let (mine, yours) = (&self.other.view, &self.victim.view);
        let of = |envelope: &Envelope| (envelope.tree_hash(), envelope.totals().entries);
        let (tree, entries) = match self.byte(0) % 4 {
            0 => (self.algorithm().empty(), 0),
            1 => of(mine.envelope()),
            2 => of(yours.envelope()),
            _ => (TreeHash([self.byte(1); 32]), u64::from(self.byte(0))),
        };
        let causality = match self.byte(2) % 4 {
            0 => mine.causality().clone(),
            1 => yours.causality().clone(),
            2 => Causality::new(
                [(self.writer(3), u64::MAX >> (self.byte(4) % 64))],
                DotSet::default(),
                &DotSet::default(),
            ),
            _ => Causality::new([(self.writer(3), 1)], self.dots(5), &DotSet::default()),
        };
        let above = self.flag(8).then(|| WireDots::from(&self.dots(9)));
        let context = causality.hash(self.algorithm()).ok()?;
        let tree = TreeTag::of(&SECRET, &tree);
        let state = StateTag::of(&SECRET, yours.spec(), &tree, &context);
        let causality = WireCausality::new(&causality, None);
        let mark = |at: usize| WriterMark {
            writer: self.writer(at),
            counter: u64::from(self.byte(at)),
            puts: [self.byte(at) % 2; 8],
        };
        let (writer, heard) = (self.flag(10).then(|| mark(11)), self.flag(12).then(|| mark(13)));
        let opening = Opening { tree, entries, causality, above, writer, heard, parts: 0 };
        Some((opening, state))
    }

    fn opening(&self) -> Option<TurnMessage> {
        let Opening { writer, heard, .. } = self.claim()?.0;
        Some(match self.byte(11) % 3 {
            0 => TurnMessage::Following(Following { writer, heard }),
            _ => TurnMessage::Opening(self.claim()?.0),
        })
    }

    /// What opens a session, or answers that.
    fn first(&self) -> Option<Message> {
        let (opening, state) = self.claim()?;
        if self.victim.has_begun() {
            let (opening, estimate) = (Box::new(opening), self.flag(7).then(|| self.estimate()));
            return Some(Message::HelloReply(match self.byte(11) % 3 {
                0 => HelloReply::Ahead { state, opening },
                known => HelloReply::Differs { state, estimate, opening, base_known: known == 1 },
            }));
        }
        Some(Message::Hello(Hello {
            collection: CollectionTag::of(self.victim.view.spec()),
            mode: MODES[usize::from(self.byte(10)) % MODES.len()],
            profile: Profile::ALL[usize::from(self.byte(7)) % Profile::ALL.len()],
            strategy: Strategy::ALL[usize::from(self.byte(11)) % Strategy::ALL.len()],
            state,
            base: None,
            estimator: self.flag(9).then(|| FoldedEstimator([self.byte(8); 8])),
        }))
    }

    /// As many keys as dots, of the first of them, or any number of bytes.
    fn candidates(&self) -> TurnMessage {
        let dots = self.dots(0);
        let keys = if self.flag(6) {
            let named = usize::try_from(dots.count()).unwrap_or(usize::MAX).min(512);
            (0..named)
                .flat_map(|at| self.key_hash(7 + at).0.into_iter().take(CANDIDATE_KEY_BYTES))
                .collect()
        } else {
            vec![self.byte(7); usize::from(self.byte(8))]
        };
        TurnMessage::Candidates { dots: WireDots::from(&dots), keys: Bytes(keys) }
    }

    fn turn(&self, kind: u8) -> TurnMessage {
        match kind {
            2 => self.states(),
            3 => TurnMessage::Removed(WireDots::from(&self.dots(0))),
            4 => self.candidates(),
            5 => TurnMessage::Filter {
                filter: WireFilter {
                    hashes: self.byte(0) % 34,
                    bits: vec![self.byte(1); usize::from(self.byte(2))],
                },
                items: u64::from(self.byte(3)) << (self.byte(4) % 64),
                second: self.flag(5),
            },
            6 => {
                let top = Level { answered: 0, ..self.level(7) };
                TurnMessage::Steer { attempt: self.byte(0) % 2, top }
            }
            7 => TurnMessage::Descend(self.nodes(0)),
            8 => TurnMessage::Nodes(vec![self.nodes(self.byte(3))]),
            25 => TurnMessage::Level(self.level(1)),
            26 => TurnMessage::Unmatched(Unmatched {
                lists: u32::from(self.byte(0) % 3),
                bits: Bytes(vec![self.byte(1); usize::from(self.byte(2) % 9)]),
            }),
            27..=33 => self.sketching(kind),
            _ => TurnMessage::Leaves(vec![self.leaves()]),
        }
    }

    fn estimate(&self) -> Estimate {
        let mut estimator = Estimator::default();
        for at in 0..self.byte(5) {
            estimator.add(&RecordDigest(self.algorithm().value_hash(&[at]).0));
        }
        match self.flag(6) {
            true => Estimate::Folded(estimator.folded()),
            false => Estimate::Wrapped(estimator.wrapped()),
        }
    }

    /// A message of a sketch exchange: of a layout that there is, or of nearly any bytes.
    fn sketching(&self, kind: u8) -> TurnMessage {
        let bytes = |at: usize| vec![self.byte(at); usize::from(self.byte(at + 1))];
        match kind {
            27 => TurnMessage::Estimate(self.estimate()),
            28 => {
                let width = if self.flag(0) { IdWidth::Wide } else { IdWidth::Narrow };
                let (log2, capacity) = (self.byte(1) % 4, 1 + self.byte(2) % 64);
                let Ok(layout) = Layout::new(width, log2, capacity) else {
                    return TurnMessage::MoreSymbols(0);
                };
                let mut bits = vec![self.byte(3); layout.bytes()];
                if let Some(last) = bits.last_mut().filter(|_| self.flag(4)) {
                    *last = 0;
                }
                TurnMessage::Sketch(WireSketch { layout, bits })
            }
            29 => TurnMessage::Refill(WireRefill {
                capacity: self.byte(0) % 66,
                failed: vec![self.byte(1); 1 + usize::from(self.byte(2) % 4)],
            }),
            30 => TurnMessage::Refilled(Bytes(bytes(1))),
            31 => {
                let symbols = vec![self.byte(1); 9 * (1 + usize::from(self.byte(2)))];
                Symbols::from_bytes(&symbols).map_or(TurnMessage::MoreSymbols(1), |symbols| {
                    TurnMessage::Symbols { kept: self.flag(2), symbols }
                })
            }
            32 => TurnMessage::MoreSymbols(u32::from(self.byte(0)) << (self.byte(1) % 25)),
            _ => TurnMessage::Names(WireNames { count: u32::from(self.byte(0)), gaps: bytes(1) }),
        }
    }

    fn prefix(&self, depth: u8) -> WirePrefix {
        let bits = u16::from(depth % 65) * 4;
        let mut bytes = self.key_hash(4).0[..usize::from(bits.div_ceil(8))].to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| !bits.is_multiple_of(8)) {
            *last &= 0xf0;
        }
        WirePrefix { bits, bytes: Bytes(bytes) }
    }

    /// Some answers: whether each child differs, then what is held there, as the bytes say.
    fn level(&self, at: usize) -> Level {
        let width = 24 + self.byte(at) % 34;
        let mut bits = BitWriter::default();
        let answered = u32::from(self.byte(at + 1) % 3);
        for answer in 0..answered {
            bits.put(u64::from(self.byte(at + 2 + answer as usize)) * 0x0101, 16);
        }
        for part in 0..self.byte(at + 4) % 5 {
            let kind = self.byte(at + 5 + usize::from(part)) % 5;
            bits.put(u64::from(kind), 2);
            let ids = match kind {
                2 => {
                    bits.put(u64::from(self.byte(at + 6)), 17);
                    self.byte(at + 6).count_ones()
                }
                3 => {
                    bits.put_gamma(u64::from(self.byte(at + 6)));
                    u32::from(self.byte(at + 6))
                }
                _ => 0,
            };
            (0..ids).for_each(|id| bits.put(u64::from(id) << 20, width));
        }
        Level { answered, width, bits: Bytes(bits.finish()) }
    }

    fn nodes(&self, depth: u8) -> NodeHashes {
        let present = u16::from_le_bytes([self.byte(1), self.byte(2)]);
        let hashes = Bytes(vec![self.byte(7); present.count_ones() as usize * 32]);
        NodeHashes { prefix: self.prefix(depth), present, hashes }
    }

    fn leaves(&self) -> LeafList {
        let prefix = self.prefix(self.byte(3));
        let shared = usize::from(prefix.bits / 8);
        let mut keys: Vec<KeyHash> = (5..9).map(|at| self.key_hash(at)).collect();
        keys.sort_unstable();
        keys.dedup();
        let own = prefix.bytes.0.first().copied();
        keys.retain(|key| prefix.bits < 8 || own == Some(key.0[0]));
        let digest = [self.byte(9)].repeat(32);
        let leaves = keys.iter().flat_map(|key| [&key.0[shared..], &digest].concat()).collect();
        LeafList { prefix, leaves: Bytes(leaves) }
    }

    fn states(&self) -> TurnMessage {
        let (sibling, value) = self.sibling(1);
        let mut siblings = vec![sibling];
        if self.flag(5) {
            siblings.push(self.sibling(6).0);
        }
        siblings.sort_unstable_by_key(|sibling| sibling.dot);
        let name = key(self.byte(0) % 20);
        let mut writers = WriterList::default();
        let mut value = self.flag(9).then_some(Bytes(value));
        let siblings = siblings.iter().map(|sibling| writers.tell(sibling, value.take())).collect();
        let held = KeyState { key: Bytes(name.as_bytes().to_vec()), siblings };
        TurnMessage::States {
            found_by: PHASES[usize::from(self.byte(10)) % PHASES.len()],
            writers: writers.into_writers(),
            held: if self.byte(11) & 3 != 3 { vec![held] } else { Vec::new() },
            absent: (0..(self.byte(11) >> 2) & 3).map(|n| self.key_hash(usize::from(n))).collect(),
            ask: (0..(self.byte(11) >> 4) & 3).map(|n| self.key_hash(usize::from(n) + 3)).collect(),
        }
    }

    fn signature(&self) -> Option<Signature> {
        let base = vec![self.byte(4); 1_024 + usize::from(self.byte(5)) * 16];
        let key = SignatureKey([self.byte(6); 32]);
        Signature::of(&base, base.len() as u64 + 100, &key, IdMargin::First)
    }

    fn gaps(&self) -> GapRequest {
        let run = |at| GapRun { first: self.byte(at).into(), count: self.byte(at + 1).into() };
        let runs = (0..usize::from(self.byte(2) % 3)).map(|n| run(3 + 2 * n)).collect();
        GapRequest { runs, missing: u64::from(self.byte(9)) << (self.byte(10) % 64) }
    }

    fn free(&self, kind: u8) -> Option<FreeMessage> {
        let (dot, of) = (self.dot(0), self.number(0));
        let tally = Tally { added: u64::MAX, ..Tally::default() };
        let base = BaseId::of(&self.algorithm().value_hash(&[self.byte(8)]));
        Some(match kind {
            11 => FreeMessage::Request(Wants::pack(
                (0..usize::from(self.byte(1) % 4))
                    .map(|at| Want {
                        of: self.number(4 + at),
                        bases: match self.byte(2) % 7 {
                            6 => Bases::Told,
                            many => Bases::These(vec![base; usize::from(many)]),
                        },
                        signature: self.signature().filter(|_| self.flag(3)),
                    })
                    .collect(),
            )),
            12 => {
                let reason = REASONS[usize::from(self.byte(2)) % REASONS.len()];
                FreeMessage::Refused(vec![(dot, reason); usize::from(self.byte(3) % 3)])
            }
            13 => FreeMessage::Ready(Ready {
                tree: self.tree(0),
                clock: Stamp::new(1_000_000, 0),
                refusals_sent: u64::from(self.byte(1) % 3),
                refusals_received: u64::from(self.byte(2) % 3),
                tally,
            }),
            14 => FreeMessage::Joined {
                signature: self.flag(0).then(|| Bytes(vec![self.byte(1); 64])),
            },
            15 => FreeMessage::Unavailable(vec![of, self.number(1)]),
            16 => FreeMessage::NeedSignature(of),
            20 => FreeMessage::NeedBlocks { of, gaps: self.gaps() },
            21 => {
                let base = vec![self.byte(4); 40_000];
                let (key, gaps) = (SignatureKey([0; 32]), self.gaps());
                let margin = IdMargin::First;
                let signature = BlockSignature::of_gaps(&base, 50_000, &gaps, &key, margin).ok()?;
                FreeMessage::Blocks { of, signature }
            }
            22 => FreeMessage::Signature { of, signature: self.signature()? },
            23 => FreeMessage::Abort(AbortCode::Brake(u64::from(self.byte(0)))),
            _ => FreeMessage::Refused(self.pool.iter().map(|&dot| (dot, REASONS[4])).collect()),
        })
    }

    fn bulk(&self, kind: u8) -> Bulk {
        let of = self.number(0);
        let base = BaseId::of(&self.algorithm().value_hash(&[self.byte(8)]));
        let encoding = match self.byte(1) % 4 {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            2 => Encoding::Prefixed { base },
            _ => Encoding::Patch { base },
        };
        let bytes = vec![self.byte(2); usize::from(self.byte(3))];
        match kind {
            17 => Bulk::Values(vec![ValueItem { of, encoded: Encoded { encoding, bytes } }]),
            18 => {
                let length = u64::from(self.byte(4)) << (self.byte(5) % 64);
                Bulk::Header { of, encoding, length }
            }
            _ => Bulk::Chunk(Bytes(bytes)),
        }
    }
}
