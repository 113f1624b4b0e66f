//! One question for all collections that two nodes share: are they equal?
//!
//! Both ends compute the forest root over what both offer, as they last told each other. Equal
//! roots are all that is said; else the answer lists what the peer offers with its state hashes,
//! and so says which collections need a session.
//!
//! ```
//! use selfsame::net::Link;
//! use selfsame::node::Node;
//! use selfsame::node::client::ClientError;
//! use selfsame::store::Store;
//!
//! /// Names of the collections that are not the same at the peer.
//! async fn unequal<S: Store>(node: &Node<S>, link: &Link) -> Result<Vec<String>, ClientError> {
//!     let compared = node.compare_forest(link).await?;
//!     Ok(compared.unequal.iter().map(|one| one.name.to_string()).collect())
//! }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Node;
use super::client::ClientError;
use super::peers::Grant;
use super::query::{Answer, Query};
use crate::hash::{ForestRoot, StateHash};
use crate::merkle::forest_root;
use crate::net::Link;
use crate::replica::Collection;
use crate::session::message::WireSpec;
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Collections in one frame of an answer: it stays below a frame's limit with the longest names.
const STATES_PER_FRAME: usize = 2_048;
/// Most frames of one answer.
const MOST_FRAMES: usize = 256;

/// A collection as a peer offers it, with the state that it has there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireState {
    /// Name, algorithm, policy.
    pub spec: WireSpec,
    /// Its state.
    pub state: StateHash,
}

/// A collection that is not the same at both ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unequal {
    /// Its name.
    pub name: CollectionName,
    /// Its state here.
    pub ours: StateHash,
    /// Its state there.
    pub theirs: StateHash,
}

/// What a comparison of all shared collections found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// Those that are the same, with their state.
    pub equal: Vec<(CollectionName, StateHash)>,
    /// Those that are not.
    pub unequal: Vec<Unequal>,
}

type Shared = BTreeMap<CollectionName, StateHash>;

impl<S: Store> Node<S> {
    /// The collections that a peer may see here.
    pub(in crate::node) fn offered(&self, peer: &NodeId) -> Vec<Arc<Collection<S>>> {
        let mut collections = self.replica.collections();
        collections.retain(|one| self.access.grant(peer, &one.spec().name) >= Grant::Read);
        collections
    }

    /// The offered collections that the peer offers too, just alike, with their states here.
    /// What is damaged here has none.
    fn shared(&self, offered: &[Arc<Collection<S>>], theirs: &[WireSpec]) -> Shared {
        let theirs: BTreeMap<&str, &WireSpec> =
            theirs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let mut shared = Shared::new();
        for collection in offered {
            let spec = collection.spec();
            let offered_there = theirs.get(spec.name.as_str());
            if offered_there.is_some_and(|there| **there == WireSpec::from(spec))
                && let Ok(state) = collection.state_hash()
            {
                shared.insert(spec.name.clone(), state);
            }
        }
        shared
    }

    /// Asks the peer whether all collections that both share are the same.
    ///
    /// # Errors
    /// The link is lost, or the answer is none.
    pub async fn compare_forest(&self, link: &Link) -> Result<Compared, ClientError> {
        let offered = self.offered(&link.peer());
        let specs = specs_of(&offered);
        let news = (*link.told_offers() != specs).then(|| specs.clone());
        let shared = self.shared(&offered, &link.peer_offers());
        let root = root_of(&shared);
        let query = Query::Forest { root, offers: news.clone() };
        let mut answers = self.ask(link, &query).await?;
        let mut listed: Option<Vec<WireState>> = None;
        for _ in 0..MOST_FRAMES {
            match self.next(&mut answers).await? {
                Answer::Same if listed.is_none() => break,
                Answer::States { states, more } => {
                    listed.get_or_insert_default().extend(states);
                    if !more {
                        break;
                    }
                }
                _ => return Err(ClientError::NoAnswer),
            }
        }
        if let Some(news) = news {
            link.tell_offers(news);
        }
        let Some(states) = listed else {
            return Ok(Compared { equal: shared.into_iter().collect(), unequal: Vec::new() });
        };
        let theirs: Vec<WireSpec> = states.iter().map(|state| state.spec.clone()).collect();
        let shared = self.shared(&offered, &theirs);
        link.peer_offers_now(theirs);
        let theirs: BTreeMap<&str, StateHash> =
            states.iter().map(|state| (state.spec.name.as_str(), state.state)).collect();
        let mut compared = Compared::default();
        for (name, ours) in shared {
            match theirs.get(name.as_str()) {
                Some(&theirs) if theirs == ours => compared.equal.push((name, ours)),
                Some(&theirs) => compared.unequal.push(Unequal { name, ours, theirs }),
                None => {}
            }
        }
        Ok(compared)
    }

    /// The frames that answer such a question; and, if all is the same, what.
    pub(in crate::node) fn answer_forest(
        &self,
        link: &Link,
        root: ForestRoot,
        news: Option<Vec<WireSpec>>,
    ) -> (Vec<Answer>, Option<Vec<(CollectionName, StateHash)>>) {
        if let Some(news) = news {
            link.peer_offers_now(news);
        }
        let offered = self.offered(&link.peer());
        let shared = self.shared(&offered, &link.peer_offers());
        if root_of(&shared) == root {
            return (vec![Answer::Same], Some(shared.into_iter().collect()));
        }
        let states: Vec<WireState> = offered
            .iter()
            .filter_map(|one| {
                let state = one.state_hash().ok()?;
                Some(WireState { spec: WireSpec::from(one.spec()), state })
            })
            .collect();
        link.tell_offers(states.iter().map(|state| state.spec.clone()).collect());
        let chunks: Vec<_> = states.chunks(STATES_PER_FRAME).collect();
        let last = chunks.len().saturating_sub(1);
        let mut answers: Vec<Answer> = chunks
            .into_iter()
            .enumerate()
            .map(|(at, states)| Answer::States { states: states.to_vec(), more: at < last })
            .collect();
        if answers.is_empty() {
            answers.push(Answer::States { states: Vec::new(), more: false });
        }
        (answers, None)
    }
}

/// What is offered as it is told: what is damaged has no state to compare, and is left out.
fn specs_of<S: Store>(offered: &[Arc<Collection<S>>]) -> Vec<WireSpec> {
    let sound = offered.iter().filter(|one| one.damage().is_none());
    sound.map(|one| WireSpec::from(one.spec())).collect()
}

fn root_of(shared: &Shared) -> ForestRoot {
    // names are unique and counted: the map has each once
    forest_root(shared.iter().map(|(name, state)| (name, state.0))).unwrap_or(ForestRoot([0; 32]))
}
