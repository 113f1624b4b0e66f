//! The real binary: every verb, its exit codes, its errors, its JSON, its documentation.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "cli/docs.rs"]
mod docs;
#[path = "cli/failures.rs"]
mod failures;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/local.rs"]
mod local;
#[path = "cli/node.rs"]
mod node;
#[path = "cli/oracle.rs"]
mod oracle;
#[path = "cli/peers.rs"]
mod peers;
