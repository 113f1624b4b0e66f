//! The deterministic simulation: real replicas and real session cores over disks and queues that
//! fail in every way, against a replica that never forgets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

pub mod dice;
pub mod disk;
pub mod flight;
pub mod history;
pub mod mutant;
pub mod node;
pub mod oracle;
pub mod profile;
pub mod rot;
pub mod settle;
pub mod steps;
pub mod trace;
pub mod world;
