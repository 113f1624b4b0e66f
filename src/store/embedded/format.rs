//! The format of a store on disk: its marker, and the way from older formats to this one.
//!
//! The marker says which format the rows have and which version wrote them. A store of a newer
//! format, or of one that was never heard of, is refused before anything is touched. One of an
//! older format is migrated in place, step by step. While a step runs the marker says so, which
//! no version takes for a format: so a version that knows only the older one cannot open what is
//! half migrated, and this one begins the step again.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use super::folder::{DATABASE, FORMAT_FILE, sync};
use super::{EmbeddedStore, of_folder};
use crate::replica::migrate;
use crate::store::StoreError;

/// The format that this version reads and writes.
pub(super) const FORMAT: u32 = 3;
/// What a marker begins with.
const NAME: &str = "selfsame store ";
/// What stands between the formats while a step runs.
const ON_THE_WAY: &str = " on its way to ";
const WRITTEN_BY: &str = "written by selfsame ";
/// The marker while it is being written.
pub(super) const PASSING_MARKER: &str = "FORMAT.new";
/// No marker is longer.
const MAX_MARKER_BYTES: usize = 200;

/// One format to the next. It may be cut short and run again.
type Step = fn(&EmbeddedStore) -> Result<(), StoreError>;

/// The steps, the one from format 1 first.
const STEPS: [Step; FORMAT as usize - 1] = [
    // checksums behind entries and rows of the change log
    migrate::add_checks,
    // rows of the change log that say what was there before, and what their commit did
    migrate::keep_log_rows,
];

/// What a marker says: the format of the rows, or of those that a step has not come to yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marker(u32);

impl Marker {
    pub(super) const fn format(self) -> u32 {
        self.0
    }
}

/// Reads the marker; none in a store that nobody has written to yet.
///
/// # Errors
/// It is of a format that this version cannot read. Nothing was touched.
pub(super) fn read(folder: &Path) -> Result<Option<Marker>, StoreError> {
    let found = match fs::read(folder.join(FORMAT_FILE)) {
        // the first opening was cut short before it wrote anything
        Ok(found) if found.is_empty() && !folder.join(DATABASE).exists() => return Ok(None),
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(of_folder(folder, &error)),
    };
    let text = String::from_utf8_lossy(&found[..found.len().min(MAX_MARKER_BYTES)]).into_owned();
    let (first, rest) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    let numbers = first.strip_prefix(NAME).map(|rest| match rest.split_once(ON_THE_WAY) {
        Some((from, to)) => (number(from), number(to)),
        None => (number(rest), number(rest)),
    });
    let folder = folder.to_path_buf();
    match numbers {
        Some((Some(from), Some(to))) if from > FORMAT || to > FORMAT => {
            let by = rest.trim().strip_prefix(WRITTEN_BY).unwrap_or("a later version");
            let (written_by, found) = (by.chars().take(40).collect(), from.max(to));
            Err(StoreError::Newer { folder, found, written_by, known: FORMAT })
        }
        Some((Some(from), Some(to))) if from <= to && to - from <= 1 => Ok(Some(Marker(from))),
        _ => {
            let found = first.chars().take(80).collect();
            Err(StoreError::Format { folder, found, expected: "selfsame store 1, 2 or 3" })
        }
    }
}

/// A format, as it is written: digits, without a zero before them.
fn number(text: &str) -> Option<u32> {
    let number = text.parse().ok()?;
    (number > 0 && text == format!("{number}")).then_some(number)
}

/// Marks a store that nobody has written to yet.
pub(super) fn mark_new(folder: &Path) -> Result<(), StoreError> {
    write(folder, &FORMAT.to_string())
}

/// Brings the rows to this format. Whoever calls this has the folder.
pub(super) fn migrate(
    folder: &Path,
    marker: Marker,
    store: &EmbeddedStore,
) -> Result<(), StoreError> {
    for from in marker.0..FORMAT {
        let to = from + 1;
        write(folder, &format!("{from}{ON_THE_WAY}{to}"))?;
        STEPS[from as usize - 1](store)?;
        write(folder, &to.to_string())?;
    }
    Ok(())
}

fn write(folder: &Path, format: &str) -> Result<(), StoreError> {
    let written = || -> io::Result<()> {
        let passing = folder.join(PASSING_MARKER);
        let mut file = File::create(&passing)?;
        writeln!(file, "{NAME}{format}\n{WRITTEN_BY}{}", env!("CARGO_PKG_VERSION"))?;
        file.sync_all()?;
        fs::rename(&passing, folder.join(FORMAT_FILE))?;
        sync(folder)
    };
    written().map_err(|error| of_folder(folder, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str) -> Result<Option<Marker>, StoreError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FORMAT_FILE), text).unwrap();
        let read = read(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is touched");
        assert_eq!(fs::read_to_string(folder.path().join(FORMAT_FILE)).unwrap(), text);
        read
    }

    #[test]
    fn a_marker_says_what_it_says_or_is_refused() {
        assert_eq!(of("").unwrap(), None);
        assert_eq!(of("selfsame store 1\n").unwrap(), Some(Marker(1)));
        assert_eq!(of("selfsame store 1 on its way to 2\nwritten by x").unwrap(), Some(Marker(1)));
        assert_eq!(of("selfsame store 2\nwritten by selfsame 0.1.0\n").unwrap(), Some(Marker(2)));
        for newer in ["selfsame store 4", "selfsame store 3 on its way to 4"] {
            let error = of(&format!("{newer}\nwritten by selfsame 9.8.7\n")).unwrap_err();
            assert!(matches!(error, StoreError::Newer { found: 4, .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("9.8.7") && text.contains("update selfsame"), "{text}");
            assert!(text.contains("nothing was changed"), "{text}");
        }
        for unknown in [
            "selfsame store 0",
            "selfsame store 01",
            "selfsame store two",
            "selfsame store 2 on its way to 1",
            "something else",
            "\n\n",
            "\u{fffd}\u{1}",
        ] {
            let error = of(unknown).unwrap_err();
            assert!(matches!(error, StoreError::Format { .. }), "{unknown:?}: {error}");
        }
    }

    #[test]
    fn a_marker_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(PASSING_MARKER), "half").unwrap();
        mark_new(folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(Marker(FORMAT)));
        assert!(!folder.path().join(PASSING_MARKER).exists());
    }
}
