//! Bucket sketches: whatever a peer sends of them costs what was planned, and what is named has
//! just the syndromes that were sent.

use arbitrary::Unstructured;
use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, KeyHash, RecordDigest};
use selfsame::merkle::{Leaf, Prefix};
use selfsame::sketch::{
    BucketSketch, Decoder, Layout, Names, Precision, WireNames, WireRefill, WireSketch,
};

/// Entries are read until so many bytes are asked of a sketch.
const MOST_BYTES: usize = 4_096;

/// What a peer may send, and how much is held here.
#[derive(Debug)]
struct Exchange {
    layout: (u8, u8),
    entries: u64,
    ours: u8,
    count: u32,
    names: Vec<u8>,
    capacity: u8,
    refill: Vec<u8>,
    answer: Vec<u8>,
    bits: Vec<u8>,
}

impl Exchange {
    /// Fixed fields first, then three lists with their lengths; everything that is left are
    /// syndromes.
    fn read(input: &[u8]) -> arbitrary::Result<Self> {
        let mut input = Unstructured::new(input);
        let (layout, entries, ours) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
        let (count, capacity) = (input.arbitrary()?, input.arbitrary()?);
        let mut list = || {
            let length = usize::from(input.arbitrary::<u16>()?).min(input.len());
            Ok::<_, arbitrary::Error>(input.bytes(length)?.to_vec())
        };
        let (names, refill, answer) = (list()?, list()?, list()?);
        let bits = input.take_rest().to_vec();
        Ok(Self { layout, entries, ours, count, names, capacity, refill, answer, bits })
    }
}

fn item(number: u64) -> (KeyHash, RecordDigest) {
    let key = HashAlgorithm::Blake3.value_hash(&number.to_le_bytes()).0;
    (KeyHash(key), RecordDigest(HashAlgorithm::Blake3.value_hash(&key).0))
}

/// The input is what one side of a sketch gets, structured.
pub fn check(input: &[u8]) {
    let Ok(exchange) = Exchange::read(input) else { return };
    let Ok(layout) = Layout::try_from(exchange.layout) else { return };
    assert_eq!(<(u8, u8)>::from(layout), exchange.layout);
    if layout.bytes() > MOST_BYTES {
        return;
    }
    let ours = || (0..u64::from(exchange.ours)).map(item);
    let leaves = |prefix: &Prefix| {
        let under = ours().filter(|(key, _)| prefix.contains(key));
        let leaf = |(key, record)| Leaf { key, record, totals: Totals::default() };
        Ok::<Vec<Leaf>, ()>(under.map(leaf).collect())
    };

    let wire = WireNames { count: exchange.count, gaps: exchange.names };
    if let Ok(names) = Names::from_wire(&wire, layout, exchange.entries) {
        assert_eq!(names.to_wire(), wire);
        if names.len() < 64 {
            let named = names.resolve(leaves).expect("leaves");
            assert!(named.is_sorted_by_key(|leaf| leaf.key));
        }
    }

    let mut bits = exchange.bits;
    bits.resize(layout.bytes(), 0);
    let Ok(theirs) = BucketSketch::from_wire(WireSketch { layout, bits: bits.clone() }) else {
        return;
    };
    assert_eq!(theirs.to_bytes(), bits);
    let own = BucketSketch::of_items(layout.all(), ours());
    let mut decoder = Decoder::new(own, &theirs).expect("of one portion");
    assert!(decoder.work() <= 3 * layout.work(), "{} of {}", decoder.work(), layout.work());
    let asked = decoder.refill();
    let wire = WireRefill { capacity: exchange.capacity, failed: exchange.refill };
    if let Ok(portion) = layout.refill(&wire) {
        assert_eq!(portion.to_wire(), wire);
        let answer = BucketSketch::of_items(portion.clone(), ours()).to_bytes();
        assert_eq!(answer.len(), portion.bytes());
        assert!(BucketSketch::from_bytes(portion, &answer).is_ok());
    }
    if let Some(asked) = asked {
        assert_eq!(layout.refill(&asked.to_wire()), Ok(asked.clone()));
        let mut answer = exchange.answer;
        answer.resize(asked.bytes(), 0);
        if let Ok(more) = BucketSketch::from_bytes(asked.clone(), &answer) {
            let own = BucketSketch::of_items(asked, ours());
            decoder.extend(own, &more).expect("what was asked for");
            assert!(decoder.refill().is_none());
        }
    }
    let decoded = decoder.finish();
    let attributed = decoded.attribute(leaves).expect("leaves");
    let names = Names::new(layout, exchange.entries, &attributed.theirs);
    assert!(names.len() <= attributed.theirs.len());
    assert_eq!(Names::from_wire(&names.to_wire(), layout, exchange.entries), Ok(names));
}

/// Inputs from real sketches.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let seeds = [(2, 4, 3, 100), (10, 20, 6, 5_000), (200, 150, 90, 1_000_000)];
    let seeds = seeds.map(|(estimate, ours, theirs, entries): (u64, u8, u64, u64)| {
        let layout = Layout::plan(estimate, Precision::Full, entries).expect("few");
        let theirs = || (u64::from(ours) - 2..u64::from(ours) + theirs).map(item);
        let sketch = BucketSketch::of_items(layout.all(), theirs());
        let own = BucketSketch::of_items(layout.all(), (0..u64::from(ours)).map(item));
        let decoder = Decoder::new(own, &sketch).expect("of one portion");
        let (mut capacity, mut refill, mut answer) = (0, Vec::new(), Vec::new());
        if let Some(asked) = decoder.refill() {
            answer = BucketSketch::of_items(asked.clone(), theirs()).to_bytes();
            WireRefill { capacity, failed: refill } = asked.to_wire();
        }
        let names = Names::new(layout, entries, &decoder.finish().ids).to_wire();
        let (shape, syndromes) = <(u8, u8)>::from(layout);
        let mut seed = vec![shape, syndromes];
        seed.extend(entries.to_le_bytes());
        seed.push(ours);
        seed.extend(names.count.to_le_bytes());
        seed.push(capacity);
        for list in [names.gaps, refill, answer] {
            seed.extend((list.len() as u16).to_le_bytes());
            seed.extend(list);
        }
        seed.extend(sketch.to_bytes());
        seed
    });
    seeds.to_vec()
}
