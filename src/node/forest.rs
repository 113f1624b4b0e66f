//! One question for all collections that two nodes share: are they equal?
//!
//! Both ends compute the forest root over what both offer, as they last told each other. Equal
//! roots are all that is said; else ranges of the shared collections are compared, ever smaller
//! ones ([`ranges`]), until it is known which of them need a session. What is said to be equal is
//! so by the whole forest root, in which the states that the peer told stand in place of the own
//! ones. Where that does not come out (the ends know different things of each other), the peer is
//! asked for a list of all that it offers.
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

pub mod offers;
pub mod ranges;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use tokio::time::timeout;

use self::offers::{MOST_OFFERED, Offers};
use self::ranges::{ForestFault, Ground, Ranges, Walk};
use super::Node;
use super::client::ClientError;
use super::peers::Grant;
use super::query::{Answer, Query, WireForest};
use crate::hash::{ForestRoot, StateHash};
use crate::merkle::forest_root;
use crate::net::{FrameReader, FrameWriter, Link, RecvStream, SendStream};
use crate::replica::Collection;
use crate::session::message::{Bytes, WireSpec};
use crate::session::wire;
use crate::store::Store;
use crate::types::{CollectionName, NodeId};

/// Collections in one frame of a list: it stays below a frame's limit with the longest names.
const STATES_PER_FRAME: usize = 2_048;
/// Most frames of one list.
const MOST_FRAMES: usize = MOST_OFFERED / STATES_PER_FRAME;

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

/// The collections that both offer, with the states of one end.
type Shared = BTreeMap<CollectionName, StateHash>;

/// How an asker's forest stands to that of this end.
#[derive(Debug)]
pub(in crate::node) enum Standing {
    /// It is the same: these.
    Same(Vec<(CollectionName, StateHash)>),
    /// It is not: what is answered, and what further questions are answered from.
    Differs(Box<WireForest>, Ground),
}

/// A collection that a peer may see here, with the state that it has now.
struct Offered {
    name: CollectionName,
    spec: WireSpec,
    state: StateHash,
}

/// Both directions of a question that others may follow.
type Conversation = (FrameWriter<SendStream>, FrameReader<RecvStream>);

impl<S: Store> Node<S> {
    /// The collections that a peer may see here.
    pub(in crate::node) fn offered(&self, peer: &NodeId) -> Vec<Arc<Collection<S>>> {
        let mut collections = self.replica.collections();
        collections.retain(|one| self.access.grant(peer, &one.spec().name) >= Grant::Read);
        collections
    }

    /// The same with their states. What is damaged has none, and is left out.
    fn offered_now(&self, peer: &NodeId) -> Vec<Offered> {
        let offered = self.offered(peer).into_iter().filter_map(|one| {
            let state = one.state_hash().ok()?;
            Some(Offered { name: one.name().clone(), spec: WireSpec::from(one.spec()), state })
        });
        offered.collect()
    }

    /// Asks the peer whether all collections that both share are the same, and which are not:
    /// about k log16(N / k) times 128 bytes for k of N, in a round trip for each power of 16.
    ///
    /// What is said is about one moment at each end: when it began, and when the peer was first
    /// asked.
    ///
    /// # Errors
    /// The link is lost, or the answer is none.
    pub async fn compare_forest(&self, link: &Link) -> Result<Compared, ClientError> {
        let own = block_in_place(|| self.offered_now(&link.peer()));
        let (news, told) = news(link, &own);
        let shared = shared(&own, &told, &link.peer_offers());
        let query = Query::Forest { root: root_of(&shared), offers: news };
        let mut conversation = self.converse(link, &query).await?;
        let forest = match self.next(&mut conversation.1).await? {
            Answer::Same => None,
            Answer::Forest(forest) => Some(forest),
            _ => return Err(ClientError::NoAnswer),
        };
        link.tell_offers(told.clone());
        let Some(mut forest) = forest else {
            return Ok(Compared { equal: shared.into_iter().collect(), unequal: Vec::new() });
        };
        let shared = match forest.offers.take() {
            None => shared,
            Some(news) => {
                link.peer_offers_now(news.apply(&link.peer_offers())?);
                self::shared(&own, &told, &link.peer_offers())
            }
        };
        match self.compare_ranges(shared, &forest, conversation).await? {
            Some(compared) => Ok(compared),
            None => self.compare_listed(link, &own).await,
        }
    }

    /// Goes down to what is unequal; none if the peer's forest root is not that of what it told
    /// and of all the rest as it is here.
    async fn compare_ranges(
        &self,
        shared: Shared,
        forest: &WireForest,
        (mut writer, mut reader): Conversation,
    ) -> Result<Option<Compared>, ClientError> {
        if shared.len() != forest.collections as usize {
            return Ok(None);
        }
        let states: Vec<StateHash> = shared.values().copied().collect();
        let mut walk = Walk::new(&states);
        block_in_place(|| walk.answer(&forest.top.0))?;
        while let Some(asked) = walk.question() {
            let frame = wire::encode(&Query::Ranges(asked))?;
            let written = timeout(self.patience, writer.write_frame(&frame)).await;
            written.map_err(|_| ClientError::Silent(self.patience))??;
            let Answer::Ranges(told) = self.next(&mut reader).await? else {
                return Err(ClientError::NoAnswer);
            };
            block_in_place(|| walk.answer(&told.0))?;
        }
        let told: BTreeMap<usize, StateHash> = walk.into_unequal().into_iter().collect();
        let there = shared.iter().enumerate().map(|(at, (name, ours))| {
            let theirs = told.get(&at).copied();
            (name.clone(), theirs.unwrap_or(*ours))
        });
        let there: Shared = there.collect();
        Ok((root_of(&there) == forest.root).then(|| Compared::of(shared, &there)))
    }

    /// Has the peer list all that it offers, and tells it all anew the next time: what the two
    /// know of each other is not the same.
    async fn compare_listed(&self, link: &Link, own: &[Offered]) -> Result<Compared, ClientError> {
        link.tell_offers_anew();
        let mut answers = self.ask(link, &Query::States).await?;
        let mut listed: Vec<WireState> = Vec::new();
        for _ in 0..MOST_FRAMES {
            let Answer::States { states, more } = self.next(&mut answers).await? else {
                return Err(ClientError::NoAnswer);
            };
            listed.extend(states);
            if listed.len() > MOST_OFFERED {
                return Err(ForestFault::Offers { limit: MOST_OFFERED }.into());
            }
            if !more {
                break;
            }
        }
        let theirs: Vec<WireSpec> = listed.iter().map(|one| one.spec.clone()).collect();
        let specs: Vec<WireSpec> = own.iter().map(|one| one.spec.clone()).collect();
        let shared = shared(own, &specs, &theirs);
        link.peer_offers_now(theirs);
        let there = listed.into_iter().filter_map(|one| {
            let name = CollectionName::new(one.spec.name).ok()?;
            shared.contains_key(&name).then_some((name, one.state))
        });
        let there: Shared = there.collect();
        Ok(Compared::of(shared, &there))
    }

    /// How an asker's forest stands to that of this end.
    ///
    /// # Errors
    /// The asker offers more than is remembered.
    pub(in crate::node) fn answer_forest(
        &self,
        link: &Link,
        root: ForestRoot,
        offers: Option<Offers>,
    ) -> Result<Standing, ForestFault> {
        if let Some(offers) = offers {
            link.peer_offers_now(offers.apply(&link.peer_offers())?);
        }
        let own = self.offered_now(&link.peer());
        let (news, told) = news(link, &own);
        let shared = shared(&own, &told, &link.peer_offers());
        let ours = root_of(&shared);
        if ours == root {
            return Ok(Standing::Same(shared.into_iter().collect()));
        }
        link.tell_offers(told);
        let mut ground = Ground::new(shared.values().copied().collect());
        let top = ground.answer(&Ranges { level: 0, numbers: vec![0] })?;
        // as many as are offered, and those are far fewer
        let collections = u32::try_from(shared.len()).unwrap_or(u32::MAX);
        let forest = WireForest { root: ours, collections, offers: news, top: Bytes(top) };
        Ok(Standing::Differs(Box::new(forest), ground))
    }

    /// All that the peer may see here, with its states.
    pub(in crate::node) fn answer_states(&self, link: &Link) -> Vec<Answer> {
        let own = self.offered_now(&link.peer());
        link.tell_offers(own.iter().map(|one| one.spec.clone()).collect());
        let state = |one: &Offered| WireState { spec: one.spec.clone(), state: one.state };
        let last = own.len().div_ceil(STATES_PER_FRAME).saturating_sub(1);
        let mut chunks = own.chunks(STATES_PER_FRAME).enumerate();
        let first = chunks.next().map(|(_, states)| states).unwrap_or_default();
        let frame = |at: usize, states: &[Offered]| Answer::States {
            states: states.iter().map(state).collect(),
            more: at < last,
        };
        let rest: Vec<_> = chunks.map(|(at, states)| frame(at, states)).collect();
        std::iter::once(frame(0, first)).chain(rest).collect()
    }
}

impl Compared {
    fn of(ours: Shared, theirs: &Shared) -> Self {
        let mut compared = Self::default();
        for (name, ours) in ours {
            match theirs.get(&name) {
                Some(&theirs) if theirs == ours => compared.equal.push((name, ours)),
                Some(&theirs) => compared.unequal.push(Unequal { name, ours, theirs }),
                None => {}
            }
        }
        compared
    }
}

/// What the peer is to be told of what is offered, and what it knows then.
fn news(link: &Link, own: &[Offered]) -> (Option<Offers>, Vec<WireSpec>) {
    let specs: Vec<WireSpec> = own.iter().map(|one| one.spec.clone()).collect();
    Offers::news(link.told_offers().as_deref().map(Vec::as_slice), &specs)
}

/// The collections that both ends know the other to offer, just alike, with their states here.
fn shared(own: &[Offered], told: &[WireSpec], theirs: &[WireSpec]) -> Shared {
    fn by_name(specs: &[WireSpec]) -> BTreeMap<&str, &WireSpec> {
        specs.iter().map(|spec| (spec.name.as_str(), spec)).collect()
    }
    let (told, theirs) = (by_name(told), by_name(theirs));
    let known = |one: &&Offered| {
        [&told, &theirs].iter().all(|specs| specs.get(one.spec.name.as_str()) == Some(&&one.spec))
    };
    own.iter().filter(known).map(|one| (one.name.clone(), one.state)).collect()
}

fn root_of(shared: &Shared) -> ForestRoot {
    // names are unique and counted: the map has each once
    forest_root(shared.iter().map(|(name, state)| (name, state.0))).unwrap_or(ForestRoot([0; 32]))
}
