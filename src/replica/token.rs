//! What a clean close leaves, so that the next opening may go on with its writers (rule D1).
//!
//! A writer must never be used twice, so whoever has a copy of a store must not have its writers.
//! The store keeps what is left where no copy of it reaches, and hands it out once
//! ([`Store::take_token`](crate::store::Store::take_token)). Here it is used only if the
//! collection stands at the very change at which it was closed: a store that was restored in
//! place has another head.

use std::collections::BTreeMap;

use crate::codec::{CodecError, Reader, Writing as _};
use crate::dots::Writer;
use crate::store::Store;

use super::collection::PresentWriter;
use super::rows::{CollectionId, Head, checked, with_check};

/// Most writers in a token: 84 bytes each. Collections beyond draw fresh ones.
const MAX_WRITERS: usize = 8_192;

/// A writer that may be resumed, once, where it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WriterToken {
    pub(super) collection: CollectionId,
    pub(super) present: PresentWriter,
    /// Hash of the collection's head: root, context, epoch, log and position in one.
    pub(super) head: [u8; 32],
}

/// Of the head, all that decides where a collection stands.
pub(super) fn head_hash(head: &Head) -> [u8; 32] {
    blake3::hash(&head.to_row()).into()
}

/// Takes the writers that the last clean close left. What cannot be read is gone too.
pub(super) fn take(store: &impl Store) -> BTreeMap<CollectionId, WriterToken> {
    let tokens = store.take_token().and_then(|bytes| parse(&bytes).ok()).unwrap_or_default();
    tokens.into_iter().map(|token| (token.collection, token)).collect()
}

/// Leaves writers for the next opening. One that is left nowhere is only not resumed.
pub(super) fn leave(store: &impl Store, tokens: &[WriterToken]) {
    if !tokens.is_empty() {
        store.leave_token(&write(&tokens[..tokens.len().min(MAX_WRITERS)]));
    }
}

fn write(tokens: &[WriterToken]) -> Vec<u8> {
    let mut row = Vec::with_capacity(16 + 84 * tokens.len());
    row.put_u8(super::rows::ROW_VERSION);
    for WriterToken { collection, present, head } in tokens {
        row.put_u32(collection.0);
        row.put_u64(present.writer.get());
        row.put_u64(present.counter);
        row.put_bytes(&present.puts);
        row.put_bytes(head);
    }
    with_check(row)
}

fn parse(bytes: &[u8]) -> Result<Vec<WriterToken>, CodecError> {
    let mut reader = Reader::new(checked(bytes)?);
    let mut tokens: Vec<WriterToken> = Vec::new();
    while reader.remaining() > 0 {
        let collection = CollectionId(reader.u32()?);
        let writer = Writer::new(reader.u64()?).ok_or(CodecError::Invalid("a writer is zero"))?;
        let present = PresentWriter { writer, counter: reader.u64()?, puts: reader.array()? };
        let head = reader.array()?;
        if tokens.last().is_some_and(|last| last.collection >= collection) {
            return Err(CodecError::Invalid("collections are not strictly ascending"));
        }
        tokens.push(WriterToken { collection, present, head });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(collection: u32) -> WriterToken {
        let writer = Writer::new(7).expect("not zero");
        let present = PresentWriter { writer, counter: 3, puts: [1; 32] };
        WriterToken { collection: CollectionId(collection), present, head: [2; 32] }
    }

    #[test]
    fn what_is_read_back_is_what_was_written_and_nothing_else_is_read() {
        let tokens = [token(1), token(2)];
        let bytes = write(&tokens);
        assert_eq!(parse(&bytes), Ok(tokens.to_vec()));
        for at in 0..bytes.len() {
            assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(parse(&flipped).is_err(), "flipped at {at}");
        }
        assert!(parse(&write(&[token(2), token(1)])).is_err());
        assert!(parse(&write(&[token(1), token(1)])).is_err());
    }
}
