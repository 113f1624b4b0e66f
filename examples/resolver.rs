//! A resolver of one's own: how concurrent versions of a key are read, in a library.
//!
//! Two replicas in memory part, both write the same keys, and exchange what the other has not
//! seen. Both then show the same, without a further write.
//!
//! ```sh
//! cargo run --no-default-features --features session --example resolver
//! ```

use std::error::Error;
use std::sync::Arc;

use selfsame::replica::{
    Collection, CollectionView as _, IncomingSibling, KeyUpdate, Replica, ReplicaOptions,
};
use selfsame::resolve::{Candidate, ResolveError, Resolver, Resolvers, Violation};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key};

const NOW: u64 = 1_700_000_000_000;

/// Stock of a warehouse: of two counts the lower one is shown, since selling what is not there
/// is the worse mistake.
///
/// It looks at the versions and at nothing else, and the order in which they come makes no
/// difference. Whoever changes what it gives must give it another version, for the collections
/// that use it say in their root by which they are read.
struct LowestStock;

/// A count in text, of at most 9 digits.
fn count(version: &Candidate<'_>) -> Result<u32, ResolveError> {
    let text = std::str::from_utf8(version.value).ok().filter(|text| text.len() <= 9);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        ResolveError::NotMergeable(format!("version {} is no count of pieces", version.dot))
    })
}

impl Resolver for LowestStock {
    fn name(&self) -> &str {
        "lowest-stock"
    }

    fn version(&self) -> u32 {
        1
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        let counts = versions.iter().map(count).collect::<Result<Vec<_>, _>>()?;
        let lowest = counts.into_iter().min().unwrap_or_default();
        Ok(lowest.to_string().into_bytes())
    }

    /// Asked when a session brings a version beside others: what it says is reported.
    fn check(&self, key: &Key, versions: &[Candidate<'_>]) -> Result<(), Violation> {
        let counts: Vec<u32> = versions.iter().filter_map(|version| count(version).ok()).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        match least.zip(most) {
            Some((least, most)) if most - least > 100 => {
                Err(Violation(format!("the counts of {key} are {least} and {most}: count again")))
            }
            _ => Ok(()),
        }
    }
}

type Stock = Arc<Collection<MemoryStore>>;

fn warehouse(seed: u64) -> Result<Stock, Box<dyn Error>> {
    let mut number = seed;
    let random = Box::new(move || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
        number // the system's, in earnest
    });
    let resolvers = Resolvers::built_in().with(LowestStock);
    let options = ReplicaOptions { resolvers, ..ReplicaOptions::default() };
    let replica = Replica::open(MemoryStore::default(), options, random)?;
    Ok(replica.create_collection(CollectionSpec {
        name: CollectionName::new("stock")?,
        algorithm: Default::default(),
        policy: "lowest-stock@1".parse()?,
    })?)
}

/// Gives one key to another replica; a session does this, and much more: see `two_cores`.
fn give(key: &Key, from: &Stock, to: &Stock) -> Result<(), Box<dyn Error>> {
    let Some(entry) = from.get(key)? else { return Ok(()) };
    let key_hash = from.key_hash(key);
    let mut add = Vec::new();
    for &sibling in entry.record.siblings() {
        add.push(IncomingSibling { sibling, value: from.value(&key_hash, &sibling.value_hash)? });
    }
    let update = KeyUpdate { key: Some(key.clone()), key_hash, add, remove: Vec::new() };
    let epoch = to.snapshot()?.epoch();
    let outcomes = to.apply(vec![update], epoch, NOW)?;
    for (key, incident) in outcomes.into_iter().flat_map(|outcome| outcome.incidents) {
        println!("  {key}: {incident:?}");
    }
    Ok(())
}

fn shown(stock: &Stock, key: &Key) -> Result<String, Box<dyn Error>> {
    let reading = stock.read(key)?.ok_or("nothing is held")?;
    Ok(match reading.merged {
        Some(Ok(merged)) => String::from_utf8_lossy(&merged).into_owned(),
        Some(Err(why)) => format!("{} versions; {why}", reading.versions.len()),
        None => {
            let value = reading.versions.first().and_then(|version| version.value.clone());
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let (berlin, oslo) = (warehouse(1)?, warehouse(2)?);
    let screws = Key::new("screws")?;
    berlin.put(&screws, *b"120", NOW)?;
    oslo.put(&screws, *b"17", NOW + 5)?;

    println!("both learn of the other's count:");
    give(&screws, &berlin, &oslo)?;
    give(&screws, &oslo, &berlin)?;
    for (name, stock) in [("berlin", &berlin), ("oslo", &oslo)] {
        println!("{name} shows {}", shown(stock, &screws)?);
        assert_eq!(shown(stock, &screws)?, "17");
    }
    assert_eq!(berlin.root()?, oslo.root()?, "reading has written nothing");

    // whoever writes on, having seen both, replaces both
    let read = berlin.read(&screws)?.ok_or("it was put")?.dots;
    berlin.put_exactly(&screws, *b"16", &read, NOW + 10)?;
    assert_eq!(shown(&berlin, &screws)?, "16");
    assert!(!berlin.read(&screws)?.ok_or("it was put")?.conflict);
    println!("berlin wrote 16 in place of both");

    // what cannot be merged is shown as it is
    let nails = Key::new("nails")?;
    berlin.put(&nails, *b"many", NOW)?;
    oslo.put(&nails, *b"3", NOW)?;
    give(&nails, &oslo, &berlin)?;
    println!("nails in berlin: {}", shown(&berlin, &nails)?);
    Ok(())
}
