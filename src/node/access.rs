//! Who may do what here, as it is now: the peer book and the list of allowed nodes.
//!
//! One [`Access`] is shared by all that decides: the handshake, the greeting, the hello, every
//! step of a session. It can be replaced while they run, and what is taken back ends at once.
//!
//! ```
//! use selfsame::net::{Admission, Identity};
//! use selfsame::node::access::Access;
//! use selfsame::node::peers::{Grant, Grants, PeerBook, PeerEntry};
//! use selfsame::types::CollectionName;
//!
//! let [berlin, oslo, lima] = [1, 2, 3].map(|seed| Identity::from_secret(&[seed; 32]).node_id());
//! let grants = Grants::all(Grant::Read);
//! let entry = PeerEntry { id: berlin, name: None, addresses: Vec::new(), grants };
//! let access = Access::new(PeerBook { peers: vec![entry] }, [oslo]);
//! let players = CollectionName::new("players")?;
//! assert_eq!(access.grant(&berlin, &players), Grant::Read);
//! assert_eq!(access.grant(&oslo, &players), Grant::Write); // allowed: may do everything
//! assert_eq!(access.grant(&lima, &players), Grant::None);
//! access.set_book(PeerBook::default());
//! assert!(!access.admits(&berlin));
//! # Ok::<(), selfsame::types::TypeError>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;

use super::peers::{Grant, Mark, PeerBook, PeerEntry, PeerFiles, PeersError};
use crate::net::Admission;
use crate::session::{AbortCode, Mode};
use crate::types::{CollectionName, NodeId};

/// How often the file of the peer book is looked at.
const FOLLOWED_EVERY: Duration = Duration::from_secs(1);

/// Who may do what here. Clones share one state.
///
/// A node in the peer book may do what its entry grants; one that is only on the list of
/// allowed nodes may read and write everything; any other may do nothing.
#[derive(Clone, Debug)]
pub struct Access {
    shared: Arc<Shared>,
    vouched: Option<NodeId>,
}

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    files: Option<PeerFiles>,
    /// The file of the book when it was last read.
    read: Mutex<Option<Mark>>,
}

#[derive(Debug, Default)]
struct Rules {
    book: Arc<PeerBook>,
    by_id: BTreeMap<NodeId, usize>,
    allowed: BTreeSet<NodeId>,
}

impl Rules {
    fn set_book(&mut self, book: PeerBook) {
        self.by_id = book.peers.iter().enumerate().map(|(at, peer)| (peer.id, at)).collect();
        self.book = Arc::new(book);
    }

    fn entry(&self, id: &NodeId) -> Option<&PeerEntry> {
        self.by_id.get(id).and_then(|&at| self.book.peers.get(at))
    }

    fn knows(&self, id: &NodeId) -> bool {
        self.by_id.contains_key(id) || self.allowed.contains(id)
    }

    fn grant(&self, id: &NodeId, collection: &CollectionName) -> Grant {
        match self.entry(id) {
            Some(entry) => entry.grants.of(collection),
            None if self.allowed.contains(id) => Grant::Write,
            None => Grant::None,
        }
    }
}

impl Default for Access {
    /// Admits nobody.
    fn default() -> Self {
        Self::new(PeerBook::default(), [])
    }
}

impl Access {
    /// From a book and a list, without files.
    #[must_use]
    pub fn new(book: PeerBook, allowed: impl IntoIterator<Item = NodeId>) -> Self {
        Self::with(book, allowed, None, None)
    }

    /// From the peer book of a data folder, and a list.
    ///
    /// # Errors
    /// The book cannot be used.
    pub fn open(
        folder: &Path,
        allowed: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, PeersError> {
        let files = PeerFiles::new(folder);
        // before it is read: what changes meanwhile is read once more
        let mark = files.mark();
        Ok(Self::with(files.book()?, allowed, Some(files), mark))
    }

    fn with(
        book: PeerBook,
        allowed: impl IntoIterator<Item = NodeId>,
        files: Option<PeerFiles>,
        read: Option<Mark>,
    ) -> Self {
        let mut rules = Rules { allowed: allowed.into_iter().collect(), ..Rules::default() };
        rules.set_book(book);
        let rules = watch::Sender::new(rules);
        let shared = Shared { rules, files, read: Mutex::new(read) };
        Self { shared: Arc::new(shared), vouched: None }
    }

    /// The same, for a command in which this node's operator names a peer: unless the peer is
    /// known, the command itself is its grant, to read and write everything. This does not make
    /// it a node that may connect.
    #[must_use]
    pub fn vouching_for(&self, id: NodeId) -> Self {
        Self { shared: Arc::clone(&self.shared), vouched: Some(id) }
    }

    /// What a peer may do with a collection here.
    #[must_use]
    pub fn grant(&self, id: &NodeId, collection: &CollectionName) -> Grant {
        let rules = self.shared.rules.borrow();
        match self.vouched {
            Some(vouched) if vouched == *id && !rules.knows(id) => Grant::Write,
            _ => rules.grant(id, collection),
        }
    }

    /// Whether a session that the peer opened may go on.
    ///
    /// # Errors
    /// What the peer is to be told if not. A collection that it may not see does not exist.
    pub fn serves(
        &self,
        id: &NodeId,
        collection: &CollectionName,
        mode: Mode,
    ) -> Result<(), AbortCode> {
        enough(self.grant(id, collection), asked_of(mode))
    }

    /// Whether a session that this node opened may go on.
    ///
    /// # Errors
    /// What the peer is to be told if not.
    pub fn opens(
        &self,
        id: &NodeId,
        collection: &CollectionName,
        mode: Mode,
    ) -> Result<(), AbortCode> {
        enough(self.grant(id, collection), needed_for(mode))
    }

    /// The peer book as it is now.
    #[must_use]
    pub fn book(&self) -> Arc<PeerBook> {
        Arc::clone(&self.shared.rules.borrow().book)
    }

    /// The nodes that may do everything, beside those in the book.
    #[must_use]
    pub fn allowed(&self) -> BTreeSet<NodeId> {
        self.shared.rules.borrow().allowed.clone()
    }

    /// The files behind it, if it has any.
    #[must_use]
    pub fn files(&self) -> Option<&PeerFiles> {
        self.shared.files.as_ref()
    }

    /// Replaces the peer book.
    pub fn set_book(&self, book: PeerBook) {
        self.shared.rules.send_modify(|rules| rules.set_book(book));
    }

    /// Replaces the list of nodes that may do everything.
    pub fn set_allowed(&self, allowed: impl IntoIterator<Item = NodeId>) {
        let allowed = allowed.into_iter().collect();
        self.shared.rules.send_modify(|rules| rules.allowed = allowed);
    }

    /// Lets a node do everything from now on; says whether it was on the list before.
    pub fn allow(&self, id: NodeId) -> bool {
        let mut new = false;
        self.shared.rules.send_modify(|rules| new = rules.allowed.insert(id));
        new
    }

    /// Takes a node off the list, and out of the book; says whether it was known.
    pub fn revoke(&self, id: &NodeId) -> bool {
        let mut known = false;
        self.shared.rules.send_modify(|rules| {
            known = rules.knows(id);
            rules.allowed.remove(id);
            let mut book = PeerBook::clone(&rules.book);
            book.peers.retain(|peer| peer.id != *id);
            rules.set_book(book);
        });
        known
    }

    /// Reads the peer book again; says whether it had changed. One that cannot be used changes
    /// nothing. Without files nothing is read.
    ///
    /// # Errors
    /// The book cannot be used.
    pub fn reload(&self) -> Result<bool, PeersError> {
        let Some(files) = self.files() else { return Ok(false) };
        let mark = files.mark();
        let book = files.book()?;
        *self.shared.read.lock().unwrap_or_else(PoisonError::into_inner) = mark;
        let changed = *self.shared.rules.borrow().book != book;
        if changed {
            self.set_book(book);
        }
        Ok(changed)
    }

    /// Reads the peer book whenever its file changes, within a second or so, and says what came
    /// of that: other processes write it too. Never ends; without files it does nothing.
    pub async fn follow(&self, mut tell: impl FnMut(Result<(), PeersError>)) {
        let mut complaint = None;
        let mut ticks = tokio::time::interval(FOLLOWED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(files) = self.files() else { return std::future::pending().await };
            let read = *self.shared.read.lock().unwrap_or_else(PoisonError::into_inner);
            if complaint.is_none() && read == files.mark() {
                continue;
            }
            match block_in_place(|| self.reload()) {
                Ok(changed) => {
                    if changed || complaint.is_some() {
                        tell(Ok(()));
                    }
                    complaint = None;
                }
                // looked at again each time, since a mode may be put right; told of once
                Err(error) => {
                    let said = Some(error.to_string());
                    if complaint != said {
                        tell(Err(error));
                        complaint = said;
                    }
                }
            }
        }
    }

    /// Waits until a node is no longer admitted.
    pub async fn revoked(&self, id: &NodeId) {
        let mut rules = self.shared.rules.subscribe();
        // the sender lives as long as `self` does
        let _ = rules.wait_for(|rules| !rules.knows(id)).await;
    }
}

impl Admission for Access {
    fn admits(&self, id: &NodeId) -> bool {
        self.shared.rules.borrow().knows(id)
    }

    /// While there is a file of open invitations: other processes write it too.
    fn pairs(&self) -> bool {
        self.files().is_some_and(|files| files.invites_path().exists())
    }
}

/// What the opener of a session needs at the other end.
#[must_use]
pub const fn asked_of(mode: Mode) -> Grant {
    match mode {
        Mode::Pull | Mode::Compare => Grant::Read,
        Mode::Both | Mode::Push => Grant::Write,
    }
}

/// What the peer needs here for a session that this node opens.
#[must_use]
pub const fn needed_for(mode: Mode) -> Grant {
    match mode {
        Mode::Push | Mode::Compare => Grant::Read,
        Mode::Both | Mode::Pull => Grant::Write,
    }
}

const fn enough(held: Grant, needed: Grant) -> Result<(), AbortCode> {
    match (held, needed) {
        (Grant::Write, _) | (Grant::Read, Grant::Read | Grant::None) => Ok(()),
        (Grant::Read, Grant::Write) => Err(AbortCode::ReadOnly),
        (Grant::None, _) => Err(AbortCode::UnknownCollection),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;

    fn id(seed: u8) -> NodeId {
        Identity::from_secret(&[seed; 32]).node_id()
    }

    fn name(text: &str) -> CollectionName {
        CollectionName::new(text).unwrap()
    }

    fn book(peers: &[(NodeId, &str)]) -> PeerBook {
        let entry = |(id, rules): &(NodeId, &str)| PeerEntry {
            id: *id,
            name: None,
            addresses: Vec::new(),
            grants: rules.split_whitespace().map(|rule| rule.parse().unwrap()).collect(),
        };
        PeerBook { peers: peers.iter().map(entry).collect() }
    }

    #[test]
    fn the_book_decides_for_whom_it_lists_and_the_list_for_others() {
        let access = Access::new(book(&[(id(1), "c=read")]), [id(1), id(2)]);
        assert_eq!(access.grant(&id(1), &name("c")), Grant::Read);
        assert_eq!(access.grant(&id(1), &name("d")), Grant::None);
        assert_eq!(access.grant(&id(2), &name("d")), Grant::Write);
        assert_eq!(access.grant(&id(3), &name("c")), Grant::None);
        assert!(access.admits(&id(1)) && access.admits(&id(2)) && !access.admits(&id(3)));
        assert!(access.revoke(&id(1)));
        assert!(!access.admits(&id(1)));
    }

    #[test]
    fn vouching_helps_only_whom_nobody_knows_and_only_this_end() {
        let access = Access::new(book(&[(id(1), "c=read")]), []);
        let vouched = access.vouching_for(id(1));
        assert_eq!(vouched.grant(&id(1), &name("c")), Grant::Read);
        let vouched = access.vouching_for(id(2));
        assert_eq!(vouched.grant(&id(2), &name("c")), Grant::Write);
        assert_eq!(vouched.grant(&id(3), &name("c")), Grant::None);
        assert!(!vouched.admits(&id(2)));
        assert_eq!(access.grant(&id(2), &name("c")), Grant::None);
    }

    #[test]
    fn each_mode_needs_what_it_does() {
        use AbortCode::{ReadOnly, UnknownCollection};
        let all = [Mode::Both, Mode::Pull, Mode::Push, Mode::Compare];
        for (grant, served, opened) in [
            ("c=none", [Err(UnknownCollection); 4], [Err(UnknownCollection); 4]),
            (
                "c=read",
                [Err(ReadOnly), Ok(()), Err(ReadOnly), Ok(())],
                [Err(ReadOnly), Err(ReadOnly), Ok(()), Ok(())],
            ),
            ("c=write", [Ok(()); 4], [Ok(()); 4]),
        ] {
            let access = Access::new(book(&[(id(1), grant)]), []);
            for (at, mode) in all.into_iter().enumerate() {
                assert_eq!(access.serves(&id(1), &name("c"), mode), served[at], "{grant} {mode:?}");
                assert_eq!(access.opens(&id(1), &name("c"), mode), opened[at], "{grant} {mode:?}");
            }
        }
    }

    #[test]
    fn a_book_that_cannot_be_read_again_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(&format!("[[peer]]\nid = \"{}\"\n", id(1)));
        let access = Access::open(folder.path(), []).unwrap();
        assert!(access.admits(&id(1)));
        assert!(!access.reload().unwrap());
        write("[[peer]]\n");
        assert!(access.reload().is_err());
        assert!(access.admits(&id(1)));
        write("");
        assert!(access.reload().unwrap());
        assert!(!access.admits(&id(1)));
    }
}
