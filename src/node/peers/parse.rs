//! Reads the file, and says where it is wrong.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::book::{Grant, Grants, PeerBook, PeerEntry, PeerName};
use super::{GrantRule, PeersError};
use crate::net::{HostPort, IdentityError, parse_node_id};
use crate::types::{CollectionName, NodeId, TypeError};

/// Text that stands for something, checked where it stands, so that an error has its line.
pub(in crate::node) struct Checked<T>(pub(in crate::node) T);

/// What [`Checked`] needs to know.
pub(in crate::node) trait Word: Sized {
    const EXPECTED: &str;
    fn read(text: &str) -> Result<Self, String>;
}

fn told<T, E: fmt::Display>(read: Result<T, E>) -> Result<T, String> {
    read.map_err(|error| error.to_string())
}

impl Word for NodeId {
    const EXPECTED: &str = "a node id: 64 hex digits in quotes";
    fn read(text: &str) -> Result<Self, String> {
        told::<_, IdentityError>(parse_node_id(text))
    }
}

impl Word for PeerName {
    const EXPECTED: &str = "a name in quotes";
    fn read(text: &str) -> Result<Self, String> {
        told(Self::from_str(text))
    }
}

impl Word for HostPort {
    const EXPECTED: &str = "an address in quotes: \"HOST:PORT\"";
    fn read(text: &str) -> Result<Self, String> {
        told(Self::from_str(text))
    }
}

impl Word for Grant {
    const EXPECTED: &str = "a grant: \"none\", \"read\" or \"write\"";
    fn read(text: &str) -> Result<Self, String> {
        told(Self::from_str(text))
    }
}

/// A collection's name, or `*`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Granted(Option<CollectionName>);

impl Word for Granted {
    const EXPECTED: &str = "the name of a collection, or \"*\"";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self(None)),
            name => told::<_, TypeError>(CollectionName::new(name)).map(|name| Self(Some(name))),
        }
    }
}

impl<'de, T: Word> Deserialize<'de> for Checked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // a visitor's error has the line of the element, any other that of the whole list
        deserializer.deserialize_str(WordVisitor(PhantomData))
    }
}

struct WordVisitor<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for WordVisitor<T> {
    type Value = Checked<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Checked<T>, E> {
        T::read(text).map(Checked).map_err(E::custom)
    }
}

/// Grants as they stand in a file.
pub(in crate::node) struct GrantsText(pub(in crate::node) Grants);

impl<'de> Deserialize<'de> for GrantsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = BTreeMap::<Spanned<String>, Checked<Grant>>::deserialize(deserializer)?;
        let mut grants = Grants::default();
        for (name, Checked(grant)) in rules {
            let Granted(collection) =
                Granted::read(name.get_ref()).map_err(serde::de::Error::custom)?;
            grants.set(GrantRule { collection, grant });
        }
        Ok(Self(grants))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookText {
    #[serde(default)]
    peer: Vec<PeerText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerText {
    id: Spanned<Checked<NodeId>>,
    name: Option<Spanned<Checked<PeerName>>>,
    #[serde(default)]
    addresses: Vec<Checked<HostPort>>,
    grants: Option<GrantsText>,
}

/// The line on which a span begins, from 1.
pub(in crate::node) fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// An error of the reader, with its line.
pub(in crate::node) fn invalid(text: &str, path: &Path, error: &toml::de::Error) -> PeersError {
    let reason = error.message().trim().to_owned();
    PeersError::Invalid { path: path.into(), line: line_of(text, error.span()), reason }
}

pub(super) fn book(text: &str, path: &Path) -> Result<PeerBook, PeersError> {
    let read: BookText = toml::from_str(text).map_err(|error| invalid(text, path, &error))?;
    let twice = |span: Range<usize>, first: usize, what: String| PeersError::Invalid {
        path: path.into(),
        line: line_of(text, Some(span)),
        reason: format!("{what} is on line {first} already"),
    };
    let (mut ids, mut names) = (HashMap::new(), HashMap::new());
    let mut book = PeerBook::default();
    for peer in read.peer {
        let (span, Checked(id)) = (peer.id.span(), peer.id.into_inner());
        if let Some(first) = ids.insert(id, line_of(text, Some(span.clone()))) {
            return Err(twice(span, first, format!("the id {id}")));
        }
        let mut called = None;
        if let Some(name) = peer.name {
            let (span, Checked(name)) = (name.span(), name.into_inner());
            if let Some(first) = names.insert(name.clone(), line_of(text, Some(span.clone()))) {
                return Err(twice(span, first, format!("the name {name}")));
            }
            called = Some(name);
        }
        book.peers.push(PeerEntry {
            id,
            name: called,
            addresses: peer.addresses.into_iter().map(|Checked(place)| place).collect(),
            grants: peer.grants.map(|GrantsText(grants)| grants).unwrap_or_default(),
        });
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;
    use proptest::prelude::*;

    fn id(seed: u8) -> String {
        Identity::from_secret(&[seed; 32]).node_id().to_string()
    }

    fn error(text: &str) -> String {
        book(text, Path::new("p")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let (a, b) = (id(1), id(2));
        for (text, says) in [
            (format!("[[peer]]\nid = \"{a}\"\nnames = \"x\"\n"), "p, line 3: unknown field"),
            (format!("[[peers]]\nid = \"{a}\"\n"), "p, line 1: unknown field"),
            ("[[peer]]\nname = \"x\"\n".into(), "p, line 1: missing field `id`"),
            ("\n[[peer]]\nid = \"12\"\n".into(), "p, line 3: \"12\" is not a node id"),
            ("[[peer]]\nid = 12\n".into(), "p, line 2: invalid type: integer `12`, expected a"),
            (
                format!("[[peer]]\nid = \"{a}\"\naddresses = [\n\"a:1\",\n\"a\",\n]\n"),
                "p, line 5: \"a\" is no network address",
            ),
            (format!("[[peer]]\nid = \"{a}\"\nname = \"a b\"\n"), "p, line 3: \"a b\" is no name"),
            (
                format!("[[peer]]\nid = \"{a}\"\n[peer.grants]\n\nc = \"all\"\n"),
                "p, line 5: \"all\" is no grant",
            ),
            (
                format!("[[peer]]\nid = \"{a}\"\n\n[[peer]]\nid = \"{}\"\n", a.to_uppercase()),
                "p, line 5: the id",
            ),
            (
                format!(
                    "[[peer]]\nid = \"{a}\"\nname = \"x\"\n[[peer]]\nid = \"{b}\"\nname = \"x\"\n"
                ),
                "p, line 6: the name x is on line 3 already",
            ),
            ("[[peer]\n".into(), "p, line 1: "),
        ] {
            let said = error(&text);
            assert!(said.starts_with(says), "{said}\n{text}");
        }
        let empty = format!("[[peer]]\nid = \"{a}\"\n[peer.grants]\n\"\" = \"read\"\n");
        assert!(error(&empty).contains("1 to 255 bytes"), "{}", error(&empty));
    }

    #[test]
    fn what_is_left_out_is_not_granted() {
        let text = format!("[[peer]]\nid = \"{}\"\n", id(1));
        let read = book(&text, Path::new("p")).unwrap();
        let name = CollectionName::new("c").unwrap();
        assert_eq!(read.peers[0].grants.of(&name), Grant::None);
        assert!(read.peers[0].addresses.is_empty());
        assert_eq!(book("", Path::new("p")).unwrap(), PeerBook::default());
    }

    #[test]
    fn a_peer_is_found_by_name_id_or_the_beginning_of_its_id() {
        let (a, b) = (id(1), id(2));
        let text =
            format!("[[peer]]\nid = \"{a}\"\nname = \"{}\"\n[[peer]]\nid = \"{b}\"\n", &b[..6]);
        let read = book(&text, Path::new("p")).unwrap();
        let found = |text: &str| read.find(text).map(|peer| peer.id.to_string());
        assert_eq!(found(&a).unwrap(), a);
        assert_eq!(found(&a[..4].to_uppercase()).unwrap(), a);
        assert_eq!(found(&b[..6]).unwrap(), a, "a name goes before an id");
        assert_eq!(found(&b[..7]).unwrap(), b);
        for text in ["", &a[..3], "zzzz", &format!("{a}0")] {
            assert!(matches!(found(text), Err(PeersError::Unknown(_))), "{text}");
        }
        let entry = |first: u8| {
            let mut id = [0x11; 32];
            id[31] = first;
            PeerEntry {
                id: NodeId(id),
                name: None,
                addresses: Vec::new(),
                grants: Grants::default(),
            }
        };
        let alike = PeerBook { peers: vec![entry(1), entry(2)] };
        let error = alike.find("1111").unwrap_err();
        assert!(matches!(&error, PeersError::Ambiguous { ids, .. } if ids.len() == 2), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[\\[peer\\]\\]\n|id = \"[0-9a-f]{0,64}\"\n|.{0,20}\n){0,6}") {
            let _ = book(&text, Path::new("p"));
        }

        #[test]
        fn rules_are_read_as_they_are_shown(name in "[^\0]{1,20}", grant in 0..3_usize) {
            let grant = [Grant::None, Grant::Read, Grant::Write][grant];
            let collection = (name != "*").then(|| CollectionName::new(name.clone()).unwrap());
            let rule = GrantRule { collection, grant };
            prop_assert_eq!(rule.to_string().parse::<GrantRule>().unwrap(), rule);
        }
    }
}
