//! What the bytes of a frame are for, so that like is compared with like.

use std::ops::AddAssign;

use selfsame::session::Lane;
use selfsame::session::message::{
    Content, FreeMessage, HelloReply, Message, Opening, ToldSibling, TurnEnd, TurnMessage,
};
use selfsame::session::wire;
use serde::Serialize;

use super::world::wrong;
use crate::error::RivalsError;

/// The length before every frame; counted for everybody's messages.
pub(super) const FRAME_HEADER: u64 = 4;

/// Bytes by purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bytes {
    /// Hellos, hashes, filters, leaves, questions, ends of turns: what finds differences.
    pub(super) find: u64,
    /// What each side has seen: contexts, exceptions, dots held above, marks of writers.
    pub(super) contexts: u64,
    /// The records of what differs, and removals.
    pub(super) records: u64,
    /// Values, and requests for them.
    pub(super) values: u64,
    /// That nothing is left to find, verification, signatures of both.
    pub(super) verify: u64,
}

impl Bytes {
    pub(super) const fn total(&self) -> u64 {
        self.find + self.contexts + self.records + self.values + self.verify
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.find += other.find;
        self.contexts += other.contexts;
        self.records += other.records;
        self.values += other.values;
        self.verify += other.verify;
    }
}

/// A frame, by purpose, and whether it is part of finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) finds: bool,
}

fn encoded(part: &impl Serialize) -> Result<u64, RivalsError> {
    wire::encode(part).map(|bytes| bytes.len() as u64).map_err(wrong)
}

fn contexts(opening: &Opening) -> Result<u64, RivalsError> {
    let marks = encoded(&opening.writer)? + encoded(&opening.heard)?;
    Ok(encoded(&opening.causality)? + encoded(&opening.above)? + marks)
}

/// What a frame is for. The parts add up to its length.
pub(super) fn account(lane: Lane, frame: &[u8]) -> Result<Frame, RivalsError> {
    let length = frame.len() as u64 + FRAME_HEADER;
    let mut bytes = Bytes::default();
    if lane == Lane::Bulk {
        bytes.values = length;
        return Ok(Frame { bytes, finds: false });
    }
    let mut finds = false;
    let (mut rest, mut header) = (frame, FRAME_HEADER);
    while !rest.is_empty() {
        let (message, used) = wire::decode_first::<Message>(rest).map_err(wrong)?;
        finds |= account_message(&message, used as u64 + header, &mut bytes)?;
        (rest, header) = (&rest[used..], 0);
    }
    Ok(Frame { bytes, finds })
}

/// Adds the bytes of a message to those of its frame; says whether it is part of finding.
fn account_message(message: &Message, length: u64, bytes: &mut Bytes) -> Result<bool, RivalsError> {
    let before = bytes.total();
    let mut finds = true;
    match message {
        Message::TurnEnd(TurnEnd { settled: true, .. }) => {
            // nobody has anything to find any more
            finds = false;
            bytes.verify += length;
        }
        Message::Hello(_) | Message::HelloReply(HelloReply::Same) | Message::TurnEnd(_) => {}
        Message::HelloReply(
            HelloReply::Differs { opening, .. } | HelloReply::Ahead { opening, .. },
        ) => {
            bytes.contexts += contexts(opening)?;
        }
        Message::Turn(TurnMessage::Opening(opening)) => bytes.contexts += contexts(opening)?,
        Message::OpeningPart(_) => bytes.contexts += length,
        Message::Turn(TurnMessage::States { held, writers, .. }) => {
            bytes.records += encoded(writers)?;
            for state in held {
                let value = |told: &ToldSibling| match &told.content {
                    Content::Value(value) => value.0.len() as u64,
                    Content::Named { .. } => 0,
                };
                let values: u64 = state.siblings.iter().map(value).sum();
                bytes.values += values;
                bytes.records += encoded(state)? - values;
            }
        }
        Message::Turn(TurnMessage::Removed(_)) => bytes.records += length,
        Message::Turn(_) => {}
        Message::Free(free) => {
            finds = false;
            match free {
                FreeMessage::Ready(_) | FreeMessage::Joined { .. } | FreeMessage::Abort(_) => {
                    bytes.verify += length;
                }
                _ => bytes.values += length,
            }
        }
    }
    bytes.find += length - (bytes.total() - before);
    Ok(finds)
}

/// The fewest bytes in which `ids` of 64 bits that differ can be named at all.
pub(super) fn limit_bytes(ids: u64) -> f64 {
    if ids == 0 {
        return 0.0;
    }
    let ids = ids as f64;
    ids * (64.0 - ids.log2() + std::f64::consts::LOG2_E) / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use selfsame::clock::Stamp;
    use selfsame::session::message::{Bytes as Raw, KeyState};
    use selfsame::session::{AbortCode, Phase};

    #[test]
    fn the_parts_of_a_frame_add_up_to_its_length() -> Result<(), RivalsError> {
        let state = KeyState {
            key: Raw(b"player:1".to_vec()),
            siblings: vec![ToldSibling {
                writer: 0,
                counter: 1,
                stamp: Stamp(1),
                content: Content::Value(Raw(vec![7; 100])),
            }],
        };
        let states = TurnMessage::States {
            found_by: Phase::Announce,
            writers: Vec::new(),
            held: vec![state],
            absent: Vec::new(),
            ask: Vec::new(),
        };
        for message in [
            Message::HelloReply(HelloReply::Same),
            Message::Turn(states.clone()),
            Message::Turn(TurnMessage::Nodes(Vec::new())),
            Message::Free(FreeMessage::Abort(AbortCode::Busy { retry_after_ms: 0 })),
        ] {
            let frame = wire::encode(&message).map_err(wrong)?;
            let parts = account(Lane::Control, &frame)?.bytes;
            assert_eq!(parts.total(), frame.len() as u64 + FRAME_HEADER, "{message:?}");
        }
        let frame = wire::encode(&Message::Turn(states)).map_err(wrong)?;
        assert_eq!(account(Lane::Control, &frame)?.bytes.values, 100);
        Ok(())
    }

    #[test]
    fn the_limit_is_that_of_the_design() {
        assert_eq!(limit_bytes(0), 0.0);
        assert_eq!(limit_bytes(100).floor(), 734.0);
        assert_eq!(limit_bytes(1_000).floor(), 6_934.0);
    }
}
