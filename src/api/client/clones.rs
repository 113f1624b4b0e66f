//! What is asked of clones, and of stamps of the future.

use axum::body::Body;
use axum::http::Method;

use super::stream::{Lines, RunStream};
use super::{CallError, Client, path, to_json};
use crate::api::types::{ClonesText, Forgotten, RestampLine, RestampRequest};
use crate::types::CollectionName;

impl Client {
    /// What was found of two copies of a node that both write.
    ///
    /// # Errors
    /// The store failed.
    pub async fn clones(&self, name: &CollectionName) -> Result<ClonesText, CallError> {
        self.get(&path(name, "/clones")).await
    }

    /// What was copied aside with one of them: lines, each an
    /// [`AsideText`](crate::api::types::AsideText).
    ///
    /// # Errors
    /// There is none of this number.
    pub async fn aside(&self, name: &CollectionName, number: u64) -> Result<Lines, CallError> {
        let path = path(name, &format!("/clones/{number}"));
        Ok(Lines::new(self.ask(Method::GET, &path, Body::empty()).await?.into_body()))
    }

    /// Forgets one of them, with what was copied aside.
    ///
    /// # Errors
    /// There is none of this number, or the store failed.
    pub async fn forget_clone(
        &self,
        name: &CollectionName,
        number: u64,
    ) -> Result<Forgotten, CallError> {
        self.send(Method::DELETE, &path(name, &format!("/clones/{number}")), Body::empty()).await
    }

    /// Forgets the dots that stood for two puts.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget_same_dot(&self, name: &CollectionName) -> Result<Forgotten, CallError> {
        self.send(Method::DELETE, &path(name, "/same-dot"), Body::empty()).await
    }

    /// Puts again what has stamps too far ahead of this node's clock.
    ///
    /// # Errors
    /// Most peers find the clock ahead still, or there is no such collection here. What happens
    /// later is in the stream.
    pub async fn restamp(
        &self,
        name: &CollectionName,
        request: &RestampRequest,
    ) -> Result<RunStream<RestampLine>, CallError> {
        let path = path(name, "/restamp");
        let response = self.ask(Method::POST, &path, to_json(request)?).await?;
        RunStream::begin(response.into_body()).await
    }
}
