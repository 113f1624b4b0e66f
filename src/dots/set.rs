//! Sets of dots, kept as runs of counters per writer.

use std::collections::BTreeMap;

use super::{Dot, Writer};

/// A run of dots of one writer: counters `first..=last`, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DotRun {
    /// Who wrote.
    pub writer: Writer,
    /// First counter, at least 1.
    pub first: u64,
    /// Last counter, at least `first`.
    pub last: u64,
}

impl DotRun {
    /// A run; none when it would be empty or begin at zero.
    #[must_use]
    pub const fn new(writer: Writer, first: u64, last: u64) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { writer, first, last }) }
    }

    /// Number of dots.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// What of it comes after a counter; none if nothing does.
    #[must_use]
    pub const fn after(&self, counter: u64) -> Option<Self> {
        let first = if counter < self.first { self.first } else { counter.saturating_add(1) };
        if counter >= self.last { None } else { Self::new(self.writer, first, self.last) }
    }

    /// The dots, ascending.
    pub fn dots(self) -> impl Iterator<Item = Dot> {
        (self.first..=self.last).filter_map(move |counter| Dot::of(self.writer, counter))
    }
}

/// A set of dots as maximal runs: memory is by runs, however many dots they hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct DotSet {
    // writer -> first counter -> last counter; runs neither overlap nor touch
    runs: BTreeMap<Writer, BTreeMap<u64, u64>>,
}

impl DotSet {
    /// Whether there is no dot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of dots, saturating.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs().fold(0, |sum, run| sum.saturating_add(run.count()))
    }

    /// Number of runs.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.values().map(BTreeMap::len).sum()
    }

    /// Whether the dot is in the set. O(log runs).
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.run_around(dot).is_some()
    }

    /// The last counter of the run that holds the dot.
    #[must_use]
    pub fn run_around(&self, dot: Dot) -> Option<DotRun> {
        let runs = self.runs.get(&dot.writer())?;
        let (&first, &last) = runs.range(..=dot.counter()).next_back()?;
        (last >= dot.counter()).then_some(DotRun { writer: dot.writer(), first, last })
    }

    /// The least counter of a dot of the writer in the set, from `counter` on. O(log runs).
    #[must_use]
    pub fn next_from(&self, writer: Writer, counter: u64) -> Option<u64> {
        let runs = self.runs.get(&writer)?;
        match runs.range(..=counter).next_back() {
            Some((_, &last)) if last >= counter => Some(counter),
            _ => runs.range(counter..).next().map(|(&first, _)| first),
        }
    }

    /// Adds a dot; says whether it is new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        if self.contains(dot) {
            return false;
        }
        self.insert_run(DotRun { writer: dot.writer(), first: dot.counter(), last: dot.counter() });
        true
    }

    /// Adds a run, merging what it overlaps or touches.
    pub fn insert_run(&mut self, run: DotRun) {
        let runs = self.runs.entry(run.writer).or_default();
        let (mut first, mut last) = (run.first, run.last);
        while let Some((&start, &end)) = runs.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            runs.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        runs.insert(first, last);
    }

    /// Takes a dot out; says whether it was there.
    pub fn remove(&mut self, dot: Dot) -> bool {
        let Some(run) = self.run_around(dot) else { return false };
        let runs = self.runs.entry(dot.writer()).or_default();
        runs.remove(&run.first);
        if run.first < dot.counter() {
            runs.insert(run.first, dot.counter() - 1);
        }
        if dot.counter() < run.last {
            runs.insert(dot.counter() + 1, run.last);
        }
        self.forget_if_empty(dot.writer());
        true
    }

    /// Takes out all dots of a writer up to and including `counter`.
    pub fn remove_through(&mut self, writer: Writer, counter: u64) {
        let Some(runs) = self.runs.get_mut(&writer) else { return };
        while let Some((&first, &last)) = runs.first_key_value() {
            if first > counter {
                break;
            }
            runs.remove(&first);
            if last > counter {
                runs.insert(counter + 1, last);
            }
        }
        self.forget_if_empty(writer);
    }

    /// Has of a writer the dots that the other set has of it, and no others.
    pub(super) fn set_writer(&mut self, writer: Writer, other: &Self) {
        match other.runs.get(&writer) {
            Some(runs) => self.runs.insert(writer, runs.clone()),
            None => self.runs.remove(&writer),
        };
    }

    /// Adds all dots of the other set.
    pub fn extend(&mut self, other: &Self) {
        for run in other.runs() {
            self.insert_run(run);
        }
    }

    /// The runs, ascending by writer and counter.
    pub fn runs(&self) -> impl Iterator<Item = DotRun> {
        self.runs.iter().flat_map(|(&writer, runs)| {
            runs.iter().map(move |(&first, &last)| DotRun { writer, first, last })
        })
    }

    /// The runs of one writer, ascending.
    pub fn runs_of(&self, writer: Writer) -> impl Iterator<Item = DotRun> {
        self.runs.get(&writer).into_iter().flatten().map(move |(&first, &last)| DotRun {
            writer,
            first,
            last,
        })
    }

    /// The dots, ascending. A set can hold more dots than anyone can walk: mind [`count`](Self::count).
    pub fn iter(&self) -> impl Iterator<Item = Dot> {
        self.runs().flat_map(DotRun::dots)
    }

    /// The writers that have a dot here, ascending.
    pub fn writers(&self) -> impl Iterator<Item = Writer> {
        self.runs.keys().copied()
    }

    fn forget_if_empty(&mut self, writer: Writer) {
        if self.runs.get(&writer).is_some_and(BTreeMap::is_empty) {
            self.runs.remove(&writer);
        }
    }
}

impl FromIterator<Dot> for DotSet {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut set = Self::default();
        for dot in dots {
            set.insert(dot);
        }
        set
    }
}
