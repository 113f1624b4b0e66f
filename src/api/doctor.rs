//! What may need a person at this node.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::Host;
use super::body::{answer, blocking};
use super::error::ApiError;
use crate::node::Node;
use crate::node::config::Config;
use crate::node::daemon::DaemonSettings;
use crate::node::doctor::{
    CollectionDetail, Facts, FolderFacts, MachineFacts, NodeFacts, Opening, examine,
};
use crate::store::{EmbeddedStore, Store as _};

pub(super) async fn doctor(State(host): State<Arc<Host>>) -> Result<Response, ApiError> {
    let diagnosis = blocking(move || Ok(examine(&gathered(&host)))).await?;
    answer(&diagnosis)
}

fn gathered(host: &Host) -> Facts {
    let folder = FolderFacts::of(host.folder());
    let node = of_node(host, folder.config.as_ref().ok());
    Facts {
        now_ms: Node::<EmbeddedStore>::now_ms(),
        opening: Opening::Open {
            process: std::process::id(),
            daemon_ms: node.daemon.as_ref().map(|daemon| daemon.uptime_ms),
        },
        folder,
        machine: MachineFacts::of_this_process(),
        node: Some(node),
    }
}

/// What is known of the node, with what its config file says now, if that is a config.
fn of_node(host: &Host, written: Option<&Config>) -> NodeFacts {
    let node = host.node();
    let daemon = host.daemon().ok().map(|of| &of.daemon);
    let settings =
        daemon.map_or_else(|| DaemonSettings::from(host.config()), |daemon| daemon.settings());
    let restart = written.map(|written| host.config().needs_restart(written)).unwrap_or_default();
    let reload = daemon.is_some()
        && written.is_some_and(|written| {
            // what needs more than that is said anyway
            let taken_over =
                DaemonSettings { keep_alive: settings.keep_alive, ..DaemonSettings::from(written) };
            taken_over != settings
        });
    let replica = &node.replica;
    let damaged_rows = replica.damaged_rows().into_iter();
    NodeFacts {
        limits: replica.limits().clone(),
        scrub_interval_ms: settings.scrub.interval_ms,
        interval_ms: settings.schedule.interval_ms,
        sessions_memory_bytes: settings.sessions.max_memory_bytes,
        restart,
        reload,
        store_failure: replica.store().failure().map(|error| error.to_string()),
        damaged_rows: damaged_rows
            .map(|row| (row.name.map(|name| name.to_string()), row.what))
            .collect(),
        collections: replica.collections().iter().map(|one| CollectionDetail::of(one)).collect(),
        clock_ahead: node.judge_clock(),
        daemon: daemon.map(|daemon| daemon.status()),
    }
}
