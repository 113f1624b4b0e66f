//! Whether the disk is full, when a failure does not say.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

const PROBE: &str = "PROBE";
/// What a table takes that could not be written.
const PROBE_CHUNKS: usize = 16;
const CHUNK_BYTES: usize = 1 << 20;

/// Tries to write as much as a table takes. What it wrote is gone afterwards.
pub(super) fn is_full(folder: &Path) -> bool {
    let path = folder.join(PROBE);
    let probed = File::create(&path).and_then(|mut file| {
        let chunk = vec![0x55; CHUNK_BYTES];
        (0..PROBE_CHUNKS).try_for_each(|_| file.write_all(&chunk))?;
        file.sync_data()
    });
    // what cannot be removed stands in nobody's way but its own
    let _ = std::fs::remove_file(&path);
    probed.is_err_and(|error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    })
}
