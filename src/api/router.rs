//! The endpoints.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::body::answer;
use super::error::ApiError;
use super::{
    Host, backup, certificates, clones, conflicts, doctor, entries, history, metrics, proofs,
    scrub, sessions, status, transfer,
};
use crate::replica::Collection;
use crate::store::EmbeddedStore;
use crate::types::CollectionName;

/// All endpoints of a node, below `/v1`.
///
/// The same router serves the socket and, called in the process itself, a command that has
/// opened the store: so both do the same.
pub fn router(host: Arc<Host>) -> Router {
    let collection = Router::new()
        .route("/", get(entries::collection).put(entries::create))
        .route("/entry", get(entries::read).put(entries::put).delete(entries::delete))
        .route("/value", get(entries::value))
        .route("/history", get(history::history))
        .route("/conflicts", get(conflicts::list))
        .route("/reports", get(conflicts::reports))
        .route("/resolve", post(conflicts::resolve))
        .route("/entries", get(entries::list))
        .route("/digest", get(entries::digest))
        .route("/digest/compare", post(sessions::compare))
        .route("/proof", get(proofs::one))
        .route("/proof/many", post(proofs::many))
        .route("/proof/prefix", get(proofs::prefix))
        .route("/proof/change", get(proofs::change))
        .route("/certificates", get(certificates::list))
        .route("/certificate", get(certificates::one))
        .route("/evidence", get(certificates::evidence))
        .route("/evidence/accept", post(certificates::accept))
        .route("/clones", get(clones::list))
        .route("/clones/{number}", get(clones::aside).delete(clones::forget))
        .route("/same-dot", delete(clones::forget_same_dot))
        .route("/restamp", post(clones::restamp))
        .route("/check", get(entries::check))
        .route("/recover", post(entries::recover))
        .route("/scrub", post(scrub::scrub))
        .route("/import", post(transfer::import))
        .route("/remove", post(transfer::remove))
        .route("/export", get(transfer::export))
        .route("/backup", get(backup::backup))
        .route("/restore", post(backup::restore))
        .route("/sync", post(sessions::sync))
        .route("/diff", post(sessions::diff));
    Router::new()
        .route("/v1/node", get(node))
        .route("/v1/status", get(status::status))
        .route("/v1/metrics", get(metrics::metrics))
        .route("/v1/doctor", get(doctor::doctor))
        .route("/v1/collections", get(entries::collections))
        .nest("/v1/collections/{name}", collection)
        .route("/v1/sessions", get(status::sessions))
        .route("/v1/sessions/watch", get(status::watch))
        .route("/v1/runs/{number}", delete(sessions::stop))
        .route("/v1/config/reload", post(status::reload))
        .fallback(no_endpoint)
        .method_not_allowed_fallback(no_endpoint)
        .with_state(host)
}

async fn node(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    answer(&host.info())
}

async fn no_endpoint(method: Method, uri: Uri) -> ApiError {
    ApiError::NoEndpoint(format!("{method} {}", uri.path()))
}

/// The query of a request; an unknown field is an error.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Host>> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Host>) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| ApiError::Request(error.body_text()))
    }
}

/// What stands in the path of a collection.
#[derive(Deserialize)]
struct InPath {
    name: String,
}

/// The name of a collection, which need not exist.
pub(super) struct Name(pub(super) CollectionName);

impl FromRequestParts<Arc<Host>> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, ApiError> {
        let named = Path::<InPath>::from_request_parts(parts, host).await;
        let Path(InPath { name }) = named.map_err(|error| ApiError::Request(error.body_text()))?;
        Ok(Self(CollectionName::new(name)?))
    }
}

/// A collection that exists.
pub(super) struct Named(pub(super) Arc<Collection<EmbeddedStore>>);

impl FromRequestParts<Arc<Host>> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, ApiError> {
        let Name(name) = Name::from_request_parts(parts, host).await?;
        host.collection(&name).map(Self)
    }
}

/// The number of a run.
pub(super) struct Number(pub(super) u64);

impl FromRequestParts<Arc<Host>> for Number {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, ApiError> {
        let number = Path::<u64>::from_request_parts(parts, host).await;
        let Path(number) = number.map_err(|error| ApiError::Request(error.body_text()))?;
        Ok(Self(number))
    }
}
