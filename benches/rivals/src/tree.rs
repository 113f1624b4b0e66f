//! Merkle trees: what one costs to build, change, prove from and keep.
//!
//! All get the same keys and values, 32 bytes each (in selfsame: key hash and record digest), and
//! each is used through its own public API, with the hash that it brings.

mod ours;
mod theirs;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::error::RivalsError;
use crate::measure::{median, ns_each, resident_bytes, timed};
use crate::table::{Cell, Table};

/// Changes one by one, and proofs, in a repetition.
const SINGLES: usize = 1_000;
/// Changes in a batch.
const BATCH: usize = 10_000;
/// A build that takes longer is measured once.
const LONG_BUILD: Duration = Duration::from_secs(3);

/// Trees: build, update, batch, prove, verify, proof bytes, memory
#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of leaves; of 10000000 jmt takes 16 GB
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    n: Vec<usize>,
    /// Repetitions; the median counts
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    /// Folder for tree.csv
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Builds one tree and prints the memory that it takes, in bytes
#[derive(Args)]
pub(crate) struct WeighArguments {
    #[arg(value_enum)]
    kind: Kind,
    n: usize,
}

/// Which tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// selfsame's tree in memory, BLAKE3
    Selfsame,
    /// selfsame's tree in memory, SHA-256
    SelfsameSha,
    /// selfsame's tree over pages, all in memory, BLAKE3
    Paged,
    /// rs_merkle, SHA-256
    RsMerkle,
    /// merkle-search-tree, SipHash-2-4 of 128 bits
    Mst,
    /// jmt, SHA-256, its own store in memory
    Jmt,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Selfsame, Self::SelfsameSha, Self::Paged, Self::RsMerkle, Self::Mst, Self::Jmt];

    const fn label(self) -> &'static str {
        match self {
            Self::Selfsame => "selfsame Tree, BLAKE3",
            Self::SelfsameSha => "selfsame Tree, SHA-256",
            Self::Paged => "selfsame PagedTree, BLAKE3",
            Self::RsMerkle => "rs_merkle, SHA-256",
            Self::Mst => "merkle-search-tree, SipHash",
            Self::Jmt => "jmt, SHA-256",
        }
    }

    fn cost(self, n: usize, reps: usize) -> Result<Cost, RivalsError> {
        match self {
            Self::Selfsame => cost::<ours::Whole>(n, reps),
            Self::SelfsameSha => cost::<ours::WholeSha>(n, reps),
            Self::Paged => cost::<ours::Paged>(n, reps),
            Self::RsMerkle => cost::<theirs::RsMerkle>(n, reps),
            Self::Mst => cost::<theirs::Mst>(n, reps),
            Self::Jmt => cost::<theirs::Jmt>(n, reps),
        }
    }

    fn memory(self, n: usize) -> Option<u64> {
        match self {
            Self::Selfsame => memory::<ours::Whole>(n),
            Self::SelfsameSha => memory::<ours::WholeSha>(n),
            Self::Paged => memory::<ours::Paged>(n),
            Self::RsMerkle => memory::<theirs::RsMerkle>(n),
            Self::Mst => memory::<theirs::Mst>(n),
            Self::Jmt => memory::<theirs::Jmt>(n),
        }
    }
}

/// A key and its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Pair {
    key: [u8; 32],
    value: [u8; 32],
}

/// A tree under measurement.
trait Contender: Sized {
    /// Whose it is, for errors.
    const WHO: &'static str;
    /// Whether a leaf can be changed, other than by building anew.
    const CHANGES: bool = true;
    /// A proof that a key is there, or is not.
    type Proof;

    /// The tree of these, ascending by key; its root is known afterwards.
    fn build(pairs: &[Pair]) -> Result<Self, RivalsError>;

    /// The root now.
    fn root(&mut self) -> Vec<u8>;

    /// Changes leaves all at once and computes the root.
    fn change(&mut self, pairs: &[Pair]) -> Result<(), RivalsError>;

    /// A proof of what the tree says of a key; none when it cannot prove that.
    fn prove(&self, key: &[u8; 32]) -> Option<Self::Proof>;

    /// Whether the proof shows the value under the key, or that there is none.
    fn verify(
        &self,
        root: &[u8],
        proof: &Self::Proof,
        key: &[u8; 32],
        value: Option<&[u8; 32]>,
    ) -> bool;

    /// The proof as it would travel.
    fn serialised(proof: &Self::Proof) -> Vec<u8>;
}

/// Nanoseconds for each, and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    build: f64,
    update: Option<f64>,
    batch: Option<f64>,
    prove: Option<f64>,
    verify: Option<f64>,
    proof_bytes: Option<f64>,
    absent_bytes: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), RivalsError> {
    let mut table = Table::new(
        "tree",
        &[
            "leaves",
            "tree",
            "build",
            "ratio",
            "update + root",
            "ratio",
            "batch of 10k",
            "ratio",
            "prove",
            "ratio",
            "verify",
            "ratio",
            "proof B",
            "absence B",
            "RAM B",
        ],
    );
    let bar = ProgressBar::new((arguments.n.len() * arguments.only.len()) as u64);
    for &n in &arguments.n {
        let mut first = None;
        for &kind in &arguments.only {
            bar.println(format!("{n} leaves: {}", kind.label()));
            let cost = kind.cost(n, arguments.reps.max(1))?;
            let memory = weigh_apart(kind, n)?;
            table.push(row(n, kind, &cost, first.get_or_insert(cost), memory));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    table.give(arguments.out.as_deref())
}

/// Ratios are to the first row of the same size.
fn row(n: usize, kind: Kind, cost: &Cost, first: &Cost, memory: Option<u64>) -> Vec<Cell> {
    let mut row = vec![Cell::count(n as u64), Cell::text(kind.label())];
    for of in [
        |cost: &Cost| Some(cost.build),
        |cost: &Cost| cost.update,
        |cost: &Cost| cost.batch,
        |cost: &Cost| cost.prove,
        |cost: &Cost| cost.verify,
    ] {
        match (of(cost), of(first)) {
            (Some(time), Some(first)) => row.extend([Cell::nanos(time), Cell::ratio(time / first)]),
            _ => row.extend([Cell::none("-"), Cell::none("-")]),
        }
    }
    for bytes in [cost.proof_bytes, cost.absent_bytes] {
        row.push(bytes.map_or(Cell::none("-"), |bytes| Cell::count(bytes.round() as u64)));
    }
    let each = memory.map(|bytes| Cell::count(bytes / n.max(1) as u64));
    row.push(each.unwrap_or(Cell::none("-")));
    row
}

fn pairs(n: usize) -> Vec<Pair> {
    let mut rng = SmallRng::seed_from_u64(n as u64);
    let mut pairs: Vec<Pair> =
        (0..n).map(|_| Pair { key: rng.random(), value: rng.random() }).collect();
    pairs.sort_unstable();
    pairs
}

/// Some of the pairs, with new values.
fn changed(pairs: &[Pair], count: usize, rng: &mut SmallRng) -> Vec<Pair> {
    let pick = |_| Pair { value: rng.random(), ..pairs[rng.random_range(0..pairs.len())] };
    (0..count).map(pick).collect()
}

fn cost<C: Contender>(n: usize, reps: usize) -> Result<Cost, RivalsError> {
    let pairs = pairs(n.max(1));
    let mut rng = SmallRng::seed_from_u64(7);
    let mut builds = Vec::new();
    let (built, time) = timed(|| C::build(black_box(&pairs)));
    let mut tree = built?;
    builds.push(ns_each(time, n));
    for _ in 1..if time > LONG_BUILD { 1 } else { reps } {
        let (built, time) = timed(|| C::build(black_box(&pairs)));
        // the one before goes outside the time
        tree = built?;
        builds.push(ns_each(time, n));
    }
    let mut cost = Cost { build: median(builds), ..Cost::default() };
    proofs(&mut tree, &pairs, reps, &mut cost)?;
    if !C::CHANGES {
        return Ok(cost);
    }
    let before = tree.root();
    let (mut updates, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..reps {
        let changes = changed(&pairs, SINGLES, &mut rng);
        let (done, time) = timed(|| {
            changes.iter().try_for_each(|change| {
                tree.change(std::slice::from_ref(change))?;
                black_box(tree.root());
                Ok::<_, RivalsError>(())
            })
        });
        done?;
        updates.push(ns_each(time, SINGLES));
        let changes = changed(&pairs, BATCH.min(n), &mut rng);
        let (done, time) = timed(|| tree.change(&changes).map(|()| black_box(tree.root())));
        done?;
        batches.push(ns_each(time, changes.len()));
    }
    if tree.root() == before {
        return Err(RivalsError::wrong(C::WHO, "the root is as before the changes"));
    }
    cost.update = Some(median(updates));
    cost.batch = Some(median(batches));
    Ok(cost)
}

/// Proofs of keys that are there, and of some that are not.
fn proofs<C: Contender>(
    tree: &mut C,
    pairs: &[Pair],
    reps: usize,
    cost: &mut Cost,
) -> Result<(), RivalsError> {
    let root = tree.root();
    let mut rng = SmallRng::seed_from_u64(8);
    let picked: Vec<Pair> = (0..SINGLES).map(|_| pairs[rng.random_range(0..pairs.len())]).collect();
    let (mut proving, mut verifying, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..reps {
        let (proofs, time) =
            timed(|| picked.iter().map_while(|pair| tree.prove(&pair.key)).collect::<Vec<_>>());
        if proofs.len() < picked.len() {
            return Ok(()); // it has no proofs
        }
        proving.push(ns_each(time, SINGLES));
        let (sound, time) = timed(|| {
            let pairs = proofs.iter().zip(&picked);
            pairs
                .filter(|(proof, pair)| tree.verify(&root, proof, &pair.key, Some(&pair.value)))
                .count()
        });
        verifying.push(ns_each(time, SINGLES));
        let other = picked.first().map(|pair| pair.key.map(|byte| !byte));
        let false_claim = other
            .zip(proofs.first())
            .is_some_and(|(value, proof)| tree.verify(&root, proof, &picked[0].key, Some(&value)));
        if sound < SINGLES || false_claim {
            return Err(RivalsError::wrong(C::WHO, "its proofs do not say what is so"));
        }
        bytes = proofs.iter().map(|proof| C::serialised(proof).len()).sum();
    }
    cost.prove = Some(median(proving));
    cost.verify = Some(median(verifying));
    cost.proof_bytes = Some(bytes as f64 / SINGLES as f64);
    let absent: Vec<[u8; 32]> = (0..SINGLES).map(|_| rng.random()).collect();
    let proofs: Vec<_> = absent.iter().filter_map(|key| Some((key, tree.prove(key)?))).collect();
    if proofs.len() == absent.len() {
        if !proofs.iter().all(|(key, proof)| tree.verify(&root, proof, key, None)) {
            return Err(RivalsError::wrong(C::WHO, "its proofs of absence do not hold"));
        }
        let bytes: usize = proofs.iter().map(|(_, proof)| C::serialised(proof).len()).sum();
        cost.absent_bytes = Some(bytes as f64 / SINGLES as f64);
    }
    Ok(())
}

/// What the process grows by when it holds the tree, and nothing else is left.
fn memory<C: Contender>(n: usize) -> Option<u64> {
    let before = resident_bytes()?;
    let tree = C::build(&pairs(n)).ok()?;
    let after = resident_bytes()?;
    black_box(&tree);
    Some(after.saturating_sub(before))
}

pub(crate) fn weigh(arguments: &WeighArguments) -> Result<(), RivalsError> {
    if let Some(bytes) = arguments.kind.memory(arguments.n) {
        println!("{bytes}");
    }
    Ok(())
}

/// Weighs in a process of its own, whose allocator gives large blocks back at once: so that what
/// was only needed while building does not count.
fn weigh_apart(kind: Kind, n: usize) -> Result<Option<u64>, RivalsError> {
    let Some(name) = kind.to_possible_value() else { return Ok(None) };
    let program = std::env::current_exe().map_err(RivalsError::io("finding this program"))?;
    let output = std::process::Command::new(program)
        .args(["weigh", name.get_name(), &n.to_string()])
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .map_err(RivalsError::io("weighing a tree"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tree_does_the_work_that_is_measured() -> Result<(), RivalsError> {
        for kind in Kind::ALL {
            let cost = kind.cost(300, 1)?;
            assert!(cost.build > 0.0, "{kind:?}");
            assert_eq!(cost.update.is_some(), kind != Kind::RsMerkle, "{kind:?}");
            assert_eq!(cost.proof_bytes.is_some(), kind != Kind::Mst, "{kind:?}");
            let absence = !matches!(kind, Kind::Mst | Kind::RsMerkle);
            assert_eq!(cost.absent_bytes.is_some(), absence, "{kind:?}");
        }
        Ok(())
    }

    #[test]
    fn our_trees_agree_with_each_other() -> Result<(), RivalsError> {
        let pairs = pairs(500);
        let (mut whole, mut paged) = (ours::Whole::build(&pairs)?, ours::Paged::build(&pairs)?);
        let changes = changed(&pairs, 50, &mut SmallRng::seed_from_u64(1));
        whole.change(&changes)?;
        for change in &changes {
            paged.change(std::slice::from_ref(change))?;
        }
        assert_eq!(whole.root(), paged.root());
        Ok(())
    }

    #[test]
    fn the_same_changes_at_once_or_one_by_one_give_one_root() -> Result<(), RivalsError> {
        fn check<C: Contender>() -> Result<(), RivalsError> {
            let pairs = pairs(500);
            let (mut one, mut other) = (C::build(&pairs)?, C::build(&pairs)?);
            assert_eq!(one.root(), other.root());
            let changes = changed(&pairs, 50, &mut SmallRng::seed_from_u64(1));
            one.change(&changes)?;
            for change in &changes {
                other.change(std::slice::from_ref(change))?;
            }
            assert_eq!(one.root(), other.root(), "{}", C::WHO);
            Ok(())
        }
        check::<theirs::Mst>()?;
        check::<theirs::Jmt>()
    }
}
