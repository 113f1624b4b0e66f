//! Resolvers: the laws of those that are built in, what becomes of one that breaks them, and what
//! sessions report.
#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use selfsame::clock::Stamp;
use selfsame::dots::Dot;
use selfsame::entry::Sibling;
use selfsame::hash::{HashAlgorithm, SessionId};
use selfsame::replica::{
    Collection, Incident, IncomingSibling, KeyUpdate, MAX_REPORTS, Replica, ReplicaError,
    ReplicaOptions,
};
use selfsame::resolve::{
    Candidate, MAX_JSON_BYTES, MAX_JSON_DEPTH, ResolveError, Resolver, Resolvers, Violation,
};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

const NOW: u64 = 1_700_000_000_000;
const BUILT_IN: [&str; 4] = ["max@1", "set-union@1", "json-merge@1", "first@1"];

/// A version: its time and its value. Times are distinct, as dots would make them.
type Written = (u64, Vec<u8>);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn resolver(policy: &str) -> Arc<dyn Resolver> {
    Arc::clone(Resolvers::built_in().of(&policy.parse().unwrap()).unwrap().unwrap())
}

fn merge(policy: &str, versions: &[Written]) -> Result<Vec<u8>, ResolveError> {
    let candidates: Vec<Candidate<'_>> = versions
        .iter()
        .map(|(at, value)| Candidate {
            dot: Dot::new(9, at + 1).unwrap(),
            stamp: Stamp(*at),
            value,
        })
        .collect();
    resolver(policy).merge(&key("k"), &candidates)
}

fn at_times(values: Vec<Vec<u8>>) -> Vec<Written> {
    values.into_iter().enumerate().map(|(at, value)| (at as u64, value)).collect()
}

/// JSON with few names and few values, so that versions meet in the same places.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        (-3..4i8).prop_map(|number| number.to_string()),
        Just("1.0".to_owned()),
        Just("\"text \\u00e4\\n\"".to_owned()),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" , "))),
            object(inner),
        ]
    })
}

fn object(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(name, it)| format!("\"{name}\" : {it}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

/// Values that the resolver merges.
fn values_for(policy: &str) -> BoxedStrategy<Vec<Vec<u8>>> {
    let bytes = |text: String| text.into_bytes();
    match policy {
        "set-union@1" => vec(
            vec(any_json(), 0..4).prop_map(|items| format!("[{}]", items.join(",")).into_bytes()),
            2..6,
        )
        .boxed(),
        "json-merge@1" => vec(object(any_json()).prop_map(bytes), 2..6).boxed(),
        _ => {
            let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?".prop_map(bytes);
            vec(prop_oneof![number, vec(any::<u8>(), 0..6)], 2..6).boxed()
        }
    }
}

fn versions() -> impl Strategy<Value = (&'static str, Vec<Written>, usize)> {
    prop::sample::select(&BUILT_IN[..]).prop_flat_map(|policy| {
        (Just(policy), values_for(policy).prop_map(at_times), any::<prop::sample::Index>())
            .prop_map(|(policy, written, cut)| {
                let cut = cut.index(written.len() - 1) + 1;
                (policy, written, cut)
            })
    })
}

/// Bytes that look like JSON.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    "[\\[\\]{}\",:0-9a\\\\u.-]{0,30}".prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn the_order_in_which_versions_are_given_makes_no_difference(
        ((policy, written, _), shuffled) in versions().prop_flat_map(|given| {
            let written = given.1.clone();
            (Just(given), Just(written).prop_shuffle())
        })
    ) {
        prop_assert_eq!(merge(policy, &written)?, merge(policy, &shuffled)?);
    }

    /// Versions that follow each other in time may be merged first. The merged one has the time
    /// at which its resolver stands: the earliest for `first`, the latest for the others.
    #[test]
    fn merging_some_of_them_first_makes_no_difference((policy, written, cut) in versions()) {
        let whole = merge(policy, &written)?;
        let (early, late) = written.split_at(cut);
        let group = |some: &[Written]| {
            let at = if policy == "first@1" { some.first() } else { some.last() };
            Ok::<_, ResolveError>((at.unwrap().0, merge(policy, some)?))
        };
        prop_assert_eq!(&merge(policy, &[group(early)?, group(late)?])?, &whole);
        let mut one_by_one = written[0].clone();
        for next in &written[1..] {
            one_by_one = group(&[one_by_one, next.clone()])?;
        }
        prop_assert_eq!(&one_by_one.1, &whole);
        if matches!(policy, "max@1" | "set-union@1") {
            let halves = written.iter().cloned().partition(|one| one.0 % 2 == 1);
            let (odd, even): (Vec<_>, Vec<_>) = halves;
            prop_assert_eq!(&merge(policy, &[group(&odd)?, group(&even)?])?, &whole);
        }
    }

    #[test]
    fn merging_what_was_merged_changes_nothing((policy, written, _) in versions()) {
        let merged = merge(policy, &written)?;
        let after = written.len() as u64;
        let twice = [(after, merged.clone()), (after + 1, merged.clone())];
        prop_assert_eq!(&merge(policy, &twice)?, &merged);
        if policy != "first@1" {
            let mut with_all = written;
            with_all.push((after, merged.clone()));
            prop_assert_eq!(merge(policy, &with_all)?, merged);
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_at_most(
        values in vec(prop_oneof![vec(any::<u8>(), 0..40), nearly_json()], 2..5)
    ) {
        for policy in BUILT_IN {
            let _ = merge(policy, &at_times(values.clone()));
        }
    }
}

#[test]
fn json_has_bounds() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    let two = |value: Vec<u8>| [(1, value), (2, b"[1]".to_vec())];
    assert!(merge("set-union@1", &two(deep(MAX_JSON_DEPTH))).is_ok());
    let said = merge("set-union@1", &two(deep(MAX_JSON_DEPTH + 1))).unwrap_err().to_string();
    assert!(said.contains("nests deeper"), "{said}");
    assert!(merge("set-union@1", &two(deep(400_000))).is_err(), "no stack is used up");
    let long = merge("set-union@1", &two(vec![b' '; MAX_JSON_BYTES]));
    assert!(matches!(long, Err(ResolveError::TooLarge { .. })));
    let twice =
        merge("json-merge@1", &[(1, br#"{"a":1,"\u0061":2}"#.to_vec()), (2, b"{}".to_vec())]);
    assert!(twice.unwrap_err().to_string().contains("twice"));
    for bad in ["", "{", "[1", "{} x", "\u{feff}{}", "[\"\\ud800\"]", "nul"] {
        assert!(merge("json-merge@1", &[(1, bad.into()), (2, b"{}".to_vec())]).is_err(), "{bad:?}");
    }
}

#[test]
fn fields_are_merged_as_the_description_says() {
    let merged = |earlier: &str, later: &str| {
        let both = [(1, earlier.into()), (2, later.into())];
        String::from_utf8(merge("json-merge@1", &both).unwrap()).unwrap()
    };
    assert_eq!(merged(r#"{"b":1,"a":2}"#, "{}"), r#"{"a":2,"b":1}"#, "left out deletes nothing");
    assert_eq!(merged(r#"{"a":1}"#, r#"{"a":null}"#), r#"{"a":null}"#);
    assert_eq!(merged(r#"{"a":null}"#, r#"{"a":1}"#), r#"{"a":1}"#);
    assert_eq!(merged(r#"{"a":{"b":1}}"#, r#"{"a":null}"#), r#"{"a":{"b":1}}"#, "an object stays");
    assert_eq!(merged(r#"{"a":[1,2]}"#, r#"{"a":[3]}"#), r#"{"a":[3]}"#);
    let digits = r#"{"a":12345678901234567890123.4500}"#;
    assert_eq!(merged(digits, "{}"), digits, "no number is rounded");
    assert_eq!(merged(r#"{"a":"\u00e4\/\u0001"}"#, "{}"), "{\"a\":\"ä/\\u0001\"}");
}

fn replica(store: &Arc<MemoryStore>, resolvers: Resolvers) -> Replica<Arc<MemoryStore>> {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let options = ReplicaOptions { resolvers, ..ReplicaOptions::default() };
    let random =
        Box::new(|| DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Replica::open(Arc::clone(store), options, random).unwrap()
}

fn spec(policy: &str) -> CollectionSpec {
    let name = CollectionName::new("c").unwrap();
    CollectionSpec { name, algorithm: HashAlgorithm::Blake3, policy: policy.parse().unwrap() }
}

fn open(policy: &str, resolvers: Resolvers) -> Arc<Collection<Arc<MemoryStore>>> {
    replica(&Arc::default(), resolvers).create_collection(spec(policy)).unwrap()
}

/// A resolver made of a function.
struct Made<F>(F);

impl<F> Resolver for Made<F>
where
    F: Fn(&[Candidate<'_>]) -> Vec<u8> + Send + Sync,
{
    fn name(&self) -> &str {
        "made"
    }

    fn version(&self) -> u32 {
        3
    }

    fn merge(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<Vec<u8>, ResolveError> {
        Ok((self.0)(versions))
    }

    fn check(&self, _: &Key, versions: &[Candidate<'_>]) -> Result<(), Violation> {
        let many = versions.len() > 2;
        if many { Err(Violation("more than two".repeat(1_000))) } else { Ok(()) }
    }
}

fn two_versions(c: &Collection<Arc<MemoryStore>>) {
    c.put(&key("k"), *b"one", NOW).unwrap();
    c.put_over(&key("k"), *b"two", &[], NOW + 1).unwrap();
}

#[test]
fn a_resolver_that_depends_on_the_order_or_on_anything_else_is_used_no_more() {
    let calls = AtomicU64::new(0);
    let by_order = Made(|versions: &[Candidate<'_>]| versions[0].value.to_vec());
    let by_call =
        Made(move |_: &[Candidate<'_>]| vec![calls.fetch_add(1, Ordering::Relaxed) as u8]);
    for known in [Resolvers::none().with(by_order), Resolvers::none().with(by_call)] {
        let c = open("made@3", known);
        two_versions(&c);
        assert_eq!(c.resolver_fault(), None);
        for _ in 0..3 {
            let reading = c.read(&key("k")).unwrap().unwrap();
            assert_eq!(reading.versions.len(), 2, "all are shown");
            assert!(matches!(reading.merged, Some(Err(ResolveError::NotDeterministic(_)))));
        }
        assert!(c.resolver_fault().unwrap().contains("made@3"));
        c.put(&key("k"), *b"three", NOW + 2).unwrap();
        assert_eq!(c.read(&key("k")).unwrap().unwrap().versions.len(), 1);
    }
}

#[test]
fn one_that_changes_its_mind_later_is_found_too() {
    let calls = AtomicU64::new(0);
    let late = move |versions: &[Candidate<'_>]| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        if number < 300 { b"same".to_vec() } else { versions[0].value.to_vec() }
    };
    let c = open("made@3", Resolvers::none().with(Made(late)));
    two_versions(&c);
    let read = || c.read(&key("k")).unwrap().unwrap().merged.unwrap();
    assert_eq!(&*read().unwrap(), b"same");
    assert!((0..1_000).any(|_| read().is_err()));
    assert!(read().is_err(), "and stays so");
}

#[test]
fn a_resolver_that_panics_or_gives_too_much_is_an_error() {
    let panics = Made(|_: &[Candidate<'_>]| -> Vec<u8> { panic!("on purpose") });
    let c = open("made@3", Resolvers::none().with(panics));
    two_versions(&c);
    let merged = c.read(&key("k")).unwrap().unwrap().merged;
    assert!(matches!(merged, Some(Err(ResolveError::Panicked(_)))), "{merged:?}");
    let much = Made(|_: &[Candidate<'_>]| vec![0; (16 << 20) + 1]);
    let c = open("made@3", Resolvers::none().with(much));
    two_versions(&c);
    let merged = c.read(&key("k")).unwrap().unwrap().merged;
    assert!(matches!(merged, Some(Err(ResolveError::TooLarge { .. }))), "not what it gave");
}

#[test]
fn without_its_resolver_a_collection_is_not_read_and_nothing_is_lost() {
    let made = || Resolvers::none().with(Made(|_: &[Candidate<'_>]| b"made".to_vec()));
    let store = Arc::default();
    let c = replica(&store, made()).create_collection(spec("made@3")).unwrap();
    two_versions(&c);
    let root = c.root().unwrap();
    drop(c);
    let without = replica(&store, Resolvers::built_in());
    let c = without.collection(&spec("made@3").name).unwrap();
    let refused = c.read(&key("k")).unwrap_err();
    assert!(matches!(refused, ReplicaError::UnknownResolver(_)), "{refused}");
    assert!(refused.to_string().contains("made@3") && refused.to_string().contains("max@1"));
    assert_eq!((c.root().unwrap(), c.resolver_fault().is_some()), (root, true));
    let other = CollectionSpec { name: CollectionName::new("d").unwrap(), ..spec("made@4") };
    assert!(matches!(without.create_collection(other), Err(ReplicaError::UnknownResolver(_))));
    drop((without, c));
    let c = replica(&store, made()).collection(&spec("made@3").name).unwrap();
    assert_eq!(&*c.read(&key("k")).unwrap().unwrap().merged.unwrap().unwrap(), b"made");
}

#[test]
fn what_was_not_read_is_not_replaced() {
    let c = open("siblings", Resolvers::none());
    two_versions(&c);
    let read = c.read(&key("k")).unwrap().unwrap().dots;
    let late = c.put_over(&key("k"), *b"late", &[], NOW + 2).unwrap();
    let root = c.root().unwrap();
    for stale in [&read[..], &read[..1], &[late.dot], &[]] {
        let put = c.put_exactly(&key("k"), *b"x", stale, NOW + 3);
        assert!(matches!(put, Err(ReplicaError::Changed)), "{put:?}");
        let gone = c.delete_exactly(&key("k"), stale, NOW + 3);
        assert!(matches!(gone, Err(ReplicaError::Changed)), "{gone:?}");
    }
    assert_eq!(c.root().unwrap(), root);
    let mut all = [&read[..], &[late.dot]].concat();
    all.reverse();
    c.put_exactly(&key("k"), *b"x", &all, NOW + 4).unwrap();
    assert_eq!(c.read(&key("k")).unwrap().unwrap().versions.len(), 1);
    c.put_exactly(&key("new"), *b"x", &[], NOW + 5).unwrap();
    assert_eq!(c.totals().unwrap().siblings, 2);
}

fn incoming(writer: u64, value: &[u8], at_ms: u64) -> IncomingSibling {
    let sibling = Sibling {
        dot: Dot::new(writer, 1).unwrap(),
        stamp: Stamp::new(at_ms, 0),
        size: value.len() as u64,
        value_hash: HashAlgorithm::Blake3.value_hash(value),
    };
    IncomingSibling { sibling, value: Some(value.into()) }
}

fn applied(
    c: &Collection<Arc<MemoryStore>>,
    add: Vec<IncomingSibling>,
    remove: Vec<Dot>,
) -> Vec<Incident> {
    let named = if add.is_empty() { None } else { Some(key("k")) };
    let update = KeyUpdate { key: named, key_hash: c.key_hash(&key("k")), add, remove };
    let outcome = c.apply(vec![update], 0, NOW + 10).unwrap().remove(0);
    assert!(outcome.incidents.iter().all(|(of, _)| *of == key("k")));
    outcome.incidents.into_iter().map(|(_, incident)| incident).collect()
}

#[test]
fn a_version_that_comes_beside_another_is_reported() {
    let c = open("lww", Resolvers::none());
    let (a, b, d) = (incoming(7, b"a", NOW), incoming(8, b"b", NOW), incoming(9, b"b", NOW));
    assert_eq!(applied(&c, vec![a.clone()], vec![]), []);
    let beside = applied(&c, vec![b.clone()], vec![]);
    let (of_a, of_b) = (a.sibling.dot, b.sibling.dot);
    assert_eq!(beside, [Incident::ConcurrentUpdate { held: vec![of_a], came: vec![of_b] }]);
    assert_eq!(applied(&c, vec![a, b], vec![]), [], "nothing new");
    assert_eq!(applied(&c, vec![d], vec![of_a]), [], "equal values are no conflict");
}

#[test]
fn a_put_that_survives_a_delete_is_reported() {
    let c = open("lww", Resolvers::none());
    let (a, b) = (incoming(7, b"a", NOW), incoming(8, b"b", NOW));
    let (of_a, of_b) = (a.sibling.dot, b.sibling.dot);
    applied(&c, vec![a, b], vec![]);
    let survived = Incident::DeletedRemotely { removed: vec![of_a], survived: vec![of_b] };
    assert_eq!(applied(&c, vec![], vec![of_a]), [survived]);
    assert_eq!(applied(&c, vec![], vec![of_b]), [], "a delete of all that was seen");

    c.put(&key("k"), *b"c", NOW + 1).unwrap();
    c.delete(&key("k"), NOW + 5).unwrap();
    let (early, late) = (incoming(11, b"d", NOW + 3), incoming(12, b"e", NOW + 7));
    let dot = early.sibling.dot;
    let survived = Incident::DeletedRemotely { removed: vec![], survived: vec![dot] };
    assert_eq!(applied(&c, vec![early], vec![]), [survived]);
    c.delete(&key("k"), NOW + 6).unwrap();
    assert_eq!(applied(&c, vec![late], vec![]), [], "written after the delete");
}

#[test]
fn reports_are_kept_up_to_a_bound_and_resolvers_add_theirs() {
    let store = Arc::default();
    let made = || Resolvers::none().with(Made(|_: &[Candidate<'_>]| b"made".to_vec()));
    let c = replica(&store, made()).create_collection(spec("made@3")).unwrap();
    let (peer, session) = (NodeId([5; 32]), SessionId([6; 32]));
    let concurrent =
        || Incident::ConcurrentUpdate { held: vec![], came: vec![Dot::new(3, 4).unwrap()] };
    let note = |c: &Collection<_>, at| {
        c.note_incidents(peer, session, [(key("k"), concurrent())], at).unwrap()
    };
    two_versions(&c);
    assert_eq!(note(&c, 1).len(), 1, "the resolver has nothing to say");
    c.put_over(&key("k"), *b"three", &[], NOW).unwrap();
    let both = note(&c, 2);
    let Incident::UniqueConstraintViolation { why } = &both[1].incident else { panic!("{both:?}") };
    assert!(why.starts_with("more than two") && why.len() <= 1_024);
    let kept = c.reports(10).unwrap();
    assert_eq!((kept.len(), &kept[0], &kept[2].incident), (3, &both[1], &concurrent()));
    drop(c);

    let c = replica(&store, made()).collection(&spec("made@3").name).unwrap();
    assert_eq!(c.reports(2).unwrap(), kept[..2]);
    for at in 3..700 {
        note(&c, at);
    }
    let kept = c.reports(usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, MAX_REPORTS);
    assert!(kept.is_sorted_by(|newer, older| newer.at_ms >= older.at_ms) && kept[0].at_ms == 699);
    let many = (0..3_000).map(|_| (key("other"), concurrent()));
    c.note_incidents(peer, session, many, 1_000).unwrap();
    let kept = c.reports(usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, MAX_REPORTS);
    assert!(kept.iter().all(|report| report.at_ms == 1_000));
}

#[test]
fn a_policy_is_written_as_it_is_read() {
    for text in ["max@1", "a@b@7", "lww", "siblings", "json-merge@4294967295"] {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
    }
}
