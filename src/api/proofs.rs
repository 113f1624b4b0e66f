//! Proofs for others, as files of proof.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Host;
use super::body::{blocking, of_media, whole};
use super::error::ApiError;
use super::frames::{Frame, Frames, FramesError};
use super::router::{Asked, Named};
use super::types::KeyQuery;
use crate::merkle::{ChangeBundle, HeadStatement, MAX_PROOF_FILE_BYTES, MAX_PROVED_KEYS, Prefix};
use crate::node::Node;
use crate::replica::{CommitProof, ProveError, WantedChange};
use crate::store::EmbeddedStore;
use crate::types::Key;

/// The media type of a file of proof.
const PROOF: &str = "application/vnd.selfsame.proof";

/// The header that says at which position of the change log a commit ends.
pub(super) const POSITION: &str = "selfsame-position";

type Answer = Result<Response, ApiError>;

pub(super) async fn one(Named(collection): Named, Asked(key): Asked<KeyQuery>) -> Answer {
    let bytes = blocking(move || Ok(collection.snapshot()?.prove(&key.key()?)?.to_bytes())).await?;
    Ok(of_media(PROOF, Body::from(bytes)))
}

pub(super) async fn many(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    body: Body,
) -> Answer {
    let _place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let body = whole(body, MAX_PROOF_FILE_BYTES as u64, host.limits().body_pause).await?;
    let bytes = blocking(move || {
        let (mut keys, mut frames): (Vec<Key>, _) = (Vec::new(), Frames::new(0));
        frames.push(body);
        while !frames.is_empty() {
            let Frame::Entry { key, .. } = frames.next_frame()?.ok_or(FramesError::Cut)? else {
                return Err(ApiError::Request("keys are entries without values".into()));
            };
            if keys.len() == MAX_PROVED_KEYS {
                let most = format!("one proof is of {MAX_PROVED_KEYS} keys at most");
                return Err(ApiError::Request(most));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(ApiError::Request("say which keys: at least one".into()));
        }
        Ok(collection.snapshot()?.prove_many(keys)?.to_bytes())
    })
    .await?;
    Ok(of_media(PROOF, Body::from(bytes)))
}

/// Under which bits of key hashes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrefixQuery {
    prefix: String,
}

pub(super) async fn prefix(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(asked): Asked<PrefixQuery>,
) -> Answer {
    let _place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let bytes = blocking(move || {
        let prefix: Prefix = asked
            .prefix
            .parse()
            .map_err(|error: crate::merkle::PrefixError| ApiError::Request(error.to_string()))?;
        Ok(collection.snapshot()?.prove_prefix(&prefix)?.to_bytes())
    })
    .await?;
    Ok(of_media(PROOF, Body::from(bytes)))
}

/// Which commit: the last one that changed a key, or the one at a position of the log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    key: Option<String>,
    key_hex: Option<String>,
    position: Option<u64>,
}

pub(super) async fn change(
    State(host): State<Arc<Host>>,
    Named(collection): Named,
    Asked(ChangeQuery { key, key_hex, position }): Asked<ChangeQuery>,
) -> Answer {
    let _place = host.large.acquire().await.map_err(|_| ApiError::Fallen)?;
    let node = host.node();
    let bytes = blocking(move || {
        let wanted = match position {
            Some(_) if key.is_some() || key_hex.is_some() => {
                return Err(ApiError::Request("give either a key or a position".into()));
            }
            Some(position) => WantedChange::At(position),
            None => WantedChange::OfKey(collection.key_hash(&KeyQuery::new(key, key_hex).key()?)),
        };
        let commit = collection.prove_change(wanted)?;
        let position = commit.position;
        Ok((signed(&node, commit)?.to_bytes(), position))
    })
    .await?;
    let mut response = of_media(PROOF, Body::from(bytes.0));
    response.headers_mut().insert(POSITION, bytes.1.into());
    Ok(response)
}

/// The proof under the node's signature. It is verified before it is given: nothing is handed out
/// that does not hold.
fn signed(node: &Node<EmbeddedStore>, commit: CommitProof) -> Result<ChangeBundle, ApiError> {
    let CommitProof { envelopes, changes, proof, head, place, .. } = commit;
    let lost = || ApiError::Prove(ProveError::Lost);
    let head = HeadStatement::sign(head, node.id(), &|message| node.identity.sign(message))
        .map_err(|_| ApiError::Fallen)?;
    let bundle =
        ChangeBundle::new(envelopes, changes, proof, head, place).map_err(|error| match error {
            crate::merkle::ChangeBundleError::Bundle(error) => ProveError::from(error).into(),
            _ => lost(),
        })?;
    bundle.verify(&node.id()).map_err(|_| lost())?;
    Ok(bundle)
}
