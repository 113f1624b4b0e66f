//! Coded symbols: any bytes cost bounded work, and what they are said to name adds up to them.

use arbitrary::Unstructured;
use selfsame::limits::Limits;
use selfsame::sketch::ShortId;
use selfsame::sketch::iblt::{Decoder, Encoder, IbltError, IbltKey, Symbols};

/// A peer's stream against a small set.
#[derive(Debug)]
struct Exchange {
    secret: [u8; 32],
    most: u16,
    first: u16,
    ours: Vec<u64>,
    theirs: Vec<u8>,
}

impl Exchange {
    /// Fixed fields first, then the own ids with their number; everything that is left is a stream.
    fn read(input: &[u8]) -> arbitrary::Result<Self> {
        let mut input = Unstructured::new(input);
        let (secret, most, first) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
        let ours = (0..input.arbitrary::<u8>()? % 64).map(|_| input.arbitrary());
        let ours = ours.collect::<arbitrary::Result<_>>()?;
        Ok(Self { secret, most, first, ours, theirs: input.take_rest().to_vec() })
    }
}

/// The input is an exchange, structured.
pub fn check(input: &[u8]) {
    let Ok(exchange) = Exchange::read(input) else { return };
    let most = usize::from(exchange.most);
    let limits = Limits { max_iblt_symbols: most, ..Limits::default() };
    let key = IbltKey::derive(&exchange.secret);
    let of = |ids: &[ShortId]| Encoder::new(&key, ids.iter().copied(), &limits);
    let ours: Vec<ShortId> = exchange.ours.iter().map(|bits| ShortId::truncated(*bits)).collect();
    let Ok(theirs) = Symbols::from_bytes(&exchange.theirs) else { return };
    assert_eq!(theirs.to_bytes(), exchange.theirs);

    // in two batches, as it may come
    let cut = 9 * (usize::from(exchange.first) % theirs.len()).max(1).min(theirs.len());
    let mut decoder = Decoder::new(of(&ours), &limits);
    for part in [&exchange.theirs[..cut], &exchange.theirs[cut..]] {
        let Ok(batch) = Symbols::from_bytes(part) else { continue };
        let before = decoder.symbols();
        match decoder.push(&batch) {
            Ok(_) => assert_eq!(decoder.symbols(), before + batch.len()),
            Err(IbltError::TooMany { limit }) => {
                assert!(limit == most && before + batch.len() > most);
                assert_eq!(decoder.symbols(), before);
            }
            Err(other) => panic!("{other}"),
        }
    }
    let symbols = decoder.symbols() as u64;
    assert!(decoder.effort() <= 400 * symbols, "{} for {symbols}", decoder.effort());
    let difference = decoder.difference();
    assert!(difference.ours.len() + difference.theirs.len() <= 2 * decoder.symbols());
    if decoder.is_complete() {
        // the named ids alone leave the same stream behind
        let mut again = Decoder::new(of(&difference.ours), &limits);
        let stream = of(&difference.theirs).next_symbols(decoder.symbols());
        if !stream.is_empty() && again.push(&stream).is_ok_and(|complete| complete) {
            assert_eq!(again.difference(), difference);
        }
    }
}

/// Inputs from real streams.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let (secret, limits) = ([6; 32], Limits::default());
    let key = IbltKey::derive(&secret);
    let seeds =
        [(1_u64, 3_u16, 1_usize), (5, 40, 20), (30, 200, 80)].map(|(held, more, symbols)| {
            let ids = (held / 2 + 1..u64::from(more)).filter_map(ShortId::new);
            let stream = Encoder::new(&key, ids, &limits).next_symbols(symbols);
            let mut seed = secret.to_vec();
            seed.extend(256_u16.to_le_bytes());
            seed.extend(((symbols / 2) as u16).to_le_bytes());
            seed.push(held as u8);
            seed.extend((1..=held).flat_map(u64::to_le_bytes));
            seed.extend(stream.to_bytes());
            seed
        });
    seeds.to_vec()
}
