//! File systems that a test may do with as it likes: in a mount namespace of its own, that most
//! systems let any user make.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the file system is, for the run of a test within the namespace.
const FOLDER: &str = "SELFSAME_OWN_DISK";
/// Namespaces in which one may mount: one that any user may make, and one that root may.
const NAMESPACES: [&str; 2] = ["-Urm", "-m"];

/// Runs the test of this name again, with a file system of so many MiB; none when it was run
/// there, or where that is impossible, which is said.
pub(crate) fn own_disk(test: &str, mib: usize) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    // what is mounted in the namespace of a process ends with it
    let mount = format!("mount -t tmpfs -o size={mib}m none \"$0\"");
    let mut why = String::new();
    for namespace in NAMESPACES {
        let unshare = |script: &str| {
            let mut command = Command::new("unshare");
            command.args([namespace, "sh", "-c", script]).arg(folder.path());
            command
        };
        match unshare(&mount).output() {
            Ok(mounted) if mounted.status.success() => {
                let script = format!("{mount} && exec \"$@\"");
                again(unshare(&script), test, folder.path());
                return None;
            }
            Ok(mounted) => why.push_str(&String::from_utf8_lossy(&mounted.stderr)),
            Err(error) => why = format!("no `unshare` here: {error}"),
        }
    }
    skipped(test, &why);
    None
}

fn again(mut command: Command, test: &str, folder: &Path) {
    let run = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Says that a test did nothing, even if what tests print is not shown.
pub(crate) fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "{test} was skipped: {}", why.trim());
}
