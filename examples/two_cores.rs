//! Two replicas in memory, and a session between two cores: no socket, no runtime, no thread.
//!
//! ```sh
//! cargo run --no-default-features --features session --example two_cores
//! ```

use std::error::Error;

use selfsame::clock::Stamp;
use selfsame::limits::Limits;
use selfsame::merkle::NodeKey;
use selfsame::replica::{CollectionView, Replica, ReplicaOptions, Snapshot, ViewError};
use selfsame::session::{Lane, Outcome, Session, Setup, SyncConfig};
use selfsame::store::MemoryStore;
use selfsame::types::{CollectionName, CollectionSpec, Key, NodeId, Policy};

const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];

/// The system's random numbers, in earnest: here each replica counts from another number.
fn random(mut number: u64) -> Box<dyn FnMut() -> u64 + Send> {
    Box::new(move || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
        number
    })
}

struct Node {
    key: NodeKey,
    replica: Replica<MemoryStore>,
    now_ms: u64,
}

impl Node {
    fn new(seed: u8) -> Result<Self, Box<dyn Error>> {
        let store = MemoryStore::default();
        let options = ReplicaOptions::default();
        let replica = Replica::open(store, options, random(u64::from(seed)))?;
        replica.create_collection(players()?)?;
        Ok(Self { key: NodeKey::from_seed(&[seed; 32]), replica, now_ms: 1_700_000_000_000 })
    }

    fn setup(&self, peer: NodeId, secret: [u8; 32]) -> Setup {
        Setup {
            me: self.key.node_id(),
            peer,
            config: SyncConfig::default(),
            limits: Limits::default(),
            // another for each session, in earnest, and known to both ends only: for instance TLS's
            // exporter over the number of the stream
            secret,
            clock: Stamp::new(self.now_ms, 0),
        }
    }

    /// Carries out what the session asks for.
    fn serve(
        &self,
        peer: &NodeId,
        session: &mut Session,
        view: &Snapshot<MemoryStore>,
    ) -> Result<(), Box<dyn Error>> {
        let collection = self.replica.collection(&players()?.name)?;
        for found in session.poll_clones() {
            collection.note_clone(peer, found, self.now_ms)?;
        }
        if let Some(heard) = session.poll_heard() {
            collection.hear_mark(peer, heard.mark, heard.since.as_ref())?;
        }
        while let Some(updates) = session.poll_apply(true) {
            match collection.apply(updates, view.epoch(), self.now_ms) {
                Ok(outcomes) => session.applied(&outcomes, view),
                Err(error) => session.store_failed(&error.to_string()),
            }
        }
        if let Some(request) = session.poll_join() {
            let joined = collection.join(&request, self.now_ms).map(|_| ());
            let joined = joined.map_err(|error| ViewError::Store(error.to_string()));
            session.joined(joined, &|message| self.key.sign(message).to_bytes());
        }
        Ok(())
    }
}

fn players() -> Result<CollectionSpec, Box<dyn Error>> {
    Ok(CollectionSpec {
        name: CollectionName::new("players")?,
        algorithm: Default::default(),
        policy: Policy::Lww,
    })
}

/// Moves frames between two sessions until both have an outcome.
fn reconcile(a: &Node, b: &Node, round: u8) -> Result<[Outcome; 2], Box<dyn Error>> {
    let nodes = [a, b];
    let name = players()?.name;
    let views =
        [a.replica.collection(&name)?.snapshot()?, b.replica.collection(&name)?.snapshot()?];
    let mut first = Session::initiate(a.setup(b.key.node_id(), [round; 32]), &views[0]);
    let hello = first.poll_transmit(Lane::Control, &views[0]).ok_or("a session begins")?;
    let hello = Session::read_hello(&hello).map_err(|code| code.to_string())?;
    let second = Session::respond(&hello, b.setup(a.key.node_id(), [round; 32]), &views[1]);
    let mut sessions = [first, second];
    loop {
        let mut moved = false;
        for (from, to) in [(0, 1), (1, 0)] {
            for lane in LANES {
                while let Some(frame) = sessions[from].poll_transmit(lane, &views[from]) {
                    sessions[to].handle(lane, &frame, &views[to], nodes[to].now_ms);
                    let peer = nodes[1 - to].key.node_id();
                    nodes[to].serve(&peer, &mut sessions[to], &views[to])?;
                    moved = true;
                }
            }
            let peer = nodes[1 - from].key.node_id();
            nodes[from].serve(&peer, &mut sessions[from], &views[from])?;
        }
        if let [Some(first), Some(second)] = [sessions[0].outcome(), sessions[1].outcome()] {
            return Ok([first.clone(), second.clone()]);
        }
        if !moved {
            return Err("neither side has anything to say".into());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (a, b) = (Node::new(1)?, Node::new(2)?);
    let name = players()?.name;
    let (ours, theirs) = (a.replica.collection(&name)?, b.replica.collection(&name)?);
    let (ada, bob) = (Key::new(b"player:ada".to_vec())?, Key::new(b"player:bob".to_vec())?);

    ours.put(&ada, b"level 3".to_vec(), a.now_ms)?;
    theirs.put(&bob, b"level 9".to_vec(), b.now_ms)?;
    let [outcome, _] = reconcile(&a, &b, 1)?;
    let Outcome::Complete { certificate: Some(certificate) } = outcome else {
        return Err(format!("not complete: {outcome:?}").into());
    };
    assert_eq!(ours.root()?, theirs.root()?);
    assert_eq!(*certificate.message().root(), ours.root()?);
    println!("both hold {} entries, root {}", ours.totals()?.entries, ours.root()?);

    // a delete at one, a put at the other: what was deleted goes, what was not seen stays
    ours.delete(&bob, a.now_ms)?;
    theirs.put(&ada, b"level 4".to_vec(), b.now_ms)?;
    reconcile(&a, &b, 2)?;
    for collection in [&ours, &theirs] {
        let ada = collection.read(&ada)?.ok_or("she was not deleted")?;
        assert_eq!(ada.versions[0].value.as_deref(), Some(&b"level 4"[..]));
        assert!(collection.read(&bob)?.is_none());
    }
    println!("bob is gone at both, and nothing is kept of him");

    let [again, _] = reconcile(&b, &a, 3)?;
    assert_eq!(again, Outcome::Complete { certificate: None });
    println!("equal: one hash each way was enough");
    Ok(())
}
