//! What can go wrong while measuring.

use std::path::PathBuf;

/// Nothing was measured, or what was measured cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RivalsError {
    /// A file or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended badly.
    #[error("{program} ended with {status}: {said}")]
    Program {
        /// Which.
        program: String,
        /// How.
        status: String,
        /// Its last words.
        said: String,
    },
    /// The release binary is not there.
    #[error(
        "there is no selfsame binary at {0}: build it with `cargo build --release`, or name it \
         with --selfsame"
    )]
    NoBinary(PathBuf),
    /// Code under measurement did not do its work: its figures would be worth nothing.
    #[error("{who} did not do its work: {what}")]
    Wrong {
        /// Whose code.
        who: &'static str,
        /// What was seen.
        what: String,
    },
}

impl RivalsError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn wrong(who: &'static str, what: impl ToString) -> Self {
        Self::Wrong { who, what: what.to_string() }
    }
}
