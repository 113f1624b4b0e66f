//! Exit codes: what a script learns of how a command ended, here or at the node's process.
//!
//! ```
//! use selfsame::api::Exit;
//!
//! assert_eq!(Exit::Differs.code(), 1);
//! assert_eq!(Exit::of_code(1), Exit::Differs);
//! ```

use std::process::ExitCode;

/// How a verb ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// Done; equal; found; the proof holds.
    Done,
    /// Differences; no such key; proved absent.
    Differs,
    /// An error.
    Failed,
    /// Done in part: the items that were not are listed.
    Partial,
    /// The peer cannot be reached, or the connection was lost.
    Unreachable,
    /// The peer refused.
    Refused,
    /// A proof or a peer's hashes do not hold.
    Unproved,
    /// It would remove too much, and asks.
    Brake,
    /// Stopped by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Differs => 1,
            Self::Failed => 2,
            Self::Partial => 3,
            Self::Unreachable => 4,
            Self::Refused => 5,
            Self::Unproved => 6,
            Self::Brake => 7,
            Self::Interrupted => 130,
        }
    }

    /// What a number stands for; an error, if it stands for nothing.
    #[must_use]
    pub const fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Differs,
            3 => Self::Partial,
            4 => Self::Unreachable,
            5 => Self::Refused,
            6 => Self::Unproved,
            7 => Self::Brake,
            130 => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
