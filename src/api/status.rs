//! How the node is, and what its sessions do.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::Host;
use super::body::{LINES, Sink, answer, blocking, of_media};
use super::certificates::{agreements, distrusted};
use super::error::{ApiError, causes};
use super::types::{ClockAheadText, Reloaded, SessionList, StatusText};

pub(super) async fn status(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let status = blocking(move || {
        Ok(StatusText {
            node: host.info(),
            collections: host.collections()?,
            agreements: agreements(&host)?,
            distrusted: distrusted(&host)?,
            clock_ahead: host.node().judge_clock().as_ref().map(ClockAheadText::from),
            trust: host.node().counts(),
            daemon: host.daemon().ok().map(|of| of.daemon.status()),
        })
    })
    .await?;
    answer(&status)
}

pub(super) async fn sessions(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let sessions = host.sessions()?;
    answer(&SessionList { running: sessions.running(), recent: sessions.recent() })
}

/// A line for each event, until nobody reads them or the process ends.
pub(super) async fn watch(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let mut events = host.sessions()?.events();
    let mut closing = host.closing();
    drop(host);
    let (sink, body) = Sink::new();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sink.closed() => return,
                _ = closing.wait_for(|closing| *closing) => break,
            };
            let told = match event {
                Ok(event) => sink.line(&event).await,
                // whoever reads them is too slow
                Err(RecvError::Lagged(events)) => {
                    sink.line(&json!({ "event": "missed", "events": events })).await
                }
                Err(RecvError::Closed) => break,
            };
            if told.is_err() {
                return;
            }
        }
        sink.end().await;
    });
    Ok(of_media(LINES, body))
}

pub(super) async fn reload(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let done = blocking(move || {
        let of = host.daemon()?;
        of.files.reload(&of.daemon).map_err(|error| {
            let causes = causes(&error).into_iter().map(|cause| format!(": {cause}"));
            ApiError::Config([error.to_string()].into_iter().chain(causes).collect())
        })
    })
    .await?;
    let needs_restart = done.needs_restart.into_iter().map(str::to_owned).collect();
    answer(&Reloaded { peers: done.peers as u64, needs_restart })
}
