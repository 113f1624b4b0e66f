//! Sketches: any filter and any estimator can be used, and says nothing worse than something
//! untrue.

use arbitrary::Unstructured;
use selfsame::dots::Dot;
use selfsame::hash::{HashAlgorithm, RecordDigest};
use selfsame::limits::Limits;
use selfsame::sketch::{BloomFilter, Estimator, FilterSeed, WireFilter};

/// A filter and an estimator as a peer may send them.
#[derive(Debug)]
struct Sketches {
    hashes: u8,
    salts: [u8; 32],
    max_bytes: u16,
    dots: Vec<(u64, u64)>,
    items: u64,
    rate: f64,
    estimator: Vec<u8>,
    bits: Vec<u8>,
}

impl Sketches {
    /// Fixed fields first, then two lists with their lengths; everything that is left are bits.
    fn read(input: &[u8]) -> arbitrary::Result<Self> {
        let mut input = Unstructured::new(input);
        let (hashes, salts) = (input.arbitrary()?, input.arbitrary()?);
        let (max_bytes, items, rate) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
        let dots = (0..input.arbitrary::<u8>()? % 16).map(|_| input.arbitrary());
        let dots = dots.collect::<arbitrary::Result<_>>()?;
        let estimator = usize::from(input.arbitrary::<u16>()?).min(input.len());
        let estimator = input.bytes(estimator)?.to_vec();
        let bits = input.take_rest().to_vec();
        Ok(Self { hashes, salts, max_bytes, dots, items, rate, estimator, bits })
    }
}

/// The input is a set of sketches, structured.
pub fn check(input: &[u8]) {
    let Ok(sketches) = Sketches::read(input) else { return };
    let limits = Limits { max_filter_bytes: usize::from(sketches.max_bytes), ..Limits::default() };
    let seed = FilterSeed::derive(&sketches.salts);
    let dots: Vec<Dot> = sketches.dots.iter().filter_map(|&(w, c)| Dot::new(w, c)).collect();

    let wire = WireFilter { hashes: sketches.hashes, bits: sketches.bits };
    if let Ok(mut filter) = BloomFilter::from_wire(wire.clone(), &seed, &limits) {
        assert!((1..=32).contains(&wire.hashes) && !wire.bits.is_empty());
        assert_eq!(filter.to_wire(), wire);
        for &dot in &dots {
            let _ = filter.contains(dot);
            filter.insert(dot);
            assert!(filter.contains(dot));
        }
        assert!((0.0..=1.0).contains(&filter.false_positive_rate()));
    }

    let mut own = BloomFilter::new(sketches.items, sketches.rate, &seed, &limits);
    dots.iter().for_each(|&dot| own.insert(dot));
    let wire = own.to_wire();
    assert!(wire.bits.len() <= limits.max_filter_bytes.max(1), "{} bytes", wire.bits.len());
    if limits.max_filter_bytes > 0 {
        let received = BloomFilter::from_wire(wire, &seed, &limits).expect("an honest filter");
        assert!(dots.iter().all(|&dot| received.contains(dot)));
    }

    if let Ok(estimator) = Estimator::from_bytes(&sketches.estimator) {
        assert_eq!(Estimator::from_bytes(&estimator.to_bytes()), Ok(estimator.clone()));
        assert_eq!(estimator.difference(&estimator), 0);
        let _ = estimator.difference(&Estimator::default());
        let _ = estimator.folded().difference(&Estimator::default().folded());
    }
}

/// Inputs from real sketches.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let limits = Limits::default();
    let salts = [5; 32];
    let seeds = [(3, 0.01), (40, 0.1), (300, 0.5)].map(|(count, rate)| {
        let mut filter = BloomFilter::new(count, rate, &FilterSeed::derive(&salts), &limits);
        let mut estimator = Estimator::default();
        for counter in 1..=count {
            filter.insert(Dot::new(9, counter).expect("not zero"));
            estimator
                .add(&RecordDigest(HashAlgorithm::Blake3.value_hash(&counter.to_le_bytes()).0));
        }
        let (wire, estimator) = (filter.to_wire(), estimator.to_bytes());
        let mut seed = vec![wire.hashes];
        seed.extend(salts);
        seed.extend(4_096_u16.to_le_bytes());
        seed.extend(count.to_le_bytes());
        seed.extend(rate.to_le_bytes());
        seed.push(2);
        seed.extend([9_u64, 1, 8, 2].map(u64::to_le_bytes).concat());
        seed.extend((estimator.len() as u16).to_le_bytes());
        seed.extend(estimator);
        seed.extend(wire.bits);
        seed
    });
    seeds.to_vec()
}
