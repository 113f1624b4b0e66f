//! Proofs: nothing that parses proves what is not so.
//!
//! The verifier knows a small tree and a small log in full, so that every claim can be judged.

use std::sync::OnceLock;

use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::{Record, Sibling, Totals};
use selfsame::hash::{HashAlgorithm, KeyHash, LogHash, RecordDigest, SessionId};
use selfsame::merkle::{
    Answer, Bundle, Certificate, CertificateBundle, CertificateMessage, ChangeBundle, ChangeItem,
    Claim, CommitEnd, ConsistencyProof, Contradiction, Envelope, HeadStatement, InclusionProof,
    Leaf, LogId, LogIdentity, LogKind, LogSegment, ManyBundle, MerkleLog, MultiProof, NodeKey,
    Prefix, PrefixBundle, Proof, ProofFile, ProvedChange, RangeProof, SubtreeProof, Tree,
};
use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};

/// Keys that the tree holds.
const HELD: u8 = 24;
/// Keys asked for: those held, and some that are not.
const ASKED: u8 = 32;
/// Items of the log.
const ITEMS: u64 = 13;

/// What is true.
struct World {
    tree: Tree,
    envelope: Envelope,
    log: Vec<LogHash>,
}

fn key(number: u8) -> Key {
    Key::new(format!("key {number}")).expect("a short key")
}

fn key_hash(algorithm: HashAlgorithm, number: u8) -> KeyHash {
    algorithm.key_hash(&key(number))
}

fn record(algorithm: HashAlgorithm, number: u8) -> Option<Record> {
    let sibling = Sibling {
        dot: Dot::new(1, u64::from(number) + 1)?,
        stamp: Stamp::new(1_700_000_000_000, u16::from(number)),
        size: 1,
        value_hash: algorithm.value_hash(&[number]),
    };
    (number < HELD).then(|| Record::new(vec![sibling]).expect("one sibling"))
}

fn digest(algorithm: HashAlgorithm, number: u8) -> Option<RecordDigest> {
    record(algorithm, number).map(|record| record.digest(algorithm))
}

impl World {
    fn new(algorithm: HashAlgorithm) -> Self {
        let mut tree = Tree::new(algorithm);
        let mut totals = Totals::default();
        for number in 0..HELD {
            let record = record(algorithm, number).expect("held");
            totals = totals.plus(record.totals());
            let (key, record, totals) =
                (key_hash(algorithm, number), record.digest(algorithm), record.totals());
            tree.put(Leaf { key, record, totals });
        }
        let spec = CollectionSpec {
            name: CollectionName::new("players").expect("a name"),
            algorithm,
            policy: Policy::Lww,
        };
        let envelope = Envelope::new(spec, tree.tree_hash(), totals).expect("true figures");
        let log = (0..ITEMS).map(|item| algorithm.log_leaf(&item.to_le_bytes())).collect();
        Self { tree, envelope, log }
    }

    fn of(byte: u8) -> &'static Self {
        static WORLDS: OnceLock<[World; 2]> = OnceLock::new();
        &WORLDS.get_or_init(|| HashAlgorithm::ALL.map(World::new))[usize::from(byte) % 2]
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.envelope.algorithm()
    }

    /// The entries under a prefix, ascending.
    fn under(&self, prefix: &Prefix) -> Vec<(KeyHash, RecordDigest)> {
        self.tree.leaves_under(prefix).map(|leaf| (leaf.key, leaf.record)).collect()
    }

    fn log_root(&self, size: u64) -> LogHash {
        let mut log = MerkleLog::new(self.algorithm());
        for leaf in &self.log[..size as usize] {
            log.append_leaf(*leaf);
        }
        log.root()
    }
}

/// The first byte chooses the hash algorithm, the second as what the rest is read.
pub fn check(input: &[u8]) {
    let [algorithm, kind, bytes @ ..] = input else { return };
    let world = World::of(*algorithm);
    match kind % 11 {
        0 => single(world, bytes),
        1 => many(world, bytes),
        2 => subtree(world, bytes),
        3 => bundle(world, bytes),
        4 => inclusion(world, bytes),
        5 => consistency(world, bytes),
        7 => certificate_bundle(world, bytes),
        8 => contradiction(bytes),
        9 => file(world, bytes),
        10 => range(world, bytes),
        _ => {
            if let Ok(certificate) = Certificate::parse(bytes) {
                assert_eq!(certificate.to_bytes(), bytes);
                let _ = certificate.check_envelope(&world.envelope);
            }
        }
    }
}

fn single(world: &World, bytes: &[u8]) {
    let Ok(proof) = Proof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let algorithm = world.algorithm();
    let hash = world.tree.tree_hash();
    for number in 0..ASKED {
        let (key, truth) = (key_hash(algorithm, number), digest(algorithm, number));
        let claims = [None, digest(algorithm, number % HELD), Some(RecordDigest([number; 32]))];
        for record in claims.into_iter().filter(|record| *record != truth) {
            let claim = Claim { key, record };
            assert!(proof.verify(algorithm, &hash, &claim).is_err(), "proves {claim:?}");
        }
        let _ = proof.verify(algorithm, &hash, &Claim { key, record: truth });
    }
}

fn many(world: &World, bytes: &[u8]) {
    let Ok(proof) = MultiProof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let algorithm = world.algorithm();
    let hash = world.tree.tree_hash();
    let mut claims: Vec<Claim> = (0..ASKED)
        .map(|number| Claim { key: key_hash(algorithm, number), record: digest(algorithm, number) })
        .collect();
    claims.sort_unstable();
    for stride in 1..4 {
        let mut some: Vec<Claim> = claims.iter().step_by(stride).copied().collect();
        let _ = proof.verify(algorithm, &hash, &some);
        for at in 0..some.len() {
            let truth = some[at].record;
            some[at].record = if truth.is_some() { None } else { Some(RecordDigest([1; 32])) };
            assert!(proof.verify(algorithm, &hash, &some).is_err(), "proves {:?}", some[at]);
            some[at].record = truth;
        }
    }
}

fn subtree(world: &World, bytes: &[u8]) {
    let [bits, first, bytes @ ..] = bytes else { return };
    let Ok(proof) = SubtreeProof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let (algorithm, hash) = (world.algorithm(), world.tree.tree_hash());
    let prefix = Prefix::of(&KeyHash([*first; 32]), u16::from(bits % 9));
    let entries = world.under(&prefix);
    let _ = proof.verify(algorithm, &hash, &prefix, &entries);
    for left_out in 0..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(left_out);
        assert!(proof.verify(algorithm, &hash, &prefix, &fewer).is_err(), "one is left out");
    }
}

fn bundle(world: &World, bytes: &[u8]) {
    let Ok(bundle) = Bundle::parse(bytes) else { return };
    assert_eq!(bundle.to_bytes(), bytes);
    let algorithm = world.algorithm();
    for number in 0..ASKED {
        if let Ok(answer) = bundle.verify(&world.envelope.root(), &key(number)) {
            let truth = record(algorithm, number).map_or(Answer::Absent, Answer::Present);
            assert_eq!(answer, truth);
        }
    }
}

/// A file of proof of any kind.
fn file(world: &World, bytes: &[u8]) {
    let Ok(file) = ProofFile::parse(bytes) else { return };
    let root = world.envelope.root();
    match file {
        ProofFile::One(_) => bundle(world, bytes),
        ProofFile::Many(many) => {
            let Ok(answers) = many.verify(&root) else { return };
            assert_eq!(many.to_bytes(), bytes);
            for number in 0..ASKED {
                let told = answers.iter().find(|(found, _)| *found == key(number));
                if let Some((_, answer)) = told {
                    let truth = record(world.algorithm(), number);
                    assert_eq!(*answer, truth.map_or(Answer::Absent, Answer::Present));
                }
            }
            let is_held = |answer: &Answer| matches!(answer, Answer::Present(_));
            assert!(answers.iter().filter(|(_, answer)| is_held(answer)).count() <= HELD.into());
        }
        ProofFile::Prefix(all) => {
            assert_eq!(all.to_bytes(), bytes);
            let Ok(entries) = all.verify(&root) else { return };
            assert_eq!(entries.len(), world.under(all.prefix()).len());
        }
        ProofFile::Change(change) => {
            let node = NodeKey::from_seed(&[1; 32]).node_id();
            if change.verify(&node).is_ok() {
                // the node of the seeds has signed one commit in each world
                assert_eq!(change.to_bytes(), bytes);
                assert!((0..2).any(|choice| commit_of(World::of(choice)) == change));
            }
        }
    }
}

fn range(world: &World, bytes: &[u8]) {
    let Ok(proof) = RangeProof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let size = proof.size().min(ITEMS);
    let root = world.log_root(size);
    for first in 0..world.log.len() {
        for last in first..world.log.len() {
            let leaves = &world.log[first..=last];
            if proof.verify(world.algorithm(), size, &root, leaves).is_ok() {
                assert_eq!((proof.first(), proof.count()), (first as u64, leaves.len() as u64));
                assert!(last < size as usize);
            }
        }
    }
}

/// A commit that changes, adds and removes a key of the world.
fn commit_of(world: &World) -> ChangeBundle {
    let algorithm = world.algorithm();
    // one comes, one goes: entries are as many as before
    let (mut tree, totals) = (world.tree.clone(), world.envelope.totals());
    let mut changes = Vec::new();
    for (number, after) in [(3, record(algorithm, 4)), (HELD, record(algorithm, 5)), (7, None)] {
        let (key, before) = (key_hash(algorithm, number), digest(algorithm, number));
        match &after {
            Some(record) => {
                tree.put(Leaf { key, record: record.digest(algorithm), totals: record.totals() })
            }
            None => tree.remove(&key),
        };
        let digest = after.as_ref().map(|record| record.digest(algorithm));
        changes.push(ProvedChange { key, before, after: digest, record: after });
    }
    let spec = world.envelope.spec().clone();
    let after = Envelope::new(spec, tree.tree_hash(), totals).expect("true figures");
    let envelopes = [world.envelope.clone(), after];
    let roots = envelopes.each_ref().map(Envelope::root);
    let mut leaves = world.log.clone();
    let mut log = MerkleLog::new(algorithm);
    leaves.iter().for_each(|leaf| log.append_leaf(*leaf));
    let end = CommitEnd { changes: 3, roots };
    for (change, number) in changes.iter().zip(1..) {
        let end = (number == 3).then_some(end);
        let item = ChangeItem { key: change.key, record: change.after, end };
        leaves.push(log.append(&item.to_bytes()));
    }
    let place = LogSegment::new(MerkleLog::new(algorithm), leaves).range(ITEMS, 3);
    let name = world.envelope.name().clone();
    let identity = LogIdentity { algorithm, kind: LogKind::Changes, id: LogId(9), name };
    let node = NodeKey::from_seed(&[1; 32]);
    let sign = |message: &[u8]| node.sign(message).to_bytes();
    let head = HeadStatement::sign(identity.at(&log), node.node_id(), &sign).expect("not empty");
    let keys = changes.iter().map(|change| change.key);
    let (_, proof) = MultiProof::prove(&world.tree, keys).expect("all in memory");
    let place = place.expect("all items are kept");
    ChangeBundle::new(envelopes, changes, proof, head, place).expect("a short one")
}

fn inclusion(world: &World, bytes: &[u8]) {
    let Ok(proof) = InclusionProof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let (algorithm, size) = (world.algorithm(), proof.size().min(ITEMS));
    let root = world.log_root(size);
    for (index, leaf) in world.log.iter().enumerate() {
        if proof.verify(algorithm, size, &root, leaf).is_ok() {
            assert_eq!(proof.index(), index as u64);
            assert!(proof.index() < size);
        }
    }
}

fn consistency(world: &World, bytes: &[u8]) {
    let Ok(proof) = ConsistencyProof::parse(bytes) else { return };
    assert_eq!(proof.to_bytes(), bytes);
    let (algorithm, first, second) =
        (world.algorithm(), proof.first().min(ITEMS), proof.second().min(ITEMS));
    let (old, new) = (world.log_root(first), world.log_root(second));
    let _ = proof.verify(algorithm, (first, &old), (second, &new));
    let other = algorithm.log_leaf(b"another log");
    assert!(proof.verify(algorithm, (first, &other), (second, &new)).is_err());
    if first > 0 {
        assert!(proof.verify(algorithm, (first, &old), (second, &other)).is_err());
    }
}

/// Nobody but the two nodes of the seeds ever signed anything here.
fn certificate_bundle(world: &World, bytes: &[u8]) {
    let Ok(bundle) = CertificateBundle::parse(bytes) else { return };
    // a certificate alone is read too, and written with nothing beside it
    assert!(bundle.to_bytes() == bytes || bundle.certificate().to_bytes() == bytes);
    let keys = [1, 2].map(|seed| NodeKey::from_seed(&[seed; 32]).node_id());
    if bundle.check_nodes(&keys).is_ok() {
        let of_worlds = (0..2).map(|choice| *certificate(World::of(choice)).message().root());
        assert!(of_worlds.into_iter().any(|root| bundle.check_root(&root).is_ok()));
    }
    let _ = bundle.clone().with_envelope(world.envelope.clone());
}

fn contradiction(bytes: &[u8]) {
    let Ok(contradiction) = Contradiction::parse(bytes) else { return };
    assert_eq!(contradiction.to_bytes(), bytes);
    let [first, second] = contradiction.statements();
    assert_eq!((first.node(), second.node()), (contradiction.node(), contradiction.node()));
    assert_ne!(first, second);
}

/// What a node says of a log whose items are all the same.
fn statement(world: &World, item: &[u8], size: u64) -> HeadStatement {
    let mut log = MerkleLog::new(world.algorithm());
    for _ in 0..size {
        log.append(item);
    }
    let identity = LogIdentity {
        algorithm: world.algorithm(),
        kind: LogKind::Certificates,
        id: LogId(9),
        name: world.envelope.name().clone(),
    };
    let key = NodeKey::from_seed(&[1; 32]);
    let sign = |message: &[u8]| key.sign(message).to_bytes();
    HeadStatement::sign(identity.at(&log), key.node_id(), &sign).expect("not empty")
}

fn bundle_of(world: &World) -> CertificateBundle {
    let certificate = certificate(world);
    let (item, algorithm) = (certificate.to_bytes(), world.algorithm());
    let leaves = [algorithm.log_leaf(&item); 3];
    let proof = InclusionProof::of_leaves(algorithm, &leaves, 1).expect("three items");
    let bundle = CertificateBundle::new(certificate).with_envelope(world.envelope.clone());
    bundle
        .and_then(|bundle| bundle.with_place(statement(world, &item, 3), proof))
        .expect("it holds together")
}

/// Inputs from real proofs.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for choice in 0..2 {
        let world = World::of(choice);
        let algorithm = world.algorithm();
        let mut seed = |kind: u8, bytes: Vec<u8>| seeds.push([vec![choice, kind], bytes].concat());
        for number in [0, 7, HELD + 1] {
            let hash = key_hash(algorithm, number);
            let proof = Proof::prove(&world.tree, &hash).expect("all in memory");
            seed(0, proof.to_bytes());
            let record = record(algorithm, number);
            let bundle = Bundle::prove(&world.tree, world.envelope.clone(), &key(number), record);
            seed(3, bundle.expect("all in memory").to_bytes());
        }
        let asked: Vec<KeyHash> = (0..ASKED).map(|number| key_hash(algorithm, number)).collect();
        if let Ok((_, proof)) = MultiProof::prove(&world.tree, asked) {
            seed(1, proof.to_bytes());
        }
        for (bits, first) in [(0, 0), (3, 0x40), (8, 0x55)] {
            let prefix = Prefix::of(&KeyHash([first; 32]), u16::from(bits));
            let proof = SubtreeProof::prove(&world.tree, &prefix).expect("all in memory");
            seed(2, [vec![bits, first], proof.to_bytes()].concat());
        }
        if let Some(proof) = InclusionProof::of_leaves(algorithm, &world.log, 5) {
            seed(4, proof.to_bytes());
        }
        for first in [0, 6, 8] {
            if let Some(proof) = ConsistencyProof::of_leaves(algorithm, &world.log, first) {
                seed(5, proof.to_bytes());
            }
        }
        seed(6, certificate(world).to_bytes());
        seed(7, bundle_of(world).to_bytes());
        seed(7, CertificateBundle::new(certificate(world)).to_bytes());
        let (one, other) = (statement(world, b"this", 3), statement(world, b"that", 3));
        let two = Contradiction::of_two_roots(&one, &other).expect("two roots");
        seed(8, two.to_bytes());
        let proof = ConsistencyProof::of_leaves(algorithm, &world.log, 3).expect("a longer log");
        let later = statement(world, b"that", ITEMS);
        let failed = Contradiction::of_failed_proof(&one, &later, proof).expect("another log");
        seed(8, failed.to_bytes());
        let envelope = world.envelope.clone();
        let asked = [0, 7, HELD + 1].map(|number| (key(number), record(algorithm, number)));
        let hashes = asked.each_ref().map(|(key, _)| algorithm.key_hash(key));
        let (_, proof) = MultiProof::prove(&world.tree, hashes).expect("all in memory");
        let many = ManyBundle::new(envelope.clone(), asked.to_vec(), proof);
        seed(9, many.expect("three keys").to_bytes());
        for bits in [0, 3] {
            let prefix = Prefix::of(&KeyHash([0x40; 32]), bits);
            let under = (0..HELD).filter(|it| prefix.contains(&key_hash(algorithm, *it)));
            let entries = under.filter_map(|it| Some((key(it), record(algorithm, it)?))).collect();
            let proof = SubtreeProof::prove(&world.tree, &prefix).expect("all in memory");
            let all = PrefixBundle::new(envelope.clone(), prefix, entries, proof);
            seed(9, all.expect("its own entries").to_bytes());
        }
        let commit = commit_of(world);
        commit.verify(&NodeKey::from_seed(&[1; 32]).node_id()).expect("it holds");
        seed(9, commit.to_bytes());
        let segment = LogSegment::new(MerkleLog::new(algorithm), world.log.clone());
        seed(10, segment.range(5, 4).expect("all items are kept").to_bytes());
    }
    seeds
}

fn certificate(world: &World) -> Certificate {
    let keys = [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])];
    let message = CertificateMessage::new(
        world.envelope.name().clone(),
        world.envelope.root(),
        world.algorithm().context(&[0; 8]),
        [keys[0].node_id(), keys[1].node_id()],
        SessionId([3; 32]),
        Stamp::new(1_700_000_000_000, 0),
    )
    .expect("two nodes");
    let signed = keys.map(|key| (key.node_id(), message.sign(&key)));
    message.certify(signed).expect("both signed")
}
