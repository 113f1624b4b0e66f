//! A disk in memory that loses, lies, fills up, fails and rots.
//!
//! What was synced and the batches since then are kept apart: a loss of power keeps a prefix of
//! those batches, cut anywhere in their bytes; a batch that was cut is gone as a whole, as a
//! journal with checksums has it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use selfsame::store::{
    Batch, Capabilities, CommitNumber, Durability, Read, Row, Span, Store, StoreError, Table,
};

use super::dice::Dice;

type Rows = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// All tables at one moment; a copy shares what is not written.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tables([Arc<Rows>; Table::ALL.len() + 1]);

impl Tables {
    fn of(&self, table: Table) -> &Rows {
        &self.0[usize::from(table.id())]
    }

    fn write(&mut self, batch: &Batch) {
        for (table, key, value) in batch.iter() {
            self.set(table, key, value.map(Arc::clone));
        }
    }

    pub fn set(&mut self, table: Table, key: &[u8], value: Option<Arc<[u8]>>) {
        let rows = Arc::make_mut(&mut self.0[usize::from(table.id())]);
        match value {
            Some(value) => drop(rows.insert(key.into(), value)),
            None => drop(rows.remove(key)),
        }
    }

    /// The rows of one table, with those of another moment in their place.
    pub fn replace(&mut self, table: Table, other: &Self) {
        let at = usize::from(table.id());
        self.0[at] = Arc::clone(&other.0[at]);
    }

    pub fn rows(&self, table: Table) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.of(table).iter()
    }
}

impl Read for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.of(table).get(key).cloned())
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.of(span.table).range::<[u8], _>((span.first(), Bound::Unbounded));
        let of_prefix = rows.take_while(|(key, _)| !span.ends_before(key)).take(limit);
        Ok(of_prefix
            .map(|(key, value)| Row { key: (**key).into(), value: Arc::clone(value) })
            .collect())
    }
}

/// What goes wrong with writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// So many batches find no room, then there is some again.
    Full(u32),
    /// The batch after so many fails; nobody knows whether it reached the disk.
    Fails(u32),
    /// The sync after so many fails: what was written shows, and may be lost.
    SyncFails(u32),
}

/// A batch since the last sync.
struct Written {
    number: u64,
    batch: Batch,
}

#[derive(Default)]
struct State {
    visible: Tables,
    synced: Tables,
    unsynced: Vec<Written>,
    /// Number of the last batch, whether it was taken or not.
    number: u64,
    /// Number of the last batch that shows.
    shown: u64,
    fault: Option<WriteFault>,
    /// Syncs are answered and not done.
    lies: bool,
    /// A sync was answered and not done, and none was done since.
    owes: bool,
    /// An earlier write failed.
    refuses: bool,
    token: Option<Vec<u8>>,
}

/// What a disk holds, to be looked at and copied; its faults are not part of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Image {
    visible: Tables,
    synced: Tables,
    unsynced: Vec<Batch>,
    token: Option<Vec<u8>>,
}

impl Image {
    pub const fn tables(&self) -> &Tables {
        &self.visible
    }

    pub fn token(&self) -> Option<&[u8]> {
        self.token.as_deref()
    }

    pub fn has_more_synced_than(&self, before: &Self) -> bool {
        self.synced != before.synced
    }

    /// Number of batches that a loss of power may take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The same with what a clean close leaves.
    #[must_use]
    pub fn with_token(self, token: Option<Vec<u8>>) -> Self {
        Self { token, ..self }
    }

    /// A loss of power left so many of the batches that were not synced.
    #[must_use]
    pub fn crashed(&self, kept: usize) -> Self {
        let mut rows = self.synced.clone();
        self.unsynced.iter().take(kept).for_each(|batch| rows.write(batch));
        Self::of(rows)
    }

    /// A disk on which just these rows are, all of them synced.
    pub fn of(rows: Tables) -> Self {
        Self { visible: rows.clone(), synced: rows, unsynced: Vec::new(), token: None }
    }
}

/// The disk of one node. A process that opens it after a crash gets it by another handle.
#[derive(Default)]
pub struct Disk(Mutex<State>);

/// What a loss of power left.
pub struct Crash {
    /// Number of the last batch that is there.
    pub kept: u64,
    /// Batches that are gone.
    pub lost: usize,
    /// Whether the first of them was cut in the middle.
    pub torn: bool,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a history has one thread")
    }

    pub fn tables(&self) -> Tables {
        self.state().visible.clone()
    }

    /// A disk that holds this, and fails in nothing. What is not synced yet is so with the first
    /// sync of the process that opens it.
    pub fn new(image: &Image) -> Self {
        let Image { visible, synced, unsynced, token } = image.clone();
        let unsynced = unsynced.into_iter().map(|batch| Written { number: 0, batch }).collect();
        Self(Mutex::new(State { visible, synced, unsynced, token, ..State::default() }))
    }

    pub fn image(&self) -> Image {
        let state = self.state();
        Image {
            visible: state.visible.clone(),
            synced: state.synced.clone(),
            unsynced: state.unsynced.iter().map(|written| written.batch.clone()).collect(),
            token: state.token.clone(),
        }
    }

    /// Number of the last batch that shows.
    pub fn shown(&self) -> u64 {
        self.state().shown
    }

    /// Number of the last batch, which may show or not.
    pub fn number(&self) -> u64 {
        self.state().number
    }

    /// Whether a crash can take nothing back of what shows, but aids that nobody was promised.
    pub fn is_synced(&self) -> bool {
        let state = self.state();
        let aid = |batch: &Batch| {
            batch.iter().all(|(table, ..)| {
                matches!(table, Table::Lost | Table::Joins | Table::Values | Table::Witness)
            })
        };
        state.unsynced.iter().all(|one| one.number > state.shown || aid(&one.batch))
    }

    pub fn is_sick(&self) -> bool {
        self.state().refuses
    }

    /// Whether it says, or has said, more than is true.
    pub fn lies(&self) -> bool {
        let state = self.state();
        state.lies || state.owes
    }

    pub fn lie(&self, lies: bool) {
        self.state().lies = lies;
    }

    pub fn break_with(&self, fault: WriteFault) {
        self.state().fault = Some(fault);
    }

    pub fn has_fault(&self) -> bool {
        self.state().fault.is_some()
    }

    /// Everything is well from now on.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.lies) = (None, false);
    }

    /// The power goes: what was not synced is there up to some byte.
    pub fn crash(&self, dice: &mut Dice) -> Crash {
        let mut state = self.state();
        let bytes: usize = state.unsynced.iter().map(|written| written.batch.bytes()).sum();
        let keep = match dice.below(4) {
            0 => bytes,
            1 => 0,
            _ => dice.below(bytes + 1),
        };
        let (mut whole, mut used) = (0, 0);
        for written in &state.unsynced {
            used += written.batch.bytes();
            if used > keep {
                break;
            }
            whole += 1;
        }
        let all = std::mem::take(&mut state.unsynced);
        let torn = whole < all.len() && keep > 0 && used - all[whole].batch.bytes() < keep;
        let mut rows = state.synced.clone();
        for written in &all[..whole] {
            rows.write(&written.batch);
        }
        let last = whole.checked_sub(1).map(|at| all[at].number);
        let kept =
            last.unwrap_or_else(|| all.first().map_or(state.number, |first| first.number - 1));
        *state = State {
            visible: rows.clone(),
            synced: rows,
            number: state.number,
            shown: kept,
            token: state.token.take(),
            ..State::default()
        };
        Crash { kept, lost: all.len() - whole, torn }
    }

    /// The rows of a backup, put in place of those that are there. What a clean close left stays
    /// where it is: no backup holds it.
    pub fn restore(&self, rows: Tables) {
        let mut state = self.state();
        state.number += 1;
        *state = State {
            visible: rows.clone(),
            synced: rows,
            number: state.number,
            shown: state.number,
            token: state.token.take(),
            ..State::default()
        };
    }

    pub fn token(&self) -> Option<Vec<u8>> {
        self.state().token.clone()
    }

    /// Changes a row, wherever it lies. All that was written is on disk by then.
    pub fn rot(&self, table: Table, key: &[u8], value: Arc<[u8]>) {
        let mut state = self.state();
        state.visible.set(table, key, Some(value));
        state.synced = state.visible.clone();
        state.unsynced.clear();
    }

    pub fn sync(&self) {
        let mut state = self.state();
        if !state.lies && !state.refuses {
            state.synced = state.visible.clone();
            state.unsynced.clear();
        }
        state.owes = state.lies && !state.unsynced.is_empty();
    }
}

impl State {
    fn refusal(&self) -> Result<(), StoreError> {
        if self.refuses { Err(StoreError::Refusing("a write failed".into())) } else { Ok(()) }
    }
}

impl Read for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.state().visible.get(table, key)
    }

    fn scan(&self, span: Span<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.state().visible.scan(span, limit)
    }
}

impl Store for Disk {
    type Snapshot = Tables;

    fn snapshot(&self) -> Result<Tables, StoreError> {
        Ok(self.tables())
    }

    fn apply(&self, batch: Batch) -> Result<CommitNumber, StoreError> {
        let mut state = self.state();
        state.refusal()?;
        match state.fault {
            Some(WriteFault::Full(left)) => {
                state.fault = left.checked_sub(1).map(WriteFault::Full);
                if state.fault.is_some() {
                    return Err(StoreError::Full);
                }
            }
            Some(WriteFault::Fails(0)) => {
                state.fault = None;
                state.refuses = true;
                state.number += 1;
                let number = state.number;
                state.unsynced.push(Written { number, batch });
                return Err(StoreError::Io("the write failed".into()));
            }
            Some(WriteFault::Fails(left)) => state.fault = Some(WriteFault::Fails(left - 1)),
            Some(WriteFault::SyncFails(_)) | None => {}
        }
        state.number += 1;
        state.shown = state.number;
        state.visible.write(&batch);
        let number = state.number;
        state.unsynced.push(Written { number, batch });
        Ok(CommitNumber(number))
    }

    fn settle(&self, number: CommitNumber, durability: Durability) -> Result<(), StoreError> {
        if durability != Durability::Always {
            return Ok(());
        }
        let mut state = self.state();
        if state.unsynced.first().is_none_or(|first| first.number > number.0) {
            return Ok(());
        }
        state.refusal()?;
        match state.fault {
            Some(WriteFault::SyncFails(0)) => {
                state.fault = None;
                state.refuses = true;
                return Err(StoreError::Io("the sync failed".into()));
            }
            Some(WriteFault::SyncFails(left)) => {
                state.fault = Some(WriteFault::SyncFails(left - 1));
            }
            _ => {}
        }
        drop(state);
        self.sync();
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, sync_interval_ms: 10 }
    }

    fn take_token(&self) -> Option<Vec<u8>> {
        self.state().token.take()
    }

    fn leave_token(&self, token: &[u8]) {
        self.state().token = Some(token.to_vec());
    }
}
