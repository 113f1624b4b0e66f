//! Finding what differs, and moving it: whole sessions of selfsame beside negentropy.
//!
//! negentropy finds ids. A session of selfsame finds, moves, verifies and signs; so its bytes are
//! told apart by purpose, and what finds is compared with what finds.

mod account;
mod negentropy;
mod plot;
mod session;
mod world;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use selfsame::session::{Strategy, SyncConfig};

use self::account::{Bytes, limit_bytes};
use self::negentropy::Settings;
use self::plot::Plots;
use self::world::{World, differing};
use crate::error::RivalsError;
use crate::measure::median;
use crate::table::{Cell, Table};

/// A cell that is expected to take longer is skipped without --all.
const LONG_CELL: Duration = Duration::from_secs(60);
/// Entries from which two that imported on their own are compared only with --all.
const MANY_APART: usize = 10_000;

/// Differences: sessions of selfsame beside negentropy, by purpose of the bytes
#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of entries
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    n: Vec<usize>,
    /// Numbers of entries that drift, or `all` of them: a third each updated, new, deleted, at
    /// either side
    #[arg(long, value_delimiter = ',', default_value = "0,1,10,100,1000,10000,100000,all")]
    d: Vec<Drift>,
    /// A small grid that takes seconds: up to 10,000 entries, one seed
    #[arg(long, conflicts_with_all = ["n", "d", "seeds"])]
    quick: bool,
    /// Repetitions with other differences; the median of each figure counts
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 32)]
    value_bytes: usize,
    /// Coded symbols that both sides keep
    #[arg(long, default_value_t = 0)]
    kept_symbols: usize,
    /// Measures cells too that take over a minute
    #[arg(long)]
    all: bool,
    /// Folder for find.csv, and find-N.svg for each number of entries
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How many entries drift.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drift {
    Some(usize),
    All,
}

impl FromStr for Drift {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Some)
                .map_err(|_| format!("{number} is neither a number nor `all`")),
        }
    }
}

impl Drift {
    /// How many of `n`; none where that would be all of them or more.
    fn of(self, n: usize) -> Option<usize> {
        match self {
            Self::All => Some(n),
            Self::Some(d) => (d < n).then_some(d),
        }
    }
}

/// What finding, and with selfsame moving, cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cost {
    bytes: Bytes,
    sessions: u64,
    messages: u64,
    /// Messages until what differs was found.
    find_messages: u64,
    /// How often the direction changed until then, and once: 2 are a round trip.
    find_turns: u64,
    /// CPU of each side until what differs was found.
    find_cpu: [Duration; 2],
    /// CPU of each side in all.
    cpu: [Duration; 2],
    /// CPU spent before the first message on what the other keeps up to date all the time.
    prepare: Duration,
    /// Bytes as the sessions counted them: a check of the count here.
    counted_inside: u64,
}

/// A way to find differences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// selfsame, peers that have met: contexts tell.
    Known,
    /// selfsame, one side's context lost after the drift.
    Lost,
    /// selfsame, Merkle descent alone.
    Merkle,
    /// selfsame, filters alone, then descent for what they hid.
    Bloom,
    /// selfsame, a sketch alone, then descent for what it missed.
    Sketch,
    /// selfsame, coded symbols alone, then descent for what they missed.
    Iblt,
    /// selfsame, both imported the same entries on their own: contexts say that all differ.
    Apart,
    /// negentropy, on the same sets.
    Negentropy(Settings),
}

impl Way {
    const ALL: [Self; 11] = [
        Self::Known,
        Self::Lost,
        Self::Sketch,
        Self::Iblt,
        Self::Merkle,
        Self::Bloom,
        Self::Negentropy(Settings { frame: 0, by_time: false }),
        Self::Negentropy(Settings { frame: 60_000, by_time: false }),
        Self::Negentropy(Settings { frame: 0, by_time: true }),
        Self::Negentropy(Settings { frame: 60_000, by_time: true }),
        Self::Apart,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Known => "selfsame, contexts known",
            Self::Lost => "selfsame, one context lost",
            Self::Merkle => "selfsame, Merkle only",
            Self::Bloom => "selfsame, Bloom only",
            Self::Sketch => "selfsame, sketches only",
            Self::Iblt => "selfsame, symbols only",
            Self::Apart => "selfsame, imported apart",
            Self::Negentropy(Settings { frame: 0, by_time: false }) => "negentropy",
            Self::Negentropy(Settings { frame: 0, by_time: true }) => "negentropy, by time",
            Self::Negentropy(Settings { by_time: false, .. }) => "negentropy, 60 kB",
            Self::Negentropy(Settings { by_time: true, .. }) => "negentropy, by time, 60 kB",
        }
    }

    const fn strategy(self) -> Strategy {
        match self {
            Self::Merkle => Strategy::Merkle,
            Self::Bloom => Strategy::Bloom,
            Self::Sketch => Strategy::Sketch,
            Self::Iblt => Strategy::Iblt,
            _ => Strategy::Auto,
        }
    }
}

/// One figure: of how many ids that differ, at what cost.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    ids: u64,
    cost: Cost,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), RivalsError> {
    let mut table = Table::new(
        "find",
        &[
            "n",
            "d",
            "ids",
            "limit B",
            "how",
            "find B",
            "contexts B",
            "of limit",
            "records B",
            "values B",
            "verify B",
            "all B",
            "messages to find",
            "turns to find",
            "messages",
            "find CPU a",
            "find CPU b",
            "CPU a",
            "CPU b",
            "prepare CPU",
        ],
    )
    .hiding(&["messages", "CPU a", "CPU b"]);
    let quick = (vec![1_000, 10_000], [0, 1, 10, 100, 1_000].map(Drift::Some).to_vec(), 1);
    let (sizes, drifts, seeds) = match arguments.quick {
        true => quick,
        false => (arguments.n.clone(), arguments.d.clone(), arguments.seeds.max(1)),
    };
    let of = |n: usize| drifts.iter().filter_map(move |drift| drift.of(n));
    let rounds: u64 = sizes.iter().map(|n| of(*n).count() as u64 * seeds).sum();
    let bar = ProgressBar::new(rounds);
    let mut plots = Plots::default();
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {bar:30} {msg}") {
        bar.set_style(style);
    }
    for n in sizes {
        bar.set_message(format!("{n} entries: importing"));
        let mut world = World::shared(n, arguments.value_bytes, arguments.kept_symbols)?;
        meet(&mut world)?;
        let mut before = [None; Way::ALL.len()];
        for d in of(n) {
            bar.set_message(format!("{n} entries, {d} drift"));
            let wanted = Way::ALL.map(|way| arguments.all || !long(way, n, d, &before));
            let mut samples = vec![Vec::new(); Way::ALL.len()];
            for seed in 1..=seeds {
                let round = Round { n, d, seed, value_bytes: arguments.value_bytes };
                round.measure(&mut world, &wanted, &mut samples)?;
                bar.inc(1);
            }
            for (at, (way, samples)) in Way::ALL.into_iter().zip(&samples).enumerate() {
                let label = match way {
                    Way::Iblt if arguments.kept_symbols > 0 => "selfsame, kept symbols only",
                    _ => way.label(),
                };
                if samples.is_empty() {
                    table.push(skipped(n, d, label));
                    continue;
                }
                let spent = samples.iter().flat_map(|sample| sample.cost.cpu).sum();
                before[at] = Some((d, spent));
                let found = |sample: &Sample| sample.cost.bytes.find + sample.cost.bytes.contexts;
                let ids = median(samples.iter().map(|sample| sample.ids));
                plots.add(n, label, ids, median(samples.iter().map(found)));
                table.push(row(n, d, label, samples));
            }
        }
    }
    bar.finish_and_clear();
    table.give(arguments.out.as_deref())?;
    arguments.out.as_deref().map_or(Ok(()), |folder| plots.give(folder))
}

/// What was measured of a way so far: for how many that drift, and the CPU time.
type Before = Option<(usize, Duration)>;

/// Whether a cell is expected to take over a minute.
fn long(way: Way, n: usize, d: usize, before: &[Before]) -> bool {
    if way == Way::Apart && n > MANY_APART {
        return true;
    }
    let of = Way::ALL.iter().position(|one| *one == way);
    let before = of.and_then(|at| before.get(at).copied().flatten());
    before.is_some_and(|(of, took)| took.mul_f64(d as f64 / of.max(1) as f64) > LONG_CELL)
}

/// One size, one amount of drift, one seed: every way.
#[derive(Clone, Copy, Debug)]
struct Round {
    n: usize,
    d: usize,
    seed: u64,
    value_bytes: usize,
}

impl Round {
    fn measure(
        self,
        world: &mut World,
        wanted: &[bool],
        samples: &mut [Vec<Sample>],
    ) -> Result<(), RivalsError> {
        let Self { d, seed, .. } = self;
        world.warm()?;
        // one drift for all that only look, and for the session that ends it
        let ids = world.drift(d, seed)?;
        let items = [world.nodes[0].items()?, world.nodes[1].items()?];
        let differing = differing(&items[0], &items[1]);
        if differing.iter().map(|ids| ids.len() as u64).sum::<u64>() != ids {
            return Err(RivalsError::wrong("the drift", "it is not what it should be"));
        }
        let ways = Way::ALL.into_iter().zip(wanted).zip(samples);
        let mut ways: Vec<_> =
            ways.filter(|((_, wanted), _)| **wanted).map(|((way, _), to)| (way, to)).collect();
        for (way, samples) in &mut ways {
            if let Way::Negentropy(settings) = way {
                let cost = negentropy::find(*settings, [&items[0], &items[1]], &differing)?;
                samples.push(Sample { ids, cost });
            }
        }
        drop(items);
        for (way, samples) in &mut ways {
            let sample = match way {
                Way::Known => {
                    let cost = session::synchronise(world, &config(Strategy::Auto), seed)?;
                    Sample { ids, cost }
                }
                Way::Negentropy(_) => continue,
                Way::Apart => self.apart()?,
                Way::Lost | Way::Merkle | Way::Bloom | Way::Sketch | Way::Iblt => {
                    self.alone(world, *way)?
                }
            };
            samples.push(sample);
        }
        Ok(())
    }

    fn alone(self, world: &mut World, way: Way) -> Result<Sample, RivalsError> {
        // nothing to do where another way was to end the drift before
        session::synchronise(world, &config(Strategy::Auto), self.seed)?;
        let ids = world.drift(self.d, self.seed)?;
        if way == Way::Lost {
            world.lose_context()?;
        }
        world.warm()?;
        let cost = session::synchronise(world, &config(way.strategy()), self.seed)?;
        if way == Way::Lost {
            meet(world)?;
        }
        Ok(Sample { ids, cost })
    }

    fn apart(self) -> Result<Sample, RivalsError> {
        let mut world = World::apart(self.n, self.value_bytes)?;
        let ids = world.drift(self.d, self.seed)?;
        let cost = session::synchronise(&mut world, &config(Strategy::Auto), self.seed)?;
        Ok(Sample { ids, cost })
    }
}

/// A first session with something in it: from then on both remember what they joined.
fn meet(world: &mut World) -> Result<(), RivalsError> {
    world.drift(1, 0)?;
    session::synchronise(world, &config(Strategy::Auto), 0).map(drop)
}

fn config(strategy: Strategy) -> SyncConfig {
    SyncConfig { strategy, allow_removals: true, ..SyncConfig::default() }
}

fn skipped(n: usize, d: usize, label: &str) -> Vec<Cell> {
    let mut row = vec![Cell::count(n as u64), Cell::count(d as u64)];
    row.extend([Cell::none("-"), Cell::none("-"), Cell::text(label)]);
    row.push(Cell::none("skipped: long"));
    row.resize(20, Cell::none("-"));
    row
}

fn row(n: usize, d: usize, label: &str, samples: &[Sample]) -> Vec<Cell> {
    let of = |figure: &dyn Fn(&Sample) -> u64| median(samples.iter().map(figure));
    let time = |figure: &dyn Fn(&Sample) -> Duration| {
        Cell::nanos(median(samples.iter().map(figure)).as_nanos() as f64)
    };
    let (find, contexts) = (of(&|s| s.cost.bytes.find), of(&|s| s.cost.bytes.contexts));
    let ids = of(&|s| s.ids);
    let limit = limit_bytes(ids);
    vec![
        Cell::count(n as u64),
        Cell::count(d as u64),
        Cell::count(ids),
        Cell::count(limit.ceil() as u64),
        Cell::text(label),
        Cell::count(find),
        Cell::count(contexts),
        Cell::ratio((find + contexts) as f64 / limit),
        Cell::count(of(&|s| s.cost.bytes.records)),
        Cell::count(of(&|s| s.cost.bytes.values)),
        Cell::count(of(&|s| s.cost.bytes.verify)),
        Cell::count(of(&|s| s.cost.bytes.total())),
        Cell::count(of(&|s| s.cost.find_messages)),
        Cell::count(of(&|s| s.cost.find_turns)),
        Cell::count(of(&|s| s.cost.messages)),
        time(&|s| s.cost.find_cpu[0]),
        time(&|s| s.cost.find_cpu[1]),
        time(&|s| s.cost.cpu[0]),
        time(&|s| s.cost.cpu[1]),
        time(&|s| s.cost.prepare),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_makes_both_sides_equal_and_names_the_same_ids() -> Result<(), RivalsError> {
        let mut world = World::shared(600, 16, 0)?;
        meet(&mut world)?;
        for d in [0, 40] {
            let mut samples = vec![Vec::new(); Way::ALL.len()];
            let round = Round { n: 600, d, seed: 1, value_bytes: 16 };
            // sessions that leave replicas unequal, and ids that are not found, are errors
            round.measure(&mut world, &[true; Way::ALL.len()], &mut samples)?;
            world.check_equal()?;
            for (way, samples) in Way::ALL.into_iter().zip(samples) {
                assert_eq!(samples.len(), 1, "{way:?}");
                assert_eq!(samples[0].ids > 0, d > 0, "{way:?}");
                assert!(samples[0].cost.bytes.find > 0, "{way:?}");
                let row = row(600, d, way.label(), &samples);
                assert_eq!(row.len(), skipped(600, d, way.label()).len());
            }
        }
        Ok(())
    }

    #[test]
    fn drift_is_what_it_says() -> Result<(), RivalsError> {
        let mut world = World::shared(600, 16, 0)?;
        // 10 updates differ in two ids each, 10 new ones and 10 deleted ones in one
        assert_eq!(world.drift(30, 1)?, 40);
        let [a, b] = &world.nodes;
        let [ours, theirs] = differing(&a.items()?, &b.items()?);
        assert_eq!(ours.len() + theirs.len(), 40);
        let [a, b] = &World::apart(600, 16)?.nodes;
        assert_eq!(differing(&a.items()?, &b.items()?), [vec![], vec![]] as [Vec<[u8; 32]>; 2]);
        Ok(())
    }

    #[test]
    fn a_cell_that_would_take_over_a_minute_is_left_out() {
        let mut before = [None; Way::ALL.len()];
        assert!(!long(Way::Known, 1_000_000, 10_000, &before));
        before[0] = Some((100, Duration::from_secs(1)));
        assert!(long(Way::Known, 1_000, 10_000, &before));
        assert!(!long(Way::Known, 1_000, 5_000, &before));
        assert!(long(Way::Apart, 100_000, 0, &before));
    }

    #[test]
    fn bytes_are_counted_as_the_session_counts_them() -> Result<(), RivalsError> {
        let mut world = World::shared(300, 16, 0)?;
        world.drift(30, 5)?;
        let cost = session::synchronise(&mut world, &config(Strategy::Merkle), 5)?;
        assert_eq!(cost.bytes.total(), cost.counted_inside);
        Ok(())
    }
}
