//! Certificates that outlive their session: the log of a collection, bundles, proofs.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use selfsame::clock::Stamp;
use selfsame::hash::{ContextHash, HashAlgorithm, LogHead, Root, SessionId};
use selfsame::limits::Limits;
use selfsame::merkle::log::first_item;
use selfsame::merkle::{
    Certificate, CertificateBundle, CertificateMessage, Envelope, HeadStatement, LogHeadFields,
    LogKind, NodeKey,
};
use selfsame::replica::{Collection, Replica, ReplicaOptions};
use selfsame::store::{Batch, Durability, MemoryStore, Read, Span, Store, Table};
use selfsame::types::{CollectionName, CollectionSpec, NodeId, Policy};

type Mem = Collection<Arc<MemoryStore>>;

fn keys() -> [NodeKey; 2] {
    [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])]
}

fn nodes() -> [NodeId; 2] {
    keys().map(|key| key.node_id())
}

fn sign(message: &[u8]) -> [u8; 64] {
    keys()[0].sign(message).to_bytes()
}

fn spec(algorithm: HashAlgorithm) -> CollectionSpec {
    CollectionSpec { name: CollectionName::new("players").unwrap(), algorithm, policy: Policy::Lww }
}

fn envelope(algorithm: HashAlgorithm) -> Envelope {
    Envelope::new(spec(algorithm), algorithm.empty(), Default::default()).unwrap()
}

/// The certificate of a session, and of a root that goes with it.
fn certificate(session: u8, root: Root, with: &NodeKey) -> Certificate {
    let [me, _] = keys();
    let message = CertificateMessage::new(
        CollectionName::new("players").unwrap(),
        root,
        ContextHash([4; 32]),
        [me.node_id(), with.node_id()],
        SessionId([session; 32]),
        Stamp::new(1_000, 0),
    )
    .unwrap();
    let signed = [(me.node_id(), message.sign(&me)), (with.node_id(), message.sign(with))];
    message.certify(signed).unwrap()
}

fn open(store: Arc<MemoryStore>, kept: u64) -> (Replica<Arc<MemoryStore>>, Arc<Mem>) {
    // each opening draws other numbers
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let random = Box::new(|| DRAWN.fetch_add(1, Ordering::Relaxed));
    let limits = Limits { certificate_log_entries: kept, ..Limits::default() };
    let options = ReplicaOptions { limits, ..ReplicaOptions::default() };
    let replica = Replica::open(store, options, random).unwrap();
    let collection = replica.create_collection(spec(HashAlgorithm::Blake3)).unwrap();
    (replica, collection)
}

fn keep(collection: &Mem, session: u8) -> u64 {
    let [_, peer] = keys();
    let certificate = certificate(session, Root([session; 32]), &peer);
    collection.keep_certificate(&peer.node_id(), &certificate, None, u64::from(session)).unwrap()
}

/// The inclusion of a certificate, checked; the head of its log.
#[track_caller]
fn included(collection: &Mem, number: u64) -> LogHeadFields {
    let kept = collection.certificate(number).unwrap().expect("it is kept");
    let (fields, proof) = collection.certificate_inclusion(number).unwrap().expect("provable");
    let log = fields.log();
    assert_eq!(
        (log.kind, &log.name),
        (LogKind::Certificates, kept.certificate.message().collection())
    );
    let leaf = log.algorithm.log_leaf(&kept.certificate.to_bytes());
    proof.verify(log.algorithm, fields.size(), fields.root(), &leaf).unwrap();
    fields
}

#[test]
fn each_opening_has_a_log_that_begins_with_the_head_of_the_one_before() {
    let store = Arc::new(MemoryStore::default());
    let (_, collection) = open(store.clone(), 100);
    assert_eq!(collection.certificate_log_head().unwrap(), None);
    assert_eq!([keep(&collection, 1), keep(&collection, 2)], [2, 3]);
    let first = collection.certificate_log_head().unwrap().unwrap();
    assert_eq!(first.size(), 3);
    // an opening that keeps no certificate begins no log
    drop(open(store.clone(), 100));
    let (_, collection) = open(store, 100);
    assert_eq!(collection.certificate_log_head().unwrap(), None);
    assert_eq!(keep(&collection, 3), 5);
    let second = collection.certificate_log_head().unwrap().unwrap();
    assert_ne!(first.log().id, second.log().id);
    assert_eq!(included(&collection, 2), first, "an old log is proved by its own head");
    assert_eq!(included(&collection, 5), second);
    // recomputed from the items alone
    let mut log = selfsame::merkle::MerkleLog::new(HashAlgorithm::Blake3);
    log.append(&first_item(Some(LogHead(first.head().0))));
    log.append(&collection.certificate(5).unwrap().unwrap().certificate.to_bytes());
    assert_eq!(*second.root(), log.root());
    let numbers = |before, limit| -> Vec<u64> {
        let found = collection.certificates(None, before, limit).unwrap();
        found.iter().map(|kept| kept.number).collect()
    };
    assert_eq!(numbers(None, 10), [5, 3, 2]);
    assert_eq!(numbers(Some(5), 1), [3]);
    assert!(numbers(Some(1), 10).is_empty());
}

#[test]
fn old_certificates_are_dropped_and_the_others_can_still_be_proved() {
    let store = Arc::new(MemoryStore::default());
    let stranger = NodeKey::from_seed(&[3; 32]);
    let (_, collection) = open(store.clone(), 16);
    let with_another = certificate(200, Root([9; 32]), &stranger);
    collection.keep_certificate(&stranger.node_id(), &with_another, None, 1).unwrap();
    for session in 1..=40 {
        keep(&collection, session);
    }
    let head = collection.certificate_log_head().unwrap().unwrap();
    assert_eq!(head.size(), 42);
    let kept: Vec<u64> =
        collection.certificates(None, None, 100).unwrap().iter().map(|kept| kept.number).collect();
    assert_eq!(kept, (27..=42).rev().collect::<Vec<_>>());
    for &number in &kept {
        assert_eq!(included(&collection, number), head);
    }
    assert!(collection.certificate(26).unwrap().is_none());
    assert!(collection.certificate_inclusion(26).unwrap().is_none());
    // the last one with each peer stays
    let last = collection.last_certificate(&stranger.node_id()).unwrap().unwrap();
    assert_eq!(last.certificate, with_another);
    let of_peers = collection.last_certificates().unwrap();
    assert_eq!(of_peers.len(), 2);
    // after a restart with a lower limit, and across the boundary of two logs
    let (_, collection) = open(store, 4);
    for session in 50..56 {
        let number = keep(&collection, session);
        for kept in collection.certificates(None, None, 100).unwrap() {
            included(&collection, kept.number);
        }
        assert_eq!(collection.certificates(None, None, 100).unwrap()[0].number, number);
    }
    assert_eq!(collection.certificates(None, None, 100).unwrap().len(), 4);
}

#[test]
fn damage_of_the_log_costs_what_was_damaged_and_no_more() {
    let store = Arc::new(MemoryStore::default());
    let (_, collection) = open(store.clone(), 100);
    for session in 1..=5 {
        keep(&collection, session);
    }
    let rot = |table: Table, holds: fn(&[u8]) -> bool| {
        let rows = store.scan(Span::of(table, &[]), usize::MAX).unwrap();
        let row = rows.into_iter().find(|row| holds(&row.key)).unwrap();
        let mut value = row.value.to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 1;
        let mut batch = Batch::default();
        batch.put(table, &row.key, &value);
        store.commit(batch, Durability::Always).unwrap();
    };
    // row 4, a certificate
    rot(Table::Certificates, |key| key[4] == 0 && key.ends_with(&[0, 4]));
    assert!(collection.certificate(4).unwrap().is_none());
    assert_eq!(collection.certificates(None, None, 10).unwrap().len(), 4);
    let head = included(&collection, 3);
    assert_eq!(head.size(), 3, "what is before the damage is proved under an earlier head");
    assert!(collection.certificate_inclusion(5).unwrap().is_none());
    // where the log is
    rot(Table::Heads, |key| key[4] == 3);
    let (_, collection) = open(store, 100);
    assert_eq!(collection.certificates(None, None, 10).unwrap().len(), 4);
    assert_eq!(keep(&collection, 9), 8);
    assert_eq!(included(&collection, 8).size(), 2);
}

fn bundle() -> CertificateBundle {
    let (_, collection) = open(Arc::default(), 100);
    keep(&collection, 1);
    let [_, peer] = keys();
    let envelope = envelope(HashAlgorithm::Blake3);
    let agreed = certificate(2, envelope.root(), &peer);
    let number = collection.keep_certificate(&peer.node_id(), &agreed, Some(&envelope), 7).unwrap();
    let kept = collection.certificate(number).unwrap().unwrap();
    assert_eq!((&kept.envelope, kept.kept_ms), (&Some(envelope.clone()), 7));
    let (fields, proof) = collection.certificate_inclusion(number).unwrap().unwrap();
    let head = HeadStatement::sign(fields, nodes()[0], &sign).unwrap();
    let bundle = CertificateBundle::new(agreed).with_envelope(envelope).unwrap();
    bundle.with_place(head, proof).unwrap()
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_no_bit_of_it_may_change() {
    let whole = bundle();
    let alone = CertificateBundle::new(whole.certificate().clone());
    let bare = whole.certificate().to_bytes();
    assert_eq!(CertificateBundle::parse(&bare).unwrap(), alone);
    for bundle in [&whole, &alone] {
        let bytes = bundle.to_bytes();
        assert_eq!(CertificateBundle::parse(&bytes).unwrap(), *bundle);
        for length in 0..bytes.len() {
            let error = CertificateBundle::parse(&bytes[..length]).unwrap_err();
            assert!(!error.is_well_formed(), "{length}: {error}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(!CertificateBundle::parse(&longer).unwrap_err().is_well_formed());
        assert!(CertificateBundle::parse(&vec![1; 100_000]).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            CertificateBundle::parse(&flipped).expect_err("a bit was flipped");
        }
    }
}

#[test]
fn a_bundle_holds_together_and_is_about_what_was_asked() {
    let whole = bundle();
    let [_, peer] = keys();
    let stranger = NodeKey::from_seed(&[3; 32]);
    let [a, b] = nodes();
    whole.check_nodes(&[b, a]).unwrap();
    for others in [[a, stranger.node_id()], [a, a], [stranger.node_id(), b]] {
        assert!(whole.check_nodes(&others).unwrap_err().is_well_formed());
    }
    let error = whole.check_root(&Root([1; 32])).unwrap_err();
    assert!(error.is_well_formed());
    // the envelope of another algorithm, and so of another root
    let other = envelope(HashAlgorithm::Sha256);
    assert!(whole.clone().with_envelope(other).unwrap_err().is_well_formed());
    // the log of a node that has no part in it, and a certificate that is not in the log
    let place = whole.place().unwrap().clone();
    let fields = place.head().fields().clone();
    let by_stranger = HeadStatement::sign(fields, stranger.node_id(), &|message| {
        stranger.sign(message).to_bytes()
    });
    let alone = CertificateBundle::new(whole.certificate().clone());
    let error = alone.with_place(by_stranger.unwrap(), place.proof().clone()).unwrap_err();
    assert!(error.is_well_formed());
    let another = CertificateBundle::new(certificate(9, Root([1; 32]), &peer));
    let error = another.with_place(place.head().clone(), place.proof().clone()).unwrap_err();
    assert!(error.is_well_formed());
}

proptest! {
    #[test]
    fn any_bytes_are_a_bundle_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(bundle) = CertificateBundle::parse(&bytes) {
            prop_assert_eq!(bundle.to_bytes(), bytes);
        }
    }
}
