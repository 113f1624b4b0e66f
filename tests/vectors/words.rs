//! Records, contexts, joins, states.

use selfsame::dots::{Causality, DotSet};
use selfsame::entry::Record;
use selfsame::hash::{ContextHash, HashAlgorithm, Root, session_id};
use selfsame::merkle::forest_root;
use selfsame::types::CollectionName;
use serde_json::Value;

use crate::json::{
    VECTORS, algorithm, array, bytes, cases, causality, context, dots, hash_at, list, text,
};

pub(crate) const SECTIONS: &[&str] = &[
    "constants",
    "records_refused",
    "contexts",
    "contexts_refused",
    "canonical_forms",
    "joins",
    "states",
    "session_ids",
    "forests",
    "forests_refused",
];

#[test]
fn constants() {
    for algorithm in HashAlgorithm::ALL {
        let name = algorithm.to_string();
        let constants = &VECTORS["constants"][&name];
        assert_eq!(algorithm.empty().0, array(constants, "empty"));
        assert_eq!(algorithm.log_empty().0, array(constants, "log_empty"));
        assert_eq!(Some(u64::from(algorithm.id())), VECTORS["hash_ids"][&name].as_u64());
    }
    let blake3 = &VECTORS["constants"]["blake3"];
    assert_eq!(HashAlgorithm::blake3_leaf_key(), &array(blake3, "leaf_key"));
    let inner_keys = blake3["inner_keys"].as_object().unwrap();
    assert!(inner_keys.len() >= 8);
    for bit in inner_keys.keys() {
        let expected = array(&blake3["inner_keys"], bit);
        assert_eq!(HashAlgorithm::blake3_inner_key(bit.parse().unwrap()), &expected);
    }
}

#[test]
fn records_refused() {
    for case in cases("records_refused") {
        Record::parse(&bytes(case, "record")).expect_err(text(case, "what"));
    }
}

#[test]
fn contexts() {
    for case in cases("contexts") {
        let causality = causality(case, &DotSet::default());
        assert_eq!(causality.to_bytes().unwrap(), bytes(case, "bytes"), "{}", text(case, "what"));
        assert_eq!(Causality::parse(&bytes(case, "bytes")).unwrap(), causality);
        let hash = causality.hash(algorithm(case)).unwrap();
        assert_eq!(hash.0, array(case, "context_hash"));
        let parts = causality.pairs().collect();
        let again = Causality::from_parts(parts, causality.exceptions().clone()).unwrap();
        assert_eq!(again, causality);
    }
}

#[test]
fn contexts_refused() {
    for case in cases("contexts_refused") {
        Causality::parse(&bytes(case, "bytes")).expect_err(text(case, "what"));
    }
}

#[test]
fn canonical_forms() {
    for case in cases("canonical_forms") {
        let canonical = causality(case, &dots(case, "held"));
        assert_says(&canonical, &case["canonical"], text(case, "what"));
    }
}

#[test]
fn joins() {
    for case in cases("joins") {
        let (a, b) = (&case["a"], &case["b"]);
        for (a, b) in [(a, b), (b, a), (&case["joined"], a), (b, &case["joined"])] {
            let (joined, held) = join(a, b);
            assert_says(&joined, &case["joined"], text(case, "what"));
            assert_eq!(held, dots(&case["joined"], "held"), "{}", text(case, "what"));
        }
    }
}

/// Merges two snapshots as a session does, and joins what they have seen.
pub(crate) fn join(a: &Value, b: &Value) -> (Causality, DotSet) {
    let (a_held, b_held) = (dots(a, "held"), dots(b, "held"));
    let (mut joined, other) = (causality(a, &a_held), causality(b, &b_held));
    let stays = |held: &DotSet, by: &DotSet, seen: &Causality| -> Vec<_> {
        held.iter().filter(|&dot| by.contains(dot) || !seen.knows(dot)).collect()
    };
    let held: DotSet = [stays(&a_held, &b_held, &other), stays(&b_held, &a_held, &joined)]
        .concat()
        .into_iter()
        .collect();
    joined.join(&other, |dot| held.contains(dot));
    (joined, held)
}

pub(crate) fn assert_says(causality: &Causality, case: &Value, what: &str) {
    let mut expected = context(case);
    expected.sort_unstable();
    assert_eq!(causality.pairs().collect::<Vec<_>>(), expected, "{what}");
    assert_eq!(causality.exceptions(), &dots(case, "exceptions"), "{what}");
}

#[test]
fn states() {
    for case in cases("states") {
        let (root, context) = (Root(array(case, "root")), ContextHash(array(case, "context_hash")));
        assert_eq!(algorithm(case).state(&root, &context).0, array(case, "state"));
    }
}

#[test]
fn session_ids() {
    for case in cases("session_ids") {
        let id = session_id(&array(case, "initiator"), &array(case, "responder"));
        assert_eq!(id.0, array(case, "session_id"));
    }
}

fn named_hashes(case: &Value) -> Option<Vec<(CollectionName, [u8; 32])>> {
    let collections = list(case, "collections").iter();
    collections
        .map(|one| Some((CollectionName::new(text(one, "name")).ok()?, array(one, "root"))))
        .collect()
}

#[test]
fn forests() {
    for case in cases("forests") {
        let collections = named_hashes(case).unwrap();
        let root = forest_root(collections.iter().map(|(name, hash)| (name, *hash))).unwrap();
        assert_eq!(Some(root.0), hash_at(&serde_json::json!([case["forest"]]), 0));
    }
}

#[test]
fn forests_refused() {
    for case in cases("forests_refused") {
        // a name that is none is refused where it is made
        if let Some(collections) = named_hashes(case) {
            forest_root(collections.iter().map(|(name, hash)| (name, *hash)))
                .expect_err(text(case, "what"));
        }
    }
}
