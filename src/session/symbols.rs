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

    fn terms(&self) -> (usize, bool) {
        (self.sent(), self.0.has_kept_key())
    }
}

impl PartialEq for Coding {
    fn eq(&self, other: &Self) -> bool {
        self.terms() == other.terms()
    }
}

impl Eq for Coding {}

impl Hash for Coding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.terms().hash(state);
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
        (self.decoder.stream().has_kept_key(), self.asks, *self.read.finalize().as_bytes())
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
    /// How many symbols of a tree there is memory for: any number, if its stream fits into
    /// half of what a session has, else as many as are kept.
    pub(super) fn most_symbols(&self, tree: &Frozen) -> usize {
        let most = self.setup.limits.max_session_memory_bytes / 2;
        if tree.entries() <= most / ENTRY_BYTES as u64 {
            self.setup.limits.max_iblt_symbols
        } else {
            tree.kept_symbols().min(self.setup.limits.max_iblt_symbols)
        }
    }

    /// The stream of a tree, under the key that everybody has or that of this session: as it is
    /// kept, if so many symbols are.
    fn encoder(
        &mut self,
        tree: &Frozen,
        kept: bool,
        symbols: usize,
        view: &dyn CollectionView,
    ) -> Result<Encoder, Failure> {
        if let Some(sketches) = &tree.sketches
            && kept
            && symbols <= tree.kept_symbols()
        {
            return Ok(Encoder::of_kept(sketches.symbols().clone(), &self.setup.limits));
        }
        self.charge(tree.entries())?;
        let key = match kept {
            true => IbltKey::KEPT,
            false => IbltKey::derive(&self.derive_key("selfsame v1 iblt")),
        };
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
        let kept = count <= tree.kept_symbols();
        let coding = Coding(self.encoder(&tree, kept, count, view)?);
        let bytes = stream_bytes(&tree, &coding.0);
        self.exchange = Some(Exchange { tree, step: Step::Coding(Box::new(coding)), bytes });
        self.send_symbols(count, view)
    }

    fn send_symbols(&mut self, count: usize, view: &dyn CollectionView) -> Result<(), Failure> {
        let Some(Exchange { tree, step: Step::Coding(mut coding), mut bytes }) =
            self.exchange.take()
        else {
            return Err(protocol());
        };
        let room = self.most_symbols(&tree).saturating_sub(coding.sent());
        let count = count.min(SYMBOLS_AT_ONCE).min(room);
        if coding.0.runs_out(count) {
            let mut stream = self.encoder(&tree, true, usize::MAX, view)?;
            stream.skip(coding.sent());
            bytes = stream_bytes(&tree, &stream);
            coding.0 = stream;
        }
        let (symbols, kept) = (coding.0.next_symbols(count), coding.0.has_kept_key());
        self.exchange = Some(Exchange { tree, step: Step::Coding(coding), bytes });
        if !symbols.is_empty() {
            let bytes = symbols.len() * SYMBOL_BYTES;
            self.say(TurnMessage::Symbols { kept, symbols }, bytes);
        }
        Ok(())
    }

    /// The peer asks for more of the stream.
    pub(super) fn peer_wants_symbols(
        &mut self,
        count: u32,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let entries = match &self.exchange {
            Some(Exchange { step: Step::Coding(coding), .. }) if coding.0.is_kept() => 0,
            Some(Exchange { tree, step: Step::Coding(_), .. }) => tree.entries(),
            _ => return Err(protocol()),
        };
        self.charge(entries + u64::from(count))?;
        self.send_symbols(count as usize, view)
    }

    /// The next symbols of the peer.
    pub(super) fn peer_symbols(
        &mut self,
        kept: bool,
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
                let at_hand = kept && symbols.len() <= tree.kept_symbols();
                let predicted =
                    plan::symbols_cost(symbols.len(), room, self.most_entries(), at_hand);
                let predicted = predicted.and(plan::told_cost(room));
                self.note_plan(Phase::SketchExchange, reason, predicted);
                if self.most_symbols(&tree) < symbols.len() {
                    // a descent follows
                    return Ok(());
                }
                let own = self.encoder(&tree, kept, symbols.len(), view)?;
                let decoder = Decoder::new(own, &self.setup.limits);
                let read = blake3::Hasher::new();
                (tree, Box::new(Peeling { decoder, asks: 0, read }))
            }
        };
        if kept != peeling.decoder.stream().has_kept_key() {
            return Err(protocol());
        }
        if peeling.decoder.stream().runs_out(symbols.len()) {
            if self.most_symbols(&tree) < peeling.decoder.symbols() + symbols.len() {
                return Ok(());
            }
            let own = self.encoder(&tree, true, usize::MAX, view)?;
            peeling.decoder.go_on_with(own);
        }
        let before = peeling.decoder.effort();
        let looked = if peeling.decoder.stream().is_kept() { 0 } else { tree.entries() };
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
            let bytes = stream_bytes(&tree, peeling.decoder.stream()) + known * READ_BYTES;
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

/// What a stream takes that is not the collection's.
fn stream_bytes(tree: &Frozen, stream: &Encoder) -> usize {
    if stream.is_kept() { 0 } else { tree.entries() as usize * ENTRY_BYTES }
}
