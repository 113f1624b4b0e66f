//! Coded symbols: a stream that the reader asks for until it is enough.

use std::hash::{Hash, Hasher};

use super::machine::Session;
use super::message::TurnMessage;
use super::outcome::Failure;
use super::phase::Phase;
use super::plan::{self, Method};
use super::sketching::{Exchange, Frozen, Step, leaves_of};
use super::turn::protocol;
use crate::replica::CollectionView;
use crate::sketch::buckets::{Decoded, Layout};
use crate::sketch::iblt::{Decoder, Encoder, IbltKey, SYMBOL_BYTES};
use crate::sketch::{DifferingId, ShortId, Symbols};

/// Most symbols of one message: they fit a frame.
const SYMBOLS_AT_ONCE: usize = 100_000;
/// How often more are asked for: each time half as many as there are, so that 25 times the first
/// batch is the end of it.
const MOST_ASKS: u8 = 8;
/// Fewer are not asked for.
const LEAST_ASKED: usize = 8;
/// Memory that an entry takes in a stream, and a symbol with what it names in a reader, in bytes.
const ENTRY_BYTES: usize = 20;
const READ_BYTES: usize = 80;
/// Cells of a reader that count as one step.
const CELLS_PER_STEP: u64 = 8;

/// The stream of this side. It follows from the tree and how much of it was sent.
#[derive(Clone, Debug)]
pub(super) struct Coding(Encoder);

impl Coding {
    /// How many symbols were sent.
    pub(super) const fn sent(&self) -> usize {
        self.0.symbols()
    }
}

impl PartialEq for Coding {
    fn eq(&self, other: &Self) -> bool {
        self.0.symbols() == other.0.symbols()
    }
}

impl Eq for Coding {}

impl Hash for Coding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.symbols().hash(state);
    }
}

/// A reader of the peer's stream. It follows from the tree and what was read.
#[derive(Clone, Debug)]
pub(super) struct Peeling {
    decoder: Decoder,
    asks: u8,
    /// BLAKE3 of all symbols so far.
    read: blake3::Hasher,
}

impl Peeling {
    fn terms(&self) -> impl Eq + Hash {
        (self.asks, *self.read.finalize().as_bytes())
    }
}

impl PartialEq for Peeling {
    fn eq(&self, other: &Self) -> bool {
        self.terms() == other.terms()
    }
}

impl Eq for Peeling {}

impl Hash for Peeling {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.terms().hash(state);
    }
}

impl Session {
    /// Whether there is memory for the stream of a tree: an eighth of what a session has.
    pub(super) fn has_room_to_code(&self, tree: &Frozen) -> bool {
        let most = self.setup.limits.max_session_memory_bytes / 8;
        tree.entries() <= most / ENTRY_BYTES as u64
    }

    fn encoder(&self, tree: &Frozen, view: &dyn CollectionView) -> Result<Encoder, Failure> {
        let key = IbltKey::derive(&self.derive_key("selfsame v1 iblt"));
        let mut failure = None;
        let leaves = leaves_of(&tree.tree, view, [true; 256], &mut failure);
        let ids = leaves.map(|leaf| ShortId::of(&leaf.key, &leaf.record));
        let encoder = Encoder::new(&key, ids, &self.setup.limits);
        failure.map_or(Ok(encoder), Err)
    }

    /// Begins a stream.
    pub(super) fn send_first_symbols(
        &mut self,
        tree: Frozen,
        count: usize,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.methods.push((Method::Iblt, self.progress));
        let coding = Coding(self.encoder(&tree, view)?);
        let bytes = stream_bytes(&tree);
        self.exchange = Some(Exchange { tree, step: Step::Coding(Box::new(coding)), bytes });
        self.send_symbols(count)
    }

    fn send_symbols(&mut self, count: usize) -> Result<(), Failure> {
        let Some(Exchange { step: Step::Coding(coding), .. }) = &mut self.exchange else {
            return Err(protocol());
        };
        let symbols = coding.0.next_symbols(count.min(SYMBOLS_AT_ONCE));
        if !symbols.is_empty() {
            let bytes = symbols.len() * SYMBOL_BYTES;
            self.say(TurnMessage::Symbols(symbols), bytes);
        }
        Ok(())
    }

    /// The peer asks for more of the stream.
    pub(super) fn peer_wants_symbols(&mut self, count: u32) -> Result<(), Failure> {
        let entries = match &self.exchange {
            Some(Exchange { tree, step: Step::Coding(_), .. }) => tree.entries(),
            _ => return Err(protocol()),
        };
        self.charge(entries + u64::from(count))?;
        self.send_symbols(count as usize)
    }

    /// The next symbols of the peer.
    pub(super) fn peer_symbols(
        &mut self,
        symbols: &Symbols,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let (tree, mut peeling) = match self.exchange.take() {
            Some(Exchange { tree, step: Step::Peeling(peeling), .. }) => (tree, peeling),
            other => {
                self.exchange = other;
                let tree = self.chosen_by_peer()?;
                self.methods.push((Method::Iblt, self.progress));
                let reason = format!("the peer chose {} coded symbols", symbols.len());
                // as many as they may name, about
                let room = symbols.len() as u64 * 2 / 3;
                let predicted = plan::symbols_cost(symbols.len(), room, self.most_entries());
                let predicted = predicted.and(plan::told_cost(room));
                self.note_plan(Phase::SketchExchange, reason, predicted);
                if !self.has_room_to_code(&tree) {
                    // a descent follows
                    return Ok(());
                }
                self.charge(tree.entries())?;
                let decoder = Decoder::new(self.encoder(&tree, view)?, &self.setup.limits);
                let read = blake3::Hasher::new();
                (tree, Box::new(Peeling { decoder, asks: 0, read }))
            }
        };
        let before = peeling.decoder.effort();
        let looked = tree.entries();
        // over the limit of symbols it ends with what is known
        let is_over = peeling.decoder.push(symbols).is_err();
        peeling.read.update(&symbols.to_bytes());
        self.charge(looked + (peeling.decoder.effort() - before) / CELLS_PER_STEP)?;
        let known = peeling.decoder.symbols();
        let is_enough = peeling.decoder.is_complete() || is_over || symbols.is_empty();
        if !is_enough && peeling.asks < MOST_ASKS {
            peeling.asks += 1;
            let more = (known / 2).clamp(LEAST_ASKED, SYMBOLS_AT_ONCE);
            self.say(TurnMessage::MoreSymbols(more as u32), 0);
            let bytes = stream_bytes(&tree) + known * READ_BYTES;
            self.exchange = Some(Exchange { tree, step: Step::Peeling(peeling), bytes });
            return Ok(());
        }
        let difference = peeling.decoder.difference();
        let ids = difference.ours.into_iter().chain(difference.theirs);
        let ids = ids.map(DifferingId::of_short).collect();
        let decoded = Decoded { layout: Layout::SHORT, ids, failed: Vec::new() };
        self.found(tree, &decoded, view)
    }
}

fn stream_bytes(tree: &Frozen) -> usize {
    tree.entries() as usize * ENTRY_BYTES
}
