//! Changes of the file that keep what people wrote: comments, order, spelling.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, value};

use super::{Grant, GrantRule, Grants, PeerBook, PeerEntry, PeerName, PeersError};
use crate::net::HostPort;
use crate::types::NodeId;

/// What a new file begins with.
const HEADER: &str = "\
# The peers of this node and what each may do here; `selfsame peer` edits this file, and so may
# you. A grant is none, read or write; \"*\" is that of all collections that are not named, and
# none if it is left out. No addresses: the peer dials.

";

/// Whether an edit met a peer that was there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Edited {
    /// The peer is new.
    Added,
    /// The peer was there and was changed.
    Changed,
}

/// A peer book under change.
#[derive(Debug)]
pub struct PeerEdit {
    document: DocumentMut,
    book: PeerBook,
}

impl PeerEdit {
    pub(super) fn new(text: &str, path: &Path) -> Result<Self, PeersError> {
        let book = PeerBook::parse(text, path)?;
        let mut document: DocumentMut = text.parse().map_err(|error| broken(path, &error))?;
        // a list in brackets says the same; from here on there is one form
        if document.get("peer").is_some_and(|peers| !peers.is_array_of_tables())
            && let Some(peers) = document.remove("peer")
        {
            let tables = peers.into_array_of_tables().unwrap_or_else(|_| ArrayOfTables::new());
            document.insert("peer", Item::ArrayOfTables(tables));
        }
        Ok(Self { document, book })
    }

    /// The book as it is now.
    #[must_use]
    pub const fn book(&self) -> &PeerBook {
        &self.book
    }

    /// Adds a peer.
    ///
    /// # Errors
    /// It is there already, or its name is another's.
    pub fn add(&mut self, entry: PeerEntry) -> Result<(), PeersError> {
        if self.book.entry(&entry.id).is_some() {
            return Err(PeersError::Known(entry.id));
        }
        self.check_name(entry.name.as_ref(), &entry.id)?;
        let mut table = Table::new();
        table.insert("id", value(entry.id.to_string()));
        if let Some(name) = &entry.name {
            table.insert("name", value(name.as_str()));
        }
        table.insert("addresses", addresses(&entry.addresses));
        let mut grants = Table::new();
        for rule in entry.grants.rules() {
            write_rule(&mut grants, &rule);
        }
        table.insert("grants", Item::Table(grants));
        // comments of a file without peers stand at its end: they are its beginning now
        let before = match self.book.peers.is_empty() {
            true => self.take_trailing(),
            false => "\n".to_owned(),
        };
        table.decor_mut().set_prefix(before);
        let peers =
            self.document.entry("peer").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(peers) = peers.as_array_of_tables_mut() {
            peers.push(table);
        }
        self.book.peers.push(entry);
        Ok(())
    }

    /// Removes a peer; says whether it was there.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        let Some(at) = self.position(id) else { return false };
        self.book.peers.remove(at);
        let Some(tables) = self.tables() else { return true };
        let removed = tables.remove(at);
        if at > 0 {
            return true;
        }
        // what stands above the first peer, but for its last block, is about the whole file
        let above = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        let whole = above.rfind("\n\n").map_or("", |end| &above[..end + 2]).to_owned();
        match tables.get_mut(0) {
            Some(first) => {
                let own = first.decor().prefix().and_then(|prefix| prefix.as_str());
                let own = own.unwrap_or_default().trim_start_matches('\n').to_owned();
                first.decor_mut().set_prefix(format!("{whole}{own}"));
            }
            None => {
                let rest = self.document.trailing().as_str().unwrap_or_default().to_owned();
                self.document.set_trailing(format!("{whole}{rest}"));
            }
        }
        true
    }

    /// Changes what a peer may do here.
    ///
    /// # Errors
    /// There is no such peer.
    pub fn grant(
        &mut self,
        id: &NodeId,
        rules: impl IntoIterator<Item = GrantRule>,
    ) -> Result<(), PeersError> {
        let at = self.position(id).ok_or_else(|| PeersError::Unknown(id.to_string()))?;
        for rule in rules {
            if let Some(table) = self.table(at) {
                let grants = table.entry("grants").or_insert(Item::Table(Table::new()));
                if let Some(grants) = grants.as_table_like_mut() {
                    write_rule(grants, &rule);
                }
            }
            self.book.peers[at].grants.set(rule);
        }
        Ok(())
    }

    /// Adds a peer, or brings one that is there up to date: with these grants and no others, with
    /// these addresses before those it has, and with this name unless it has one. A name that
    /// another peer has is left out.
    ///
    /// # Errors
    /// None that the file does not have already.
    pub fn admit(&mut self, mut entry: PeerEntry) -> Result<Edited, PeersError> {
        if self.check_name(entry.name.as_ref(), &entry.id).is_err() {
            entry.name = None;
        }
        let Some(at) = self.position(&entry.id) else {
            self.add(entry)?;
            return Ok(Edited::Added);
        };
        let known = &mut self.book.peers[at];
        let mut places = entry.addresses;
        for place in std::mem::take(&mut known.addresses) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        known.addresses = places;
        known.grants = entry.grants;
        known.name = known.name.take().or(entry.name);
        let known = known.clone();
        if let Some(table) = self.table(at) {
            if let Some(name) = &known.name {
                table.entry("name").or_insert(value(name.as_str()));
            }
            table.insert("addresses", addresses(&known.addresses));
            write_grants(table, &known.grants);
        }
        Ok(Edited::Changed)
    }

    /// The text of the changed file, read back.
    pub(super) fn finish(self, path: &Path) -> Result<String, PeersError> {
        let text = self.document.to_string();
        let read = PeerBook::parse(&text, path)?;
        if read == self.book { Ok(text) } else { Err(unsure(path)) }
    }

    /// Takes what stands at the end of a file without peers; a new file begins with a header.
    fn take_trailing(&mut self) -> String {
        let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
        self.document.set_trailing("");
        if trailing.trim().is_empty() { HEADER.to_owned() } else { trailing }
    }

    fn check_name(&self, name: Option<&PeerName>, id: &NodeId) -> Result<(), PeersError> {
        match name.and_then(|name| self.book.named(name).map(|owner| (name, owner.id))) {
            Some((name, owner)) if owner != *id => {
                Err(PeersError::NameTaken { name: name.clone(), owner })
            }
            _ => Ok(()),
        }
    }

    fn position(&self, id: &NodeId) -> Option<usize> {
        self.book.peers.iter().position(|peer| peer.id == *id)
    }

    fn tables(&mut self) -> Option<&mut ArrayOfTables> {
        self.document.get_mut("peer")?.as_array_of_tables_mut()
    }

    fn table(&mut self, at: usize) -> Option<&mut Table> {
        self.tables()?.get_mut(at)
    }
}

fn addresses(places: &[HostPort]) -> Item {
    value(places.iter().map(ToString::to_string).collect::<Array>())
}

fn write_rule(grants: &mut dyn TableLike, rule: &GrantRule) {
    let name = rule.collection.as_ref().map_or("*", |name| name.as_str());
    // an inserted value would lose the comment behind the old one
    match grants.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = rule.grant.to_string().into();
            *old.decor_mut() = decor;
        }
        None => drop(grants.insert(name, value(rule.grant.to_string()))),
    }
}

fn write_grants(table: &mut Table, grants: &Grants) {
    let item = table.entry("grants").or_insert(Item::Table(Table::new()));
    let Some(written) = item.as_table_like_mut() else { return };
    let names: Vec<String> = written.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let kept = name == "*" || grants.by_collection.keys().any(|one| one.as_str() == name);
        if !kept {
            written.remove(&name);
        }
    }
    for rule in grants.rules() {
        let unsaid = rule.collection.is_none() && rule.grant == Grant::None;
        if !unsaid || written.contains_key("*") {
            write_rule(written, &rule);
        }
    }
}

fn broken(path: &Path, error: &toml_edit::TomlError) -> PeersError {
    PeersError::Invalid { path: path.into(), line: 1, reason: error.message().trim().to_owned() }
}

fn unsure(path: &Path) -> PeersError {
    PeersError::Invalid {
        path: path.into(),
        line: 1,
        reason: "the file is written in a way that cannot be changed safely: write each peer as \
                 [[peer]] with [peer.grants], or change it by hand"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;

    const PATH: &str = "peers.toml";

    fn id(seed: u8) -> NodeId {
        Identity::from_secret(&[seed; 32]).node_id()
    }

    fn entry(seed: u8, name: Option<&str>, grants: &[&str]) -> PeerEntry {
        PeerEntry {
            id: id(seed),
            name: name.map(|name| name.parse().unwrap()),
            addresses: vec!["192.0.2.7:7447".parse().unwrap()],
            grants: grants.iter().map(|rule| rule.parse::<GrantRule>().unwrap()).collect(),
        }
    }

    fn edited(text: &str, change: impl FnOnce(&mut PeerEdit)) -> String {
        let mut edit = PeerEdit::new(text, Path::new(PATH)).unwrap();
        change(&mut edit);
        edit.finish(Path::new(PATH)).unwrap()
    }

    #[test]
    fn a_new_file_begins_with_what_it_is_and_can_lose_its_first_peer() {
        let one = edited("", |edit| edit.add(entry(1, Some("a"), &["*=write"])).unwrap());
        assert!(one.starts_with(HEADER), "{one}");
        let two = edited(&one, |edit| edit.add(entry(2, None, &["c=read"])).unwrap());
        assert!(two.starts_with(&one), "{two}");
        let second = edited(&two, |edit| assert!(edit.remove(&id(1))));
        assert!(second.starts_with(HEADER) && !second.contains("\"a\""), "{second}");
        let none = edited(&second, |edit| assert!(edit.remove(&id(2))));
        assert_eq!(none, HEADER);
        let again = edited(&none, |edit| edit.add(entry(1, Some("a"), &["*=write"])).unwrap());
        assert_eq!(again, one);
    }

    #[test]
    fn what_people_wrote_stays() {
        let text = format!(
            "# mine\n\n# the one in Berlin\n[[peer]] # rack 3\nid = \"{}\" # its key\n\
             grants = {{ \"*\" = \"read\" }}   # for now\n\n# the other\n[[peer]]\n\
             id = \"{}\"\n[peer.grants]\nplayers = \"write\" # until May\n# the end\n",
            id(1),
            id(2)
        );
        let rule = |text: &str| text.parse::<GrantRule>().unwrap();
        let changed = edited(&text, |edit| {
            edit.grant(&id(1), [rule("*=write")]).unwrap();
            edit.grant(&id(2), [rule("players=none"), rule("a b=read")]).unwrap();
        });
        for kept in [
            "# mine",
            "# the one in Berlin",
            "# rack 3",
            "# its key",
            "# for now",
            "# the other",
            "# until May",
            "# the end",
        ] {
            assert!(changed.contains(kept), "{kept} is lost:\n{changed}");
        }
        let removed = edited(&changed, |edit| assert!(edit.remove(&id(1))));
        assert!(removed.starts_with("# mine\n\n# the other\n[[peer]]"), "{removed}");
        assert!(!removed.contains("Berlin"));
    }

    #[test]
    fn a_list_in_brackets_can_be_changed_too() {
        let text = format!("peer = [{{ id = \"{}\", name = \"a\" }}]\n", id(1));
        let changed = edited(&text, |edit| {
            edit.add(entry(2, Some("b"), &["*=read"])).unwrap();
            edit.grant(&id(1), ["c=read".parse().unwrap()]).unwrap();
        });
        let book = PeerBook::parse(&changed, Path::new(PATH)).unwrap();
        assert_eq!(book.peers.len(), 2);
        assert_eq!(book.find("a").unwrap().grants.to_string(), "*=none, c=read");
    }

    #[test]
    fn ids_and_names_stay_unique() {
        let text = edited("", |edit| edit.add(entry(1, Some("a"), &[])).unwrap());
        let mut edit = PeerEdit::new(&text, Path::new(PATH)).unwrap();
        assert!(matches!(edit.add(entry(1, None, &[])), Err(PeersError::Known(_))));
        let taken = edit.add(entry(2, Some("a"), &[])).unwrap_err();
        assert!(taken.to_string().contains(&id(1).to_string()), "{taken}");
        assert_eq!(edit.admit(entry(2, Some("a"), &["*=read"])).unwrap(), Edited::Added);
        assert_eq!(edit.book().entry(&id(2)).unwrap().name, None);
    }

    #[test]
    fn who_is_admitted_again_gets_the_new_grants_and_no_old_ones() {
        let text = edited("", |edit| {
            edit.add(entry(1, Some("a"), &["*=write", "c=write", "d=read"])).unwrap();
        });
        let again = edited(&text, |edit| {
            let mut new = entry(1, Some("b"), &["c=read"]);
            new.addresses = vec!["node.example:1".parse().unwrap()];
            assert_eq!(edit.admit(new).unwrap(), Edited::Changed);
        });
        let book = PeerBook::parse(&again, Path::new(PATH)).unwrap();
        let peer = book.entry(&id(1)).unwrap();
        assert_eq!(peer.grants.to_string(), "*=none, c=read");
        assert_eq!(peer.name.as_ref().unwrap().as_str(), "a");
        let places: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(places, ["node.example:1", "192.0.2.7:7447"]);
    }
}
