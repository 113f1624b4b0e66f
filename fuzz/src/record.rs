//! Canonical bytes: what a parser accepts it writes again, byte for byte.

use selfsame::clock::Stamp;
use selfsame::dots::{Causality, Dot, DotSet, Writer};
use selfsame::entry::{Record, Sibling};
use selfsame::hash::{HashAlgorithm, KeyHash, SessionId};
use selfsame::merkle::{
    CertificateMessage, Envelope, LogHeadFields, LogId, LogIdentity, LogKind, MerkleLog,
};
use selfsame::types::{CollectionName, CollectionSpec, NodeId, Policy};

/// The first byte says as what the rest is read.
pub fn check(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let again = match kind % 5 {
        0 => Record::parse(bytes).ok().map(|record| {
            assert!(record.totals().are_consistent());
            record.to_bytes()
        }),
        1 => Causality::parse(bytes).ok().map(|causality| {
            let hash = causality.hash(HashAlgorithm::Blake3).expect("what was parsed has a hash");
            assert_eq!(hash, HashAlgorithm::Blake3.context(bytes));
            causality.to_bytes().expect("what was parsed has bytes")
        }),
        2 => Envelope::parse(bytes).ok().map(|envelope| {
            assert_eq!(envelope.root(), envelope.algorithm().root(bytes));
            envelope.to_bytes()
        }),
        3 => CertificateMessage::parse(bytes).ok().map(|message| message.to_bytes()),
        _ => LogHeadFields::parse(bytes).ok().map(|fields| fields.to_bytes()),
    };
    if let Some(again) = again {
        assert_eq!(again, bytes);
    }
}

/// Inputs from real records, contexts, envelopes and heads.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let name = || CollectionName::new("players").expect("a name");
    let mut seeds = Vec::new();
    let mut seed = |kind: u8, bytes: Vec<u8>| seeds.push([vec![kind], bytes].concat());
    for algorithm in HashAlgorithm::ALL {
        let siblings = (1..4).map(|counter| Sibling {
            dot: Dot::new(7, counter).expect("not zero"),
            stamp: Stamp::new(1_700_000_000_000, counter as u16),
            size: 1,
            value_hash: algorithm.value_hash(&[counter as u8]),
        });
        let record = Record::new(siblings.collect()).expect("siblings");
        seed(0, record.to_bytes());

        let pairs = [(7, 3), (u64::MAX, 1)].map(|(id, at)| (Writer::new(id).expect("one"), at));
        let dead: DotSet =
            [(7, 9), (7, 10), (8, 4)].map(|(w, c)| Dot::new(w, c)).into_iter().flatten().collect();
        let causality = Causality::from_parts(pairs.into_iter().collect(), dead);
        seed(1, causality.expect("canonical").to_bytes().expect("small"));

        for policy in
            [Policy::Lww, Policy::Siblings, Policy::Custom { resolver: name(), version: 3 }]
        {
            let spec = CollectionSpec { name: name(), algorithm, policy };
            let tree = algorithm.leaf(&KeyHash([1; 32]), &record.digest(algorithm));
            let envelope = Envelope::new(spec, tree, record.totals()).expect("true figures");
            seed(2, envelope.to_bytes());
            let message = CertificateMessage::new(
                name(),
                envelope.root(),
                algorithm.context(&[0; 8]),
                [NodeId([1; 32]), NodeId([2; 32])],
                SessionId([3; 32]),
                Stamp::new(1_700_000_000_000, 0),
            );
            seed(3, message.expect("two nodes").to_bytes());
        }
        let mut log = MerkleLog::new(algorithm);
        log.append(b"item");
        let identity =
            LogIdentity { algorithm, kind: LogKind::Changes, id: LogId(5), name: name() };
        seed(4, identity.at(&log).to_bytes());
    }
    seeds
}
