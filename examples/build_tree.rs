//! Embeds the Merkle tree alone: builds it, changes it, freezes it and finds where two differ.
//!
//! ```sh
//! cargo run --no-default-features --features tree --example build_tree
//! ```

use std::error::Error;

use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::{Record, Sibling};
use selfsame::hash::HashAlgorithm;
use selfsame::merkle::{Change, Leaf, Prefix, Tree};
use selfsame::types::Key;

const ALGORITHM: HashAlgorithm = HashAlgorithm::Blake3;

/// What the tree holds of an entry: one value, written by one put.
fn leaf(key: &str, value: &[u8], counter: u64) -> Result<Leaf, Box<dyn Error>> {
    let sibling = Sibling {
        dot: Dot::new(1, counter).ok_or("a counter starts at 1")?,
        stamp: Stamp::new(1_700_000_000_000 + counter, 0),
        size: value.len() as u64,
        value_hash: ALGORITHM.value_hash(value),
    };
    let record = Record::new(vec![sibling])?;
    Ok(Leaf {
        key: ALGORITHM.key_hash(&Key::new(key.as_bytes())?),
        record: record.digest(ALGORITHM),
        totals: record.totals(),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let players: Vec<Leaf> = (1..=10_000)
        .map(|number| leaf(&format!("player:{number}"), b"level 1", number))
        .collect::<Result<_, _>>()?;
    let mut tree = Tree::build(ALGORITHM, players.clone());
    println!("{} leaves, depth {}, {}", tree.len(), tree.depth(), tree.tree_hash());

    // one change hashes its own path only; a snapshot does not see it
    let before = tree.snapshot();
    tree.put(leaf("player:17", b"level 2", 10_001)?);
    let guest = leaf("guest", b"", 10_002)?;
    tree.put(guest);
    tree.remove(&guest.key);
    println!("after a put: {}", tree.tree_hash());

    // where do the two differ? the 256 buckets say it
    let (old, new) = (before.bucket_hashes(), tree.bucket_hashes());
    for bucket in
        (0..=255_u8).filter(|&bucket| old[usize::from(bucket)] != new[usize::from(bucket)])
    {
        let prefix = Prefix::new(&[bucket], 8)?;
        println!(
            "bucket {bucket:02x} differs: {} leaves in it",
            tree.leaves_under(&prefix).count()
        );
    }

    // a batch hashes every node on its paths once
    let batch: Vec<Change> = (1..=1_000)
        .map(|number| {
            Ok(Change::Put(leaf(&format!("player:{number}"), b"level 3", 20_000 + number)?))
        })
        .collect::<Result<_, Box<dyn Error>>>()?;
    let applied = tree.apply(&batch);
    println!("batch: {} leaves, {} inner hashes", applied.leaves, applied.inner_hashes);

    // same content, same hash, whatever the way there
    tree.apply(players.into_iter().map(Change::Put).collect::<Vec<_>>());
    assert_eq!(tree.tree_hash(), before.tree_hash());
    println!("back again: {}", tree.tree_hash());
    Ok(())
}
