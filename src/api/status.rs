//! How the node is: what is known without a daemon, and what only a daemon knows.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::Host;
use super::body::{answer, blocking};
use super::error::ApiError;
use super::types::StatusText;

pub(super) async fn status(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let status =
        blocking(move || Ok(StatusText { node: host.info(), collections: host.collections()? }))
            .await?;
    answer(&status)
}

pub(super) async fn sessions() -> Result<Response, ApiError> {
    Err(ApiError::NoDaemon)
}

pub(super) async fn watch() -> Result<Response, ApiError> {
    Err(ApiError::NoDaemon)
}

pub(super) async fn reload() -> Result<Response, ApiError> {
    Err(ApiError::NoDaemon)
}
