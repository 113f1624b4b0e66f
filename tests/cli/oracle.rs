//! Roots computed from dumps by an implementation of its own, straight from the specification.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::node::TestNode;
use selfsame::node::Node;
use selfsame::store::EmbeddedStore;
use selfsame::types::{CollectionName, Key};

both_ways!(a_dump_is_enough_to_compute_the_digest,);

type Hash = [u8; 32];

/// Hash of a collection: BLAKE3 or SHA-256.
#[derive(Clone, Copy)]
struct Oracle {
    blake3: bool,
}

impl Oracle {
    fn hash(self, context: &str, tag: u8, data: &[u8]) -> Hash {
        if self.blake3 {
            blake3::derive_key(context, data)
        } else {
            Sha256::new().chain_update([tag]).chain_update(data).finalize().into()
        }
    }

    fn keyed(self, key: Hash, tagged: &[u8], data: &[u8]) -> Hash {
        if self.blake3 {
            blake3::keyed_hash(&key, data).into()
        } else {
            Sha256::new().chain_update(tagged).chain_update(data).finalize().into()
        }
    }

    fn leaf(self, key: &Hash, record: &Hash) -> Hash {
        let with = blake3::derive_key("selfsame merkle v1 leaf", b"");
        self.keyed(with, &[0], &[*key, *record].concat())
    }

    fn inner(self, bit: u8, left: Hash, right: Hash) -> Hash {
        let with = blake3::derive_key("selfsame merkle v1 inner", &[bit]);
        self.keyed(with, &[1, bit], &[left, right].concat())
    }

    fn empty(self) -> Hash {
        self.hash("selfsame merkle v1 empty", 4, b"")
    }

    /// The tree of leaves that are sorted by key hash.
    fn tree(self, leaves: &[(Hash, Hash)]) -> Hash {
        match leaves {
            [] => self.empty(),
            [(key, record)] => self.leaf(key, record),
            [(first, _), .., (last, _)] => {
                let bit = |hash: &Hash, at: u8| hash[usize::from(at / 8)] & (0x80 >> (at % 8)) != 0;
                let split = (0..=255).find(|&at| bit(first, at) != bit(last, at)).unwrap();
                let middle = leaves.partition_point(|(key, _)| !bit(key, split));
                let (left, right) = leaves.split_at(middle);
                self.inner(split, self.tree(left), self.tree(right))
            }
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn record_bytes(line: &Value) -> Vec<u8> {
    let mut siblings: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    for sibling in line["siblings"].as_array().unwrap() {
        let writer = sibling["writer"].as_str().unwrap();
        assert_eq!(writer.len(), 16);
        let writer = u64::from_str_radix(writer, 16).unwrap();
        let counter = number(&sibling["counter"]);
        let mut bytes = [writer, counter].map(u64::to_le_bytes).concat();
        assert!(sibling["stamp"].is_string());
        bytes.extend(number(&sibling["stamp"]).to_le_bytes());
        bytes.extend(number(&sibling["size"]).to_le_bytes());
        bytes.extend(hex::decode(sibling["value_hash"].as_str().unwrap()).unwrap());
        siblings.push((writer, counter, bytes));
    }
    siblings.sort_unstable();
    let mut bytes = vec![1];
    bytes.extend(u16::try_from(siblings.len()).unwrap().to_le_bytes());
    bytes.extend(siblings.into_iter().flat_map(|(_, _, bytes)| bytes));
    bytes
}

/// Whether every field of the digest but the clock follows from the dump.
fn check(digest: &Value, dump: &[Value]) {
    let oracle = Oracle { blake3: digest["hash_algorithm"] == "blake3" };
    let mut leaves = Vec::new();
    let (mut siblings, mut bytes, mut latest) = (0, 0, 0);
    for line in dump {
        let key = hex::decode(line["key_hex"].as_str().unwrap()).unwrap();
        let record = record_bytes(line);
        leaves.push((
            oracle.hash("selfsame v1 key", 3, &key),
            oracle.hash("selfsame v1 record", 2, &record),
        ));
        for sibling in line["siblings"].as_array().unwrap() {
            siblings += 1;
            bytes += number(&sibling["size"]);
            latest = latest.max(number(&sibling["stamp"]));
        }
    }
    leaves.sort_unstable();
    let tree = oracle.tree(&leaves);
    let entries = leaves.len() as u64;
    let name = digest["collection"].as_str().unwrap();
    let mut envelope = vec![1, if oracle.blake3 { 1 } else { 2 }];
    envelope.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    envelope.extend(name.as_bytes());
    envelope.push(if digest["policy"] == "lww" { 1 } else { 2 });
    envelope.extend(tree);
    for field in [entries, siblings, bytes, latest] {
        envelope.extend(field.to_le_bytes());
    }
    let root = oracle.hash("selfsame v1 root", 5, &envelope);
    assert_eq!(digest["root"], hex::encode(root));
    assert_eq!(digest["tree_hash"], hex::encode(tree));
    assert_eq!(
        [&digest["entries"], &digest["siblings"], &digest["bytes"]].map(|field| field.as_u64()),
        [Some(entries), Some(siblings), Some(bytes)]
    );
    assert_eq!(digest["latest_stamp"], latest.to_string());
    assert!(digest["clock"].as_str().unwrap().parse::<u64>().unwrap() >= latest);
    let buckets = digest["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 256);
    for (at, bucket) in buckets.iter().enumerate() {
        let below: Vec<_> =
            leaves.iter().copied().filter(|(key, _)| usize::from(key[0]) == at).collect();
        assert_eq!(bucket, &hex::encode(oracle.tree(&below)), "bucket {at}");
    }
}

fn a_dump_is_enough_to_compute_the_digest() {
    for hash in ["blake3", "sha256"] {
        for policy in ["lww", "siblings"] {
            let node = TestNode::with_collection(&["--policy", policy, "--hash", hash]);
            let digest = || node.run(["digest", "c", "--json"]).ended(0).json();
            let dump = || node.run(["dump", "c", "--json"]).ended(0).lines();
            check(&digest(), &dump());
            fill(&node, 300);
            assert_eq!(dump().len(), 300);
            assert!(digest()["siblings"].as_u64() > Some(300));
            check(&digest(), &dump());
            for key in ["key 0", "key 1", "key 299"] {
                node.run(["rm", "c", key]).ended(0);
            }
            check(&digest(), &dump());
            let valued = node.run(["dump", "c", "--values"]).ended(0).lines();
            let sibling = &valued[0]["siblings"][0];
            let value = hex::decode(sibling["value_hex"].as_str().unwrap()).unwrap();
            assert_eq!(sibling["size"], value.len());
        }
    }
}

/// Entries with one to three siblings.
fn fill(node: &TestNode, entries: usize) {
    node.with_home(|home| {
        let collection = home.replica.collection(&CollectionName::new("c").unwrap()).unwrap();
        for at in 0..entries {
            let key = Key::new(format!("key {at}")).unwrap();
            for sibling in 0..=at % 3 {
                let value = vec![sibling as u8; at % 50];
                let now = Node::<EmbeddedStore>::now_ms();
                collection.put_over(&key, value, &[], now).unwrap();
            }
        }
    });
}
