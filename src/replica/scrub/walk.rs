//! The walk over all rows of a collection: what is checked, slice by slice.
//!
//! A slice reads one moment of the store, with the tree, context and head of that moment: so
//! what is written meanwhile is no false alarm. Entries come page by page, the rest row by row.

use std::ops::Bound;

use crate::dots::{Causality, Dot};
use crate::hash::{KeyHash, ValueHash};
use crate::merkle::{Envelope, PageRow, PagedTree, Prefix};
use crate::replica::ReplicaError;
use crate::replica::join::parse_dot_row;
use crate::replica::open::load_causality;
use crate::replica::pages::{self, Page, ReadError};
use crate::replica::rows::{
    CollectionId, Head, LogRow, key_tail, read_entry, read_page, write_page,
};
use crate::replica::view::Entry;
use crate::store::{Read, Span, StoreError, Table};
use crate::types::CollectionSpec;

/// Rows read at once.
const CHUNK: usize = 256;
/// What a slice finds before it ends, whatever its budget is.
const FOUND: usize = 4_096;

/// The parts of a walk, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub(in crate::replica) enum Stage {
    /// Head, root and context.
    #[default]
    Facts = 0,
    /// Entries with their pages, dots and values.
    Entries = 1,
    /// Page rows that belong to no page.
    Pages = 2,
    /// Dots that no entry holds.
    Dots = 3,
    /// The change log.
    Log = 4,
    /// All was read.
    Done = 5,
}

impl Stage {
    pub(in crate::replica) const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::Facts,
            1 => Self::Entries,
            2 => Self::Pages,
            3 => Self::Dots,
            4 => Self::Log,
            5 => Self::Done,
            _ => return None,
        })
    }

    const fn next(self) -> Self {
        match self {
            Self::Facts => Self::Entries,
            Self::Entries => Self::Pages,
            Self::Pages => Self::Dots,
            Self::Dots => Self::Log,
            Self::Log | Self::Done => Self::Done,
        }
    }
}

/// Where a walk goes on: behind this row of the table of its stage.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(in crate::replica) struct Position {
    pub(in crate::replica) stage: Stage,
    pub(in crate::replica) after: Option<Box<[u8]>>,
}

impl Position {
    fn start(&self) -> Bound<&[u8]> {
        self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }

    fn leave(&mut self) {
        *self = Self { stage: self.stage.next(), after: None };
    }
}

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(in crate::replica) struct Figures {
    /// Entries.
    pub(in crate::replica) entries: u64,
    /// Bytes of their values.
    pub(in crate::replica) value_bytes: u64,
    /// Bytes of all rows.
    pub(in crate::replica) bytes: u64,
}

/// What does not fit together, as far as mending it needs to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::replica) enum Found {
    /// The tree does not have the root of the head.
    Root,
    /// The head's row is not the head.
    Head,
    /// Rows of the context are not the context.
    Context,
    /// A dot is held and an exception.
    Excepted(Dot),
    /// A dot is held right above the context, which should cover it.
    Uncovered(Dot),
    /// An entry rotted or is missing.
    Record(KeyHash),
    /// An entry's row that is no entry of the tree.
    Stray(KeyHash),
    /// The bytes of a value are missing or not its own.
    Value(KeyHash, ValueHash),
    /// The row of a page is missing or not its own.
    Page(Prefix),
    /// A row of no page.
    StrayPage(Box<[u8]>),
    /// The index lacks a dot, or has it elsewhere.
    MissingDot(Dot, KeyHash),
    /// A row of the index whose dot is not held where it says.
    StrayDot(Box<[u8]>),
    /// A row of the change log.
    Log(Box<[u8]>),
}

/// One moment of a collection.
pub(in crate::replica) struct Moment<'a, R> {
    pub(in crate::replica) rows: &'a R,
    pub(in crate::replica) id: CollectionId,
    pub(in crate::replica) spec: &'a CollectionSpec,
    pub(in crate::replica) tree: PagedTree,
    pub(in crate::replica) causality: &'a Causality,
    pub(in crate::replica) head: &'a Head,
}

/// What a slice read and found.
#[derive(Default)]
pub(in crate::replica) struct Slice {
    pub(in crate::replica) figures: Figures,
    pub(in crate::replica) found: Vec<Found>,
}

impl Slice {
    fn is_full(&self, budget: u64) -> bool {
        self.figures.bytes >= budget || self.found.len() >= FOUND
    }
}

impl<R: Read> Moment<'_, R> {
    /// Reads on until about `budget` bytes were read, the rows of a page and the values of an
    /// entry more at most, or all was.
    pub(in crate::replica) fn slice(
        &self,
        position: &mut Position,
        budget: u64,
    ) -> Result<Slice, StoreError> {
        let mut slice = Slice::default();
        while position.stage != Stage::Done && !slice.is_full(budget) {
            match position.stage {
                Stage::Facts => self.facts(position, &mut slice)?,
                Stage::Entries => self.entries(position, budget, &mut slice)?,
                Stage::Pages => self.stray_pages(position, &mut slice)?,
                Stage::Dots => self.stray_dots(position, &mut slice)?,
                Stage::Log => self.log(position, &mut slice)?,
                Stage::Done => {}
            }
        }
        Ok(slice)
    }

    fn facts(&self, position: &mut Position, slice: &mut Slice) -> Result<(), StoreError> {
        let (tree, spec) = (&self.tree, self.spec.clone());
        let envelope = Envelope::new(spec, tree.tree_hash(), tree.totals());
        if envelope.map(|envelope| envelope.root()).ok() != Some(self.head.root) {
            slice.found.push(Found::Root);
        }
        let row = self.rows.get(Table::Heads, &self.id.head())?;
        if row.as_deref() != Some(&self.head.to_row()[..]) {
            slice.found.push(Found::Head);
        }
        let sound = match load_causality(self.rows, self.id) {
            Ok((stored, sum)) => stored == *self.causality && sum == self.head.context_sum,
            Err(ReadError::Store(error)) => return Err(error),
            Err(_) => false,
        };
        if !sound {
            slice.found.push(Found::Context);
        }
        slice.figures.bytes += 24 * self.causality.writers() as u64;
        position.leave();
        Ok(())
    }

    /// Page after page; what stands between them belongs nowhere.
    fn entries(
        &self,
        position: &mut Position,
        budget: u64,
        slice: &mut Slice,
    ) -> Result<(), StoreError> {
        let done = |position: &Position| {
            position.after.as_deref().and_then(|row| key_tail(row).ok()).map(KeyHash)
        };
        let from = match done(position) {
            None => KeyHash([0; 32]),
            Some(last) => match successor(&last) {
                Some(next) => next,
                None => {
                    position.leave();
                    return Ok(());
                }
            },
        };
        for row in self.tree.rows_from(&from) {
            let (first, last) = (row.prefix.first_key(), row.prefix.last_key());
            self.between(position, Some(&first), slice)?;
            if !self.page(&row, &from, position, budget, slice)? {
                return Ok(());
            }
            position.after = Some(self.id.entry(&last).into());
            if slice.is_full(budget) {
                return Ok(());
            }
        }
        self.between(position, None, slice)?;
        position.leave();
        Ok(())
    }

    /// Rows behind the position and before a page.
    fn between(
        &self,
        position: &mut Position,
        end: Option<&KeyHash>,
        slice: &mut Slice,
    ) -> Result<(), StoreError> {
        loop {
            let start = position.start();
            let rows = self
                .rows
                .scan_keys(Span::of(Table::Entries, &self.id.prefix()).start_at(start), CHUNK)?;
            for row in &rows {
                let Ok(key) = pages::entry_key(row) else { continue };
                if end.is_some_and(|end| key >= *end) {
                    return Ok(());
                }
                slice.found.push(Found::Stray(key));
                position.after = Some(row.clone());
            }
            if rows.is_empty() || slice.found.len() >= FOUND {
                return Ok(());
            }
        }
    }

    /// A page, from a key on: verified as a whole whenever one of its entries is looked at. Whether
    /// it was read to its end.
    fn page(
        &self,
        row: &PageRow,
        from: &KeyHash,
        position: &mut Position,
        budget: u64,
        slice: &mut Slice,
    ) -> Result<bool, StoreError> {
        let page = Page::read(self.rows, self.id, &self.tree, &row.prefix)?;
        slice.figures.bytes += page.bytes;
        if *from <= row.prefix.first_key() {
            let stored = self.rows.get(Table::Pages, &self.id.page(&row.prefix))?;
            if stored.as_deref() != Some(&write_page(row)[..]) {
                slice.found.push(Found::Page(row.prefix));
            }
            slice.found.extend(page.stray.iter().map(|&key| Found::Stray(key)));
            slice.found.extend(page.rotten.iter().map(|&key| Found::Record(key)));
        }
        for (key, entry) in page.sound.range(from..) {
            if slice.is_full(budget) && position.after.as_deref() >= Some(&self.id.entry(from)[..])
            {
                return Ok(false);
            }
            slice.figures.entries += 1;
            if !page.rotten.contains(key) {
                self.entry(key, entry, slice)?;
            }
            position.after = Some(self.id.entry(key).into());
        }
        Ok(true)
    }

    fn entry(&self, key: &KeyHash, entry: &Entry, slice: &mut Slice) -> Result<(), StoreError> {
        for sibling in entry.record.siblings() {
            let dot = sibling.dot;
            let indexed = self.rows.get(Table::Dots, &self.id.dot(dot))?;
            if indexed.as_deref() != Some(&key.0[..]) {
                slice.found.push(Found::MissingDot(dot, *key));
            }
            if self.causality.exceptions().contains(dot) {
                slice.found.push(Found::Excepted(dot));
            }
            if self.causality.counter(dot.writer()).checked_add(1) == Some(dot.counter()) {
                slice.found.push(Found::Uncovered(dot));
            }
        }
        for sibling in entry.record.versions() {
            let hash = sibling.value_hash;
            let value = self.rows.get(Table::Values, &self.id.value(key, &hash))?;
            let len = value.as_ref().map_or(0, |value| value.len() as u64);
            slice.figures.value_bytes += len;
            slice.figures.bytes += len;
            let whole = value.is_some_and(|value| {
                len == sibling.size && self.spec.algorithm.value_hash(&value) == hash
            });
            if !whole {
                slice.found.push(Found::Value(*key, hash));
            }
        }
        Ok(())
    }

    fn stray_pages(&self, position: &mut Position, slice: &mut Slice) -> Result<(), StoreError> {
        let rows = self
            .rows
            .scan(Span::of(Table::Pages, &self.id.prefix()).start_at(position.start()), CHUNK)?;
        let Some(last) = rows.last() else {
            position.leave();
            return Ok(());
        };
        let last = last.key.clone();
        for row in rows {
            slice.figures.bytes += (row.key.len() + row.value.len()) as u64;
            if page_of_row(&self.tree, &row.key).is_none() {
                slice.found.push(Found::StrayPage(row.key));
            }
        }
        position.after = Some(last);
        Ok(())
    }

    fn stray_dots(&self, position: &mut Position, slice: &mut Slice) -> Result<(), StoreError> {
        let rows = self
            .rows
            .scan(Span::of(Table::Dots, &self.id.prefix()).start_at(position.start()), CHUNK)?;
        let Some(last) = rows.last() else {
            position.leave();
            return Ok(());
        };
        let last = last.key.clone();
        let mut tree = self.tree.clone();
        for row in rows {
            slice.figures.bytes += (row.key.len() + row.value.len()) as u64;
            if self.is_stray(&mut tree, &row.key, &row.value)? {
                slice.found.push(Found::StrayDot(row.key));
            }
        }
        position.after = Some(last);
        Ok(())
    }

    /// Whether a row of the index is surely not right. Of an entry that rotted nobody knows.
    pub(in crate::replica) fn is_stray(
        &self,
        tree: &mut PagedTree,
        row: &[u8],
        value: &[u8],
    ) -> Result<bool, StoreError> {
        let Ok((dot, key)) = parse_dot_row(row, value) else { return Ok(true) };
        if row != self.id.dot(dot) {
            return Ok(true);
        }
        let algorithm = self.spec.algorithm;
        let entry = self.rows.get(Table::Entries, &self.id.entry(&key))?;
        let entry = entry.and_then(|row| read_entry(&row).ok());
        // most are right: only of the others the page is read
        if entry.is_some_and(|entry| entry.record.holds(dot)) {
            return Ok(false);
        }
        let name = &self.spec.name;
        let leaf = pages::with_pages(self.rows, self.id, name, tree, |tree| tree.get(&key));
        let leaf = match leaf {
            Ok(leaf) => leaf,
            Err(ReplicaError::Store(error)) => return Err(error),
            Err(_) => return Ok(false),
        };
        match pages::read_checked(self.rows, self.id, algorithm, &key, leaf.as_ref()) {
            Ok(entry) => Ok(entry.is_none_or(|entry| !entry.record.holds(dot))),
            Err(ReadError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn log(&self, position: &mut Position, slice: &mut Slice) -> Result<(), StoreError> {
        let rows = self
            .rows
            .scan(Span::of(Table::Log, &self.id.prefix()).start_at(position.start()), CHUNK)?;
        let Some(last) = rows.last() else {
            position.leave();
            return Ok(());
        };
        let last = last.key.clone();
        for row in rows {
            slice.figures.bytes += (row.key.len() + row.value.len()) as u64;
            if row.key.len() != self.id.log(0).len() || LogRow::parse(&row.value).is_err() {
                slice.found.push(Found::Log(row.key));
            }
        }
        position.after = Some(last);
        Ok(())
    }
}

/// The page of a tree that a row stands for.
pub(in crate::replica) fn page_of_row(tree: &PagedTree, row: &[u8]) -> Option<Prefix> {
    // the key alone says which page it is: what the row says is compared with the tree
    let any = write_page(&PageRow {
        prefix: Prefix::ALL,
        hash: tree.tree_hash(),
        totals: tree.totals(),
        depth: 0,
    });
    let prefix = read_page(row, &any).ok()?.prefix;
    tree.row(&prefix).map(|row| row.prefix)
}

fn successor(key: &KeyHash) -> Option<KeyHash> {
    let mut next = *key;
    for byte in next.0.iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(1);
        *byte = sum;
        if !over {
            return Some(next);
        }
    }
    None
}

impl Found {
    /// What is wrong, as a sentence.
    pub(in crate::replica) fn sentence(&self) -> String {
        match self {
            Self::Root => "the tree does not have the root of the head".into(),
            Self::Head => "the head's row is not the head".into(),
            Self::Context => "the context rows are not those of the context".into(),
            Self::Excepted(dot) => format!("dot {dot} is held and an exception"),
            Self::Uncovered(dot) => {
                format!("dot {dot} stands right above the context, which should cover it")
            }
            Self::Record(key) => format!("the entry at {key} rotted or is missing"),
            Self::Stray(key) => format!("the row of an entry at {key} belongs to no entry"),
            Self::Value(key, hash) => format!("the bytes of value {hash} at {key} are lost"),
            Self::Page(prefix) => format!("the row of page {prefix} is not that of its entries"),
            Self::StrayPage(_) => "a page row belongs to no page".into(),
            Self::MissingDot(dot, key) => {
                format!("the index lacks dot {dot}, which the entry at {key} holds")
            }
            Self::StrayDot(_) => "the index has a dot where no entry holds it".into(),
            Self::Log(_) => "a row of the change log rotted".into(),
        }
    }
}
