//! The real binary: every verb, its exit codes, its errors, its JSON, its documentation.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic)]

/// Makes two tests of each function: its verbs open the store, and they ask a running node.
macro_rules! both_ways {
    ($($(#[$when:meta])* $test:ident),+ $(,)?) => {
        mod alone {
            $(#[test] $(#[$when])* fn $test() { $crate::node::Way::Alone.run(super::$test); })+
        }
        #[cfg(unix)]
        mod beside {
            $(#[test] $(#[$when])* fn $test() { $crate::node::Way::Beside.run(super::$test); })+
        }
    };
}

#[path = "cli/backup.rs"]
mod backup;
#[path = "cli/certificate.rs"]
mod certificate;
#[path = "cli/clones.rs"]
mod clones;
#[path = "cli/conflicts.rs"]
mod conflicts;
#[path = "cli/docs.rs"]
mod docs;
#[cfg(unix)]
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/failures.rs"]
mod failures;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/local.rs"]
mod local;
#[path = "cli/metrics.rs"]
mod metrics;
#[path = "cli/node.rs"]
mod node;
#[path = "cli/openmetrics.rs"]
mod openmetrics;
#[path = "cli/oracle.rs"]
mod oracle;
#[path = "cli/peers.rs"]
mod peers;
#[path = "cli/proofs.rs"]
mod proofs;
#[path = "cli/scrub.rs"]
mod scrub;
#[path = "cli/status.rs"]
mod status;
