//! Messages: what decodes is a message like any other, and stays the same through the codec.

use std::fmt::Debug;

use selfsame::clock::Stamp;
use selfsame::hash::HashAlgorithm;
use selfsame::session::message::{
    Bulk, FreeMessage, Greeting, HelloReply, Message, Opening, TurnMessage, Wants, WireCausality,
    WirePolicy, WireSpec,
};
use selfsame::session::wire::{decode, decode_all, encode};
use selfsame::types::CollectionSpec;

use crate::session;

/// The kinds of message, as the first byte of an input names them.
pub const KINDS: [Kind; 3] = [Kind::Message, Kind::Bulk, Kind::Greeting];

/// What a frame may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// On the control stream.
    Message,
    /// On the bulk stream.
    Bulk,
    /// Once per connection.
    Greeting,
}

/// The first byte is the kind, the rest the frame.
pub fn check(input: &[u8]) {
    let Some((&kind, frame)) = input.split_first() else { return };
    match KINDS[usize::from(kind) % KINDS.len()] {
        Kind::Message => {
            for message in decode_all::<Message>(frame).unwrap_or_default() {
                stays(&message, frame);
                meaning(&message);
            }
        }
        Kind::Bulk => {
            if let Ok(bulk) = decode::<Bulk>(frame) {
                stays(&bulk, frame);
            }
        }
        Kind::Greeting => {
            if let Ok(greeting) = decode::<Greeting>(frame) {
                stays(&greeting, frame);
                for spec in &greeting.collections {
                    let _ = CollectionSpec::try_from(spec);
                }
            }
        }
    }
}

fn stays<T>(message: &T, frame: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let encoded = encode(message).expect("what fitted a frame fits one");
    assert!(encoded.len() <= frame.len(), "the codec writes the shortest form");
    assert_eq!(decode::<T>(&encoded).as_ref(), Ok(message));
}

/// What is read out of messages before a session believes them.
fn meaning(message: &Message) {
    match message {
        Message::HelloReply(
            HelloReply::Differs { opening, .. } | HelloReply::Ahead { opening, .. },
        ) => read(opening),
        Message::Turn(TurnMessage::Opening(opening)) => read(opening),
        Message::Turn(TurnMessage::Removed(dots) | TurnMessage::Candidates { dots, .. }) => {
            if let Some(set) = dots.to_set() {
                assert!(set.run_count() <= dots.run_count());
            }
        }
        Message::Free(FreeMessage::Request(wants)) => {
            if let Ok(wants) = wants.clone().unpack() {
                assert_eq!(Wants::pack(wants.clone()).unpack(), Ok(wants));
            }
        }
        _ => {}
    }
}

fn read(opening: &Opening) {
    let _ = opening.causality.size();
    if let Some(causality) = opening.causality.resolve(None) {
        let again = WireCausality::new(&causality, None);
        assert_eq!(again.resolve(None), Some(causality));
    }
    if let Some(above) = &opening.above {
        let _ = above.to_set();
    }
}

/// Inputs from the frames of real sessions.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = session::frames()
        .into_iter()
        .filter(|(_, frame)| frame.len() < 2_000)
        .map(|(lane, frame)| [vec![lane as u8], frame].concat())
        .collect();
    // one of each kind and length tells as much as all
    seeds.sort_by_key(|seed| (seed.iter().take(4).copied().collect::<Vec<_>>(), seed.len()));
    seeds.dedup_by_key(|seed| (seed.iter().take(4).copied().collect::<Vec<_>>(), seed.len() / 64));
    let greeting = Greeting {
        version_min: 1,
        version_max: 1,
        max_value_bytes: 16 << 20,
        clock: Stamp::new(1_700_000_000_000, 0),
        serves: true,
        collections: vec![WireSpec {
            name: "players".to_owned(),
            algorithm: HashAlgorithm::Blake3,
            policy: WirePolicy::Custom { resolver: "sum".to_owned(), version: 1 },
        }],
    };
    let greeting = encode(&greeting).expect("a short greeting");
    seeds.push([vec![2], greeting].concat());
    seeds
}
