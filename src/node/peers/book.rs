//! The words of the peer book.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{PeersError, parse};
use crate::net::{HostPort, PeerAddress};
use crate::types::{CollectionName, NodeId};

/// Fewest digits by which an id can be named.
const MIN_PREFIX: usize = 4;
/// Longest name of a peer: shorter than an id, so that none can be taken for one.
const MAX_NAME_BYTES: usize = 63;

/// What a peer may do with a collection here; each includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Grant {
    /// Nothing: for the peer the collection does not exist.
    #[default]
    None,
    /// It may compare and take entries.
    Read,
    /// It may also give entries, which are applied here.
    Write,
}

impl FromStr for Grant {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            other => Err(PeersError::Grant(other.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// A grant for one collection, or for all that are not named: `players=read`, `*=write`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GrantRule {
    /// The collection; none stands for all that are not named.
    pub collection: Option<CollectionName>,
    /// What is granted.
    pub grant: Grant,
}

impl FromStr for GrantRule {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PeersError::Rule(text.chars().take(300).collect());
        // a name may hold the sign, a grant does not
        let (collection, grant) = text.rsplit_once('=').ok_or_else(wrong)?;
        let collection = match collection {
            "*" => None,
            name => Some(CollectionName::new(name).map_err(|_| wrong())?),
        };
        Ok(Self { collection, grant: grant.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for GrantRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collection = self.collection.as_ref().map_or("*", CollectionName::as_str);
        write!(f, "{collection}={}", self.grant)
    }
}

/// What a peer may do here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grants {
    /// For collections that are not named.
    pub default: Grant,
    /// For those that are.
    pub by_collection: BTreeMap<CollectionName, Grant>,
}

impl Grants {
    /// The same for every collection.
    #[must_use]
    pub const fn all(grant: Grant) -> Self {
        Self { default: grant, by_collection: BTreeMap::new() }
    }

    /// What is granted for a collection.
    #[must_use]
    pub fn of(&self, collection: &CollectionName) -> Grant {
        self.by_collection.get(collection).copied().unwrap_or(self.default)
    }

    /// Changes what a rule speaks of.
    pub fn set(&mut self, rule: GrantRule) {
        match rule.collection {
            Some(name) => drop(self.by_collection.insert(name, rule.grant)),
            None => self.default = rule.grant,
        }
    }

    /// The rules that make these grants, the default first.
    pub fn rules(&self) -> impl Iterator<Item = GrantRule> + '_ {
        let default = GrantRule { collection: None, grant: self.default };
        let named = self.by_collection.iter();
        let named =
            named.map(|(name, grant)| GrantRule { collection: Some(name.clone()), grant: *grant });
        std::iter::once(default).chain(named)
    }
}

impl FromIterator<GrantRule> for Grants {
    /// Later rules win; what no rule speaks of is not granted.
    fn from_iter<I: IntoIterator<Item = GrantRule>>(rules: I) -> Self {
        let mut grants = Self::default();
        rules.into_iter().for_each(|rule| grants.set(rule));
        grants
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rule) in self.rules().enumerate() {
            write!(f, "{}{rule}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// How people call a peer: 1 to 63 letters, digits, `-`, `_` and dots, unique in its book.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerName(Box<str>);

impl PeerName {
    /// Checks the name.
    ///
    /// # Errors
    /// Other characters, none, or more than 63 bytes.
    pub fn new(text: &str) -> Result<Self, PeersError> {
        let sound = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let begins = text.starts_with(char::is_alphanumeric);
        if begins && text.len() <= MAX_NAME_BYTES && text.chars().all(sound) {
            Ok(Self(text.into()))
        } else {
            Err(PeersError::Name(text.chars().take(80).collect()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A peer: who it is, where it is, what it may do here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerEntry {
    /// Its id.
    pub id: NodeId,
    /// How people call it.
    pub name: Option<PeerName>,
    /// Where it listens, to be tried in this order. None: it dials.
    pub addresses: Vec<HostPort>,
    /// What it may do here.
    pub grants: Grants,
}

impl PeerEntry {
    /// Its addresses with its id, in the order in which they are tried.
    pub fn dialled(&self) -> impl Iterator<Item = PeerAddress> + '_ {
        self.addresses.iter().map(|place| PeerAddress::new(self.id, place.clone()))
    }
}

impl fmt::Display for PeerEntry {
    /// Its name, or its id if it has none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => name.fmt(f),
            None => self.id.fmt(f),
        }
    }
}

/// The peers of a node: no id and no name is there twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerBook {
    /// In the order of the file.
    pub peers: Vec<PeerEntry>,
}

impl PeerBook {
    /// Reads the text of the file at `path`, which only errors mention.
    ///
    /// # Errors
    /// It is no peer book.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PeersError> {
        parse::book(text, path)
    }

    /// Reads the file; one that is not there has no peers.
    ///
    /// # Errors
    /// It cannot be read, others may change it, or it is no peer book.
    pub fn load(path: &Path) -> Result<Self, PeersError> {
        match super::files::read(path)? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::default()),
        }
    }

    /// The entry of a node.
    #[must_use]
    pub fn entry(&self, id: &NodeId) -> Option<&PeerEntry> {
        self.peers.iter().find(|peer| peer.id == *id)
    }

    /// The peer that has a name.
    #[must_use]
    pub fn named(&self, name: &PeerName) -> Option<&PeerEntry> {
        self.peers.iter().find(|peer| peer.name.as_ref() == Some(name))
    }

    /// The peer that is meant: by its name, its id, or the beginning of its id (4 digits or
    /// more) if no other id begins so.
    ///
    /// # Errors
    /// None is, or more than one.
    pub fn find(&self, text: &str) -> Result<&PeerEntry, PeersError> {
        let named = |peer: &&PeerEntry| peer.name.as_ref().is_some_and(|n| n.as_str() == text);
        if let Some(peer) = self.peers.iter().find(named) {
            return Ok(peer);
        }
        let unknown = || PeersError::Unknown(text.chars().take(80).collect());
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || text.len() < MIN_PREFIX {
            return Err(unknown());
        }
        let digits = text.to_ascii_lowercase();
        let begin_so: Vec<_> =
            self.peers.iter().filter(|peer| peer.id.to_string().starts_with(&digits)).collect();
        match begin_so[..] {
            [] => Err(unknown()),
            [peer] => Ok(peer),
            _ => Err(PeersError::Ambiguous {
                text: digits,
                ids: begin_so.iter().map(|peer| peer.id).collect(),
            }),
        }
    }
}
