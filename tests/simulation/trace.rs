//! What happened, a line a step: hashed always, kept and printed when somebody wants to read it.

use std::fmt::{Arguments, Write as _};

/// The lines of a history.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    line: String,
    kept: Option<Vec<String>>,
}

impl Trace {
    pub fn new(keep: bool) -> Self {
        let kept = keep.then(Vec::new);
        Self { hash: 0xcbf2_9ce4_8422_2325, line: String::new(), kept }
    }

    pub fn note(&mut self, what: Arguments<'_>) {
        self.line.clear();
        self.line.write_fmt(what).expect("text");
        self.hash = fold(self.hash, self.line.as_bytes());
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    /// The same for the same history, in whatever process.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    pub fn into_lines(self) -> Vec<String> {
        self.kept.unwrap_or_default()
    }
}

/// FNV-1a.
pub fn fold(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(hash, step)
}
