//! Steering descent: subtree by subtree, 4 bits a step, with short ids, a level each turn.
//!
//! A side sends the ids of the children of a node, and the other answers in the same order: which
//! of them differ, and for each of those the ids of its own children, or of its leaves, or that it
//! holds nothing there. So prefixes never travel, each level costs half a round trip, and what
//! differs is named without a key hash: the side that gets a list of leaves says which of them it
//! cannot match, and tells those of its own that are not in the list.
//!
//! Ids steer, roots decide: two that meet by chance hide a difference until the next descent, which
//! has another key.

use std::collections::VecDeque;

use super::descent::{CHILDREN, child_of};
use super::knowledge::Theirs;
use super::machine::Session;
use super::message::{Bytes, Level, TurnMessage, Unmatched};
use super::outcome::Failure;
use super::overlay::OverlayTree;
use super::phase::Phase;
use super::plan::{self, Method};
use super::short::{MOST_BITS, ShortIds, cut, width};
use super::turn::{GATHERED_BYTES, TurnItem, protocol};
use crate::codec::bits::{BitReader, BitWriter};
use crate::hash::{KeyHash, TreeHash};
use crate::merkle::{Leaf, Prefix};
use crate::mutants::{Mutant, breaks};
use crate::replica::CollectionView;

/// Subtrees of at most so many leaves are listed, when few are open: it saves a turn.
const LISTED_OF_FEW: u64 = 32;
/// The same when many are: there it costs more than the ids of 16 children.
const LISTED_OF_MANY: u64 = 16;
/// Subtrees open at once that are few.
const FEW: usize = 16;
/// What an answer takes in memory besides its ids, about, in bytes.
const ANSWER_BYTES: usize = 200;

/// How a part of an answer begins: two bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Nothing,
    /// There is no room to go on here.
    Left,
    Node,
    List,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Nothing, Self::Left, Self::Node, Self::List];
}

/// What this side holds under a prefix at which the two differ.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Part {
    Nothing,
    Left,
    /// Which children have leaves (bit 15 is child 0), and their ids.
    Node(Prefix, u16, Vec<u64>),
    /// The ids of its leaves, ascending by key hash.
    List(Prefix, Vec<u64>),
}

impl Part {
    const fn ids(&self) -> usize {
        match self {
            Self::Nothing | Self::Left => 0,
            Self::Node(_, _, ids) | Self::List(_, ids) => ids.len(),
        }
    }

    fn put(&self, bits: &mut BitWriter, width: u8) {
        let mut begin = |kind: Kind| bits.put(kind as u64, 2);
        let ids = match self {
            Self::Nothing => return begin(Kind::Nothing),
            Self::Left => return begin(Kind::Left),
            Self::Node(_, present, ids) => {
                begin(Kind::Node);
                bits.put_bit(*present == u16::MAX);
                if *present != u16::MAX {
                    bits.put(u64::from(*present), CHILDREN as u8);
                }
                ids
            }
            Self::List(_, ids) => {
                begin(Kind::List);
                bits.put_gamma(ids.len() as u64);
                ids
            }
        };
        ids.iter().for_each(|&id| bits.put(cut(id, width), width));
    }
}

/// The answer to a node: a bit for each child that the other side holds, whether it differs; then
/// a part for each that does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Answer {
    held_there: u16,
    differing: u16,
    parts: Vec<Part>,
}

impl Answer {
    fn put(&self, bits: &mut BitWriter, width: u8) {
        for child in held(self.held_there) {
            bits.put_bit(self.differing & child_bit(child) != 0);
        }
        self.parts.iter().for_each(|part| part.put(bits, width));
    }
}

/// A descent under way, on the tree as this side had it when it began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Steering {
    tree: OverlayTree,
    ids: ShortIds,
    /// Nodes sent in this side's last turn, with the children held: the other answers them in
    /// this order.
    nodes: VecDeque<(Prefix, u16)>,
    /// Lists sent in this side's last turn, with their lengths.
    lists: VecDeque<(Prefix, usize)>,
    /// Answers to be said in this side's next turn.
    answers: VecDeque<Answer>,
    /// Of the lists that came: what nothing here matches.
    unmatched: VecDeque<Vec<bool>>,
    /// Keys of this side that the other does not match: told, unless it tells its own state.
    unexplained: Vec<KeyHash>,
    /// Whether there was no room to go on: whatever comes later is not answered either, since
    /// answers have an order.
    stopped: bool,
}

impl Steering {
    fn children(
        &self,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<Vec<TreeHash>, Failure> {
        Ok(self.tree.children(prefix, view)?)
    }

    fn entries(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<u64, Failure> {
        Ok(self.tree.totals_under(prefix, view)?.entries)
    }

    fn leaves(
        &self,
        prefix: &Prefix,
        most: usize,
        view: &dyn CollectionView,
    ) -> Result<Vec<Leaf>, Failure> {
        Ok(self.tree.leaves_under(prefix, most, view)?)
    }

    fn node(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<Part, Failure> {
        let empty = self.tree.tree().algorithm().empty();
        let (mut present, mut ids) = (0, Vec::new());
        for (at, hash) in self.children(prefix, view)?.iter().enumerate() {
            if *hash != empty {
                present |= child_bit(at);
                ids.push(self.ids.subtree(hash));
            }
        }
        Ok(Part::Node(*prefix, present, ids))
    }

    fn list(&self, prefix: &Prefix, view: &dyn CollectionView) -> Result<Part, Failure> {
        let leaves = self.leaves(prefix, usize::MAX, view)?;
        let ids = leaves.iter().map(|leaf| self.ids.leaf(leaf)).collect();
        Ok(Part::List(*prefix, ids))
    }

    /// Takes note of what the other side will answer.
    fn sends(&mut self, part: &Part) {
        match part {
            Part::Nothing | Part::Left => {}
            Part::Node(prefix, present, _) => self.nodes.push_back((*prefix, *present)),
            Part::List(prefix, ids) => self.lists.push_back((*prefix, ids.len())),
        }
    }

    /// Whether there is anything to say.
    pub(super) fn has_answers(&self) -> bool {
        !(self.answers.is_empty() && self.unmatched.is_empty())
    }

    /// The other side's turn is over: what it has not answered it will not answer any more.
    pub(super) fn turn_over(&mut self) -> Vec<KeyHash> {
        self.nodes.clear();
        self.lists.clear();
        std::mem::take(&mut self.unexplained)
    }

    /// The next message of this side's turn.
    pub(super) fn next_message(&mut self) -> Option<TurnMessage> {
        if let Some(level) = self.next_level() {
            return Some(TurnMessage::Level(level));
        }
        let mut bits = BitWriter::default();
        let mut lists = 0;
        while bits.len() < 8 * GATHERED_BYTES {
            let Some(list) = self.unmatched.pop_front() else { break };
            list.into_iter().for_each(|bit| bits.put_bit(bit));
            lists += 1;
        }
        let bits = Bytes(bits.finish());
        (lists > 0).then_some(TurnMessage::Unmatched(Unmatched { lists, bits }))
    }

    fn next_level(&mut self) -> Option<Level> {
        let (mut taken, mut ids, mut bytes) = (Vec::new(), 0, 0);
        while bytes < GATHERED_BYTES {
            let Some(answer) = self.answers.pop_front() else { break };
            let more: usize = answer.parts.iter().map(Part::ids).sum();
            (ids, bytes) = (ids + more, bytes + 4 + 5 * more);
            taken.push(answer);
        }
        if taken.is_empty() {
            return None;
        }
        let width = width(ids);
        let mut bits = BitWriter::default();
        for answer in &taken {
            answer.put(&mut bits, width);
            answer.parts.iter().for_each(|part| self.sends(part));
        }
        Some(Level { answered: taken.len() as u32, width, bits: Bytes(bits.finish()) })
    }

    /// What it holds in memory besides the answers that wait, about, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let sent = self.nodes.len() + self.lists.len();
        sent * size_of::<(Prefix, usize)>()
            + self.unexplained.len() * size_of::<KeyHash>()
            + self.tree.copy_bytes()
    }
}

impl Session {
    /// Begins a steering descent from the top.
    pub(super) fn start_steering(&mut self, view: &dyn CollectionView) -> Result<(), Failure> {
        let planned = self.stats.plan.last().map(|step| step.phase);
        if !self.methods.is_empty() || planned != Some(Phase::MerkleComparison) {
            let reason = "the trees still differ: descent".to_owned();
            let predicted = plan::descent_cost(1, self.ours.envelope.totals().entries);
            self.note_plan(Phase::MerkleComparison, reason, predicted);
        }
        let before = self.methods.iter().filter(|(method, _)| *method == Method::Steer).count();
        self.methods.push((Method::Steer, self.progress));
        let attempt = before as u8;
        let mut steering = self.new_steering(attempt);
        let top = match steering.entries(&Prefix::ALL, view)? {
            0 => Part::Nothing,
            some if some <= LISTED_OF_FEW => steering.list(&Prefix::ALL, view)?,
            _ => steering.node(&Prefix::ALL, view)?,
        };
        steering.sends(&top);
        self.steering = Some(steering);
        let width = width(top.ids());
        let mut bits = BitWriter::default();
        top.put(&mut bits, width);
        let top = Level { answered: 0, width, bits: Bytes(bits.finish()) };
        let message = TurnMessage::Steer { attempt, top };
        self.items.push_back(TurnItem::Message(Box::new(message)));
        Ok(())
    }

    fn new_steering(&self, attempt: u8) -> Steering {
        Steering {
            tree: self.knowledge.frozen(),
            ids: ShortIds::new(&self.derive_key("selfsame v1 steering ids"), attempt),
            nodes: VecDeque::new(),
            lists: VecDeque::new(),
            answers: VecDeque::new(),
            unmatched: VecDeque::new(),
            unexplained: Vec::new(),
            stopped: false,
        }
    }

    /// The peer begins a steering descent.
    pub(super) fn peer_steers(
        &mut self,
        attempt: u8,
        top: &Level,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.charge(CHILDREN as u64)?;
        self.exchange = None;
        self.methods.push((Method::Steer, self.progress));
        if top.answered != 0 || top.width > MOST_BITS {
            return Err(protocol());
        }
        let mut steering = self.new_steering(attempt);
        let mut bits = BitReader::new(&top.bits.0);
        self.peer_part(&mut steering, &Prefix::ALL, &mut bits, top.width, view)?;
        bits.finish().map_err(|_| protocol())?;
        self.steering = Some(steering);
        Ok(())
    }

    /// The peer's answers to nodes of this side.
    pub(super) fn peer_level(
        &mut self,
        level: &Level,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let mut steering = self.steering.take().ok_or_else(protocol)?;
        if level.width > MOST_BITS {
            return Err(protocol());
        }
        let mut bits = BitReader::new(&level.bits.0);
        for _ in 0..level.answered {
            let (prefix, present) = steering.nodes.pop_front().ok_or_else(protocol)?;
            let mut differing = 0;
            for child in held(present) {
                if bits.bit().map_err(|_| protocol())? {
                    differing |= child_bit(child);
                }
            }
            for child in held(differing) {
                let child = child_of(&prefix, child).ok_or_else(protocol)?;
                self.peer_part(&mut steering, &child, &mut bits, level.width, view)?;
            }
        }
        bits.finish().map_err(|_| protocol())?;
        self.steering = Some(steering);
        Ok(())
    }

    /// What the peer holds under a prefix.
    fn peer_part(
        &mut self,
        steering: &mut Steering,
        prefix: &Prefix,
        bits: &mut BitReader<'_>,
        width: u8,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let kind = bits.read(2).map_err(|_| protocol())? as usize;
        match Kind::ALL.get(kind).ok_or_else(protocol)? {
            Kind::Nothing => self.only_here(steering, prefix, view),
            Kind::Left => Ok(()),
            Kind::Node => {
                let whole = bits.bit().map_err(|_| protocol())?;
                let present = match whole {
                    true => u16::MAX,
                    false => bits.read(CHILDREN as u8).map_err(|_| protocol())? as u16,
                };
                let ids = read_ids(bits, u64::from(present.count_ones()), width)?;
                self.peer_children(steering, prefix, (present, width), &ids, view)
            }
            Kind::List => {
                let count = bits.gamma().map_err(|_| protocol())?;
                let ids = read_ids(bits, count, width)?;
                self.peer_list(steering, prefix, width, ids, view)
            }
        }
    }

    /// The peer has nothing there: it hears of every leaf.
    fn only_here(
        &mut self,
        steering: &mut Steering,
        prefix: &Prefix,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let room = self.setup.limits.max_session_entries.saturating_sub(self.knowledge.len());
        let leaves = steering.leaves(prefix, room + 1, view)?;
        self.charge(leaves.len() as u64)?;
        leaves.iter().for_each(|leaf| self.differs(leaf.key));
        Ok(())
    }

    /// The peer's children of a prefix: compared with the own ones, and answered.
    fn peer_children(
        &mut self,
        steering: &mut Steering,
        prefix: &Prefix,
        (present, width): (u16, u8),
        theirs: &[u64],
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        self.charge(CHILDREN as u64)?;
        let empty = steering.tree.tree().algorithm().empty();
        let mut theirs = theirs.iter();
        let mut answer = Answer { held_there: present, differing: 0, parts: Vec::new() };
        for (at, mine) in steering.children(prefix, view)?.into_iter().enumerate() {
            let theirs = if present & child_bit(at) != 0 { theirs.next() } else { None };
            let child = child_of(prefix, at).ok_or_else(protocol)?;
            match theirs {
                None if mine == empty => {}
                None => self.only_here(steering, &child, view)?,
                Some(&id) if mine != empty && cut(steering.ids.subtree(&mine), width) == id => {}
                Some(_) => {
                    answer.differing |= child_bit(at);
                    let open = steering.answers.len();
                    let part = match mine == empty {
                        true => Part::Nothing,
                        false => self.own_part(steering, &child, open, view)?,
                    };
                    answer.parts.push(part);
                }
            }
        }
        let ids: usize = answer.parts.iter().map(Part::ids).sum();
        if !steering.stopped && self.has_room_to_say(ANSWER_BYTES + 8 * ids) {
            steering.answers.push_back(answer);
        } else {
            steering.stopped = true;
        }
        Ok(())
    }

    /// What this side holds under a prefix at which the two differ.
    fn own_part(
        &mut self,
        steering: &mut Steering,
        prefix: &Prefix,
        open: usize,
        view: &dyn CollectionView,
    ) -> Result<Part, Failure> {
        let limits = &self.setup.limits;
        if steering.stopped || self.knowledge.len() >= limits.max_session_entries {
            self.partial = true;
            return Ok(Part::Left);
        }
        let entries = steering.entries(prefix, view)?;
        let deep = prefix.len() >= self.setup.config.max_merkle_depth.min(256);
        let listed = entries <= if open < FEW { LISTED_OF_FEW } else { LISTED_OF_MANY }
            || (deep && entries <= limits.max_listed_leaves as u64)
            || prefix.len() >= 256;
        self.charge(if listed { entries } else { CHILDREN as u64 })?;
        if listed { steering.list(prefix, view) } else { steering.node(prefix, view) }
    }

    /// The peer's leaves below a prefix: those of this side that are not among them are told, and
    /// the peer hears which of its own nothing here matches.
    fn peer_list(
        &mut self,
        steering: &mut Steering,
        prefix: &Prefix,
        width: u8,
        theirs: Vec<u64>,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let room = self.setup.limits.max_session_entries.saturating_mul(2);
        let mine = steering.leaves(prefix, room, view)?;
        self.charge((mine.len() + theirs.len()) as u64)?;
        self.partial |= mine.len() == room;
        let mut unmatched = vec![true; theirs.len()];
        let mut places: Vec<(u64, usize)> =
            theirs.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
        places.sort_unstable();
        for leaf in &mine {
            let id = cut(steering.ids.leaf(leaf), width);
            let first = places.partition_point(|&(other, _)| other < id);
            let same = places[first..].iter().take_while(|&&(other, _)| other == id);
            let mut found = false;
            for &(_, at) in same {
                (unmatched[at], found) = (false, true);
            }
            if found {
                continue;
            }
            if breaks(Mutant::RemoveByLeaf) {
                self.remove_unasked(leaf.key, view)?;
            } else {
                self.differs(leaf.key);
            }
        }
        if !steering.stopped && self.has_room_to_say(ANSWER_BYTES + unmatched.len()) {
            steering.unmatched.push_back(unmatched);
        } else {
            steering.stopped = true;
        }
        Ok(())
    }

    /// The peer says which leaves of this side's lists it cannot match.
    pub(super) fn peer_unmatched(
        &mut self,
        unmatched: &Unmatched,
        view: &dyn CollectionView,
    ) -> Result<(), Failure> {
        let mut steering = self.steering.take().ok_or_else(protocol)?;
        let mut bits = BitReader::new(&unmatched.bits.0);
        for _ in 0..unmatched.lists {
            let (prefix, count) = steering.lists.pop_front().ok_or_else(protocol)?;
            let differs: Result<Vec<bool>, _> = (0..count).map(|_| bits.bit()).collect();
            let differs = differs.map_err(|_| protocol())?;
            if !differs.contains(&true) {
                continue;
            }
            self.charge(count as u64)?;
            let leaves = steering.leaves(&prefix, count, view)?;
            let differing = leaves.iter().zip(differs).filter(|(_, differs)| *differs);
            steering.unexplained.extend(differing.map(|(leaf, _)| leaf.key));
            if steering.unexplained.len() > self.setup.limits.max_session_entries {
                self.partial = true;
                steering.unexplained.truncate(self.setup.limits.max_session_entries);
            }
        }
        bits.finish().map_err(|_| protocol())?;
        self.steering = Some(steering);
        Ok(())
    }

    /// At the end of the peer's turn: what it could not match and has told nothing of, it does not
    /// hold as this side does.
    pub(super) fn explain(&mut self) {
        self.explain_names();
        let Some(steering) = &mut self.steering else { return };
        for key in steering.turn_over() {
            let told = self.knowledge.get(&key).map(|known| &known.theirs);
            if told.is_none_or(|theirs| *theirs == Theirs::Unknown) {
                self.differs(key);
            }
        }
    }
}

const fn child_bit(child: usize) -> u16 {
    0x8000 >> child
}

/// The children that a bitmap names.
fn held(bitmap: u16) -> impl Iterator<Item = usize> {
    (0..CHILDREN).filter(move |&child| bitmap & child_bit(child) != 0)
}

/// Ids as they stand: no more are allocated than there are bits for.
fn read_ids(bits: &mut BitReader<'_>, count: u64, width: u8) -> Result<Vec<u64>, Failure> {
    let there = bits.remaining() as u64 / u64::from(width.max(1));
    if width == 0 || count > there {
        return Err(protocol());
    }
    (0..count).map(|_| bits.read(width).map_err(|_| protocol())).collect()
}
