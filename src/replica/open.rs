//! Opening a replica over a store, and its collections.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::clock::{ClockAhead, Stamp};
use crate::dots::{Causality, Dot, DotRun, DotSet, Writer};
use crate::limits::Limits;
use crate::merkle::{Envelope, PagedTree};
use crate::resolve::Resolvers;
use crate::store::{Batch, CommitNumber, Durability, Read, Row, Span, Store, StoreError, Table};
use crate::types::{CollectionName, CollectionSpec};

use super::ReplicaError;
use super::collection::{Collection, Live, Node, PresentWriter, State};
use super::common::CommonStates;
use super::group::Group;
use super::list::DamagedRow;
use super::loaded::LoadedPages;
use super::lost::Losses;
use super::marks::OwnWriter;
use super::mend;
use super::pages::ReadError;
use super::reading::Resolution;
use super::restore;
use super::rows::{
    CollectionId, ContextSum, Head, context_sum, key_tail, read_collection, read_counter,
    read_page, write_collection,
};
use super::scrub::Scrubbing;
use super::sketching::KeptSketches;
use super::token::{self, WriterToken};

/// Rows read at once.
const CHUNK: usize = 4_096;
/// Rows of an earlier restore that an opening removes.
const SWEPT_ROWS: usize = 16_384;

/// Source of random numbers: the operating system's in earnest, a seeded one in simulations.
/// Writers are drawn from it, so two replicas must never have the same.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// How a replica is opened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReplicaOptions {
    /// Its limits.
    pub limits: Limits,
    /// How durable a change is before it is answered for. Joins are always synced.
    pub durability: Durability,
    /// Most leaves of a page on disk, 1 to 4,096, for collections created from now on.
    pub page_leaves: u16,
    /// Those that collections of a custom policy may name.
    pub resolvers: Resolvers,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            durability: Durability::Always,
            page_leaves: 64,
            resolvers: Resolvers::built_in(),
        }
    }
}

/// Collections over one store, and the clock they share.
///
/// Opening reads page rows and contexts, never entries, unless page rows rotted: then they are
/// written again from the entries, if those have the root of the last commit. What does not fit
/// together otherwise is damage of that collection, which can be recovered (rule D10), while the
/// others go on.
pub struct Replica<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) node: Arc<Node>,
    pub(super) page_leaves: u16,
    pub(super) collections: RwLock<BTreeMap<CollectionName, Arc<Collection<S>>>>,
    pub(super) damaged: RwLock<Vec<DamagedRow>>,
    pub(super) creating: Mutex<()>,
    /// Numbers under which a restore writes now.
    pub(super) restoring: Mutex<BTreeSet<CollectionId>>,
}

impl<S: Store> Replica<S> {
    /// Opens all collections of a store. No writer is drawn before the first put, and a writer of
    /// an earlier opening is resumed only if a clean [`close`](Self::close) left it (rule D1).
    ///
    /// # Errors
    /// The store failed. A collection that is damaged is no error here: it says so when asked.
    pub fn open(store: S, options: ReplicaOptions, random: Random) -> Result<Self, ReplicaError> {
        let store = Arc::new(store);
        let page_leaves = options.page_leaves.clamp(1, 4_096);
        let node = Arc::new(Node::new(options, random));
        let mut left = token::take(&*store);
        // all of it another time, if it is much: opening is to be quick. A store that takes no
        // writes can be read all the same
        let _ = restore::sweep(&*store, &BTreeSet::new(), SWEPT_ROWS);
        let (mut collections, mut damaged) = (BTreeMap::new(), Vec::new());
        let mut numbers = BTreeSet::new();
        for row in store.scan(Span::of(Table::Collections, &[]), usize::MAX)? {
            let (id, spec) = match read_collection(&row.key, &row.value) {
                Ok((id, spec)) if numbers.insert(id) => (id, spec),
                Ok(_) => {
                    damaged.push(DamagedRow::new(row, "it has the number of another"));
                    continue;
                }
                Err(error) => {
                    damaged.push(DamagedRow::new(row, error));
                    continue;
                }
            };
            let name = spec.name.clone();
            let collection = Collection::load(&store, &node, id, spec)?;
            if let Some(left) = left.remove(&id) {
                collection.resume_writer(&left)?;
            }
            collections.insert(name, Arc::new(collection));
        }
        let (collections, damaged) = (RwLock::new(collections), RwLock::new(damaged));
        let (creating, restoring) = Default::default();
        Ok(Self { store, node, page_leaves, collections, damaged, creating, restoring })
    }

    /// Creates a collection, or returns the one that exists with just these settings.
    ///
    /// # Errors
    /// One of this name exists with other settings, or is damaged; the policy names a resolver
    /// that is not known here; or the store failed.
    pub fn create_collection(
        &self,
        spec: CollectionSpec,
    ) -> Result<Arc<Collection<S>>, ReplicaError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let existing = self.collection(&spec.name);
        if let Err(error @ ReplicaError::Damaged { .. }) = existing {
            return Err(error);
        }
        if let Ok(existing) = existing {
            if *existing.spec() == spec {
                return Ok(existing);
            }
            return Err(ReplicaError::other_spec(existing.spec(), &spec));
        }
        self.node.resolvers.of(&spec.policy)?;
        let id = self.fresh_id()?;
        let head = Head::first(&spec, self.page_leaves)?;
        let mut batch = Batch::default();
        batch.put(Table::Collections, spec.name.as_bytes(), &write_collection(id, &spec));
        batch.put(Table::Heads, &id.head(), &head.to_row());
        self.store.commit(batch, Durability::Always)?;
        let name = spec.name.clone();
        let collection = Arc::new(Collection::load(&self.store, &self.node, id, spec)?);
        self.collections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Arc::clone(&collection));
        Ok(collection)
    }

    /// Closes cleanly: syncs everything, and leaves the present writers to the next opening of
    /// this store where the store can keep them apart from its copies (rule D1's exception).
    /// Without it each opening that writes draws a fresh writer, and contexts grow by 16 bytes.
    /// A put after this draws a fresh writer too.
    ///
    /// # Errors
    /// The store failed; then no writer is left.
    pub fn close(&self) -> Result<(), ReplicaError> {
        let mut left = Vec::new();
        for collection in self.collections() {
            left.extend(collection.part_with_writer()?);
        }
        left.sort_unstable_by_key(|token| token.collection);
        token::leave(&*self.store, &left);
        Ok(())
    }

    /// All collections, by name.
    #[must_use]
    pub fn collections(&self) -> Vec<Arc<Collection<S>>> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.values().cloned().collect()
    }

    /// The collection of this name.
    ///
    /// # Errors
    /// There is none, or its row in the list of collections is damaged.
    pub fn collection(&self, name: &CollectionName) -> Result<Arc<Collection<S>>, ReplicaError> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.get(name).cloned().ok_or_else(|| self.missing(name))
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// The greatest stamp that the node's clock has seen or given.
    #[must_use]
    pub fn clock(&self) -> Stamp {
        self.node.clock().seen()
    }

    /// Refuses local puts from now on, because most peers find this node's clock ahead, or takes
    /// them again. Deletes have no stamps and go on. What was said before.
    pub fn set_clock_ahead(&self, ahead: Option<ClockAhead>) -> Option<ClockAhead> {
        std::mem::replace(&mut *self.node.clock_ahead(), ahead)
    }

    /// Why local puts are refused, if they are.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<ClockAhead> {
        self.node.clock_ahead().clone()
    }

    /// Local puts refused for that, since this replica was opened.
    #[must_use]
    pub fn puts_refused(&self) -> u64 {
        self.node.puts_refused()
    }

    /// Limits of this replica.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.node.limits
    }
}

impl<S: Store> Collection<S> {
    pub(super) fn load(
        store: &Arc<S>,
        node: &Arc<Node>,
        id: CollectionId,
        spec: CollectionSpec,
    ) -> Result<Self, StoreError> {
        let mut state = load_state(&**store, node, id, &spec)?;
        if let State::Damaged { .. } = &state
            && mend::rebuild_pages(&**store, id, &spec)?
        {
            state = load_state(&**store, node, id, &spec)?;
        }
        let (store, node) = (Arc::clone(store), Arc::clone(node));
        let changes = AtomicU64::new(0);
        let losses = Arc::new(Losses::new(Arc::clone(&store), id));
        let resolution = Resolution::of(&spec.policy, &node.resolvers);
        Ok(Self {
            id,
            spec,
            store,
            node,
            state: Mutex::new(state),
            changes,
            losses,
            scrub: Scrubbing::default(),
            group: Group::default(),
            certificates: Mutex::default(),
            told: Mutex::default(),
            resolution,
            next_report: Mutex::new(None),
            replaced: AtomicBool::new(false),
        })
    }

    /// Goes on with a writer, if nothing at all has happened since it was left.
    fn resume_writer(&self, left: &WriterToken) -> Result<(), StoreError> {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return Ok(()) };
        let PresentWriter { writer, counter, .. } = left.present;
        let stands =
            token::head_hash(&live.head) == left.head && live.causality.counter(writer) == counter;
        let Some(last) = Dot::of(writer, counter).filter(|_| stands) else { return Ok(()) };
        let last = self.id.dot(last);
        let prefix = self.id.writer_dots(writer);
        let above = self
            .store
            .scan_keys(Span::of(Table::Dots, &prefix).start_at(Bound::Excluded(&last)), 1)?;
        if above.is_empty() && live.causality.exceptions().runs_of(writer).next().is_none() {
            live.writer.resume(left.present);
        }
        Ok(())
    }

    /// Lets the present writer go, to be left for the next opening; none if there is none.
    /// Everything is synced then.
    fn part_with_writer(&self) -> Result<Option<WriterToken>, ReplicaError> {
        let (token, number) = {
            let mut state = self.lock();
            let State::Live(live) = &mut *state else { return Ok(None) };
            let head = token::head_hash(&live.head);
            let present = live.writer.close();
            let token = present.map(|present| WriterToken { collection: self.id, present, head });
            (token, live.number)
        };
        self.store.settle(number, Durability::Always)?;
        Ok(token)
    }
}

/// The live state from the rows, or what is damaged in them.
pub(super) fn load_state(
    store: &impl Read,
    node: &Node,
    id: CollectionId,
    spec: &CollectionSpec,
) -> Result<State, StoreError> {
    let head = match read_head(store, id) {
        Ok(head) => head,
        Err(ReadError::Store(error)) => return Err(error),
        // no session of an earlier process is in flight: any epoch will do that no join record has
        Err(error) => {
            let what = error.what();
            return Ok(State::Damaged { what, epoch: node.random_nonzero() >> 1 });
        }
    };
    node.resume_clock(head.clock);
    let epoch = head.epoch;
    match load_live(store, id, spec, node, head) {
        Ok(live) => Ok(State::Live(Box::new(live))),
        Err(ReadError::Store(error)) => Err(error),
        Err(error) => Ok(State::Damaged { what: error.what(), epoch }),
    }
}

fn load_live(
    store: &impl Read,
    id: CollectionId,
    spec: &CollectionSpec,
    node: &Node,
    head: Head,
) -> Result<Live, ReadError> {
    if head.recovering {
        return Err(ReadError::damaged("an earlier recovery was cut short"));
    }
    let tree = load_tree(store, id, spec, head.page_leaves)?;
    let envelope = Envelope::new(spec.clone(), tree.tree_hash(), tree.totals());
    if envelope.map(|envelope| envelope.root()).ok() != Some(head.root) {
        return Err(ReadError::damaged("its page rows do not have its root"));
    }
    let (causality, sum) = load_causality(store, id)?;
    if sum != head.context_sum {
        return Err(ReadError::damaged("its context rows do not have their checksum"));
    }
    Ok(Live {
        tree,
        loaded: LoadedPages::new(Arc::clone(&node.loaded_pages)),
        sketches: KeptSketches::new(Arc::clone(&node.sketch_bytes)),
        causality: Arc::new(causality),
        writer: OwnWriter::default(),
        head,
        log: None,
        number: CommitNumber::default(),
        context_hash: None,
        common: CommonStates::default(),
        stale: None,
    })
}

pub(super) fn read_head(store: &impl Read, id: CollectionId) -> Result<Head, ReadError> {
    let row = store.get(Table::Heads, &id.head())?;
    let row = row.ok_or_else(|| ReadError::damaged("its head is missing"))?;
    Head::parse(&row).map_err(|error| ReadError::row("its head", &error))
}

pub(super) fn load_tree(
    store: &impl Read,
    id: CollectionId,
    spec: &CollectionSpec,
    page_leaves: u16,
) -> Result<PagedTree, ReadError> {
    let mut pages = Vec::new();
    for_each_row(store, Table::Pages, &id.prefix(), |row| {
        let page = read_page(&row.key, &row.value);
        pages.push(page.map_err(|error| ReadError::row("a page row", &error))?);
        Ok(())
    })?;
    PagedTree::from_rows(spec.algorithm, usize::from(page_leaves), pages)
        .map_err(|error| ReadError::damaged(error.to_string()))
}

/// The context as its rows say, and their sum.
pub(super) fn load_causality(
    store: &impl Read,
    id: CollectionId,
) -> Result<(Causality, ContextSum), ReadError> {
    let mut sum: ContextSum = 0;
    let mut context = BTreeMap::new();
    let mut exceptions = DotSet::default();
    for_each_row(store, Table::Context, &id.prefix(), |row| {
        let broken = || ReadError::damaged("a context row does not parse");
        sum = sum.wrapping_add(context_sum(&row.key, &row.value));
        let last = read_counter(&row.value).map_err(|_| broken())?;
        let number = |tail: [u8; 8]| Writer::new(u64::from_be_bytes(tail)).ok_or_else(broken);
        match row.key.get(4..).unwrap_or_default() {
            [0, writer @ ..] => {
                let writer = number(key_tail(writer).map_err(|_| broken())?)?;
                context.insert(writer, last);
            }
            [1, run @ ..] => {
                let run = u128::from_be_bytes(key_tail(run).map_err(|_| broken())?);
                let writer = Writer::new((run >> 64) as u64).ok_or_else(broken)?;
                exceptions.insert_run(DotRun::new(writer, run as u64, last).ok_or_else(broken)?);
            }
            _ => return Err(broken()),
        }
        Ok(())
    })?;
    let causality = Causality::from_parts(context, exceptions)
        .map_err(|error| ReadError::damaged(error.to_string()))?;
    Ok((causality, sum))
}

/// Walks over the rows of a prefix, some at a time.
pub(super) fn for_each_row(
    store: &impl Read,
    table: Table,
    prefix: &[u8],
    mut visit: impl FnMut(Row) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut last: Option<Box<[u8]>> = None;
    loop {
        let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = store.scan(Span::of(table, prefix).start_at(start), CHUNK)?;
        let Some(row) = rows.last() else { return Ok(()) };
        last = Some(row.key.clone());
        for row in rows {
            visit(row)?;
        }
    }
}

impl Head {
    /// The head of a collection that holds nothing.
    fn first(spec: &CollectionSpec, page_leaves: u16) -> Result<Self, ReplicaError> {
        let empty = PagedTree::new(spec.algorithm, usize::from(page_leaves));
        let envelope = Envelope::new(spec.clone(), empty.tree_hash(), empty.totals())
            .map_err(|error| ReadError::damaged(error.to_string()).of(&spec.name))?;
        Ok(Self::new(envelope.root(), page_leaves))
    }
}
