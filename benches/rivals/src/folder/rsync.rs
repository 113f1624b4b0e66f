//! rsync between two folders, its two ends in processes of their own with a pipe between.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Step, finished};
use crate::error::RivalsError;

/// The ways it is run: plain, and with compression.
pub(super) const FLAGS: [&str; 2] = ["-a", "-az"];

/// Stands in for ssh: drops the host's name and runs the rest here.
const SHELL: &str = "#!/bin/sh\nshift\nexec \"$@\"\n";

/// rsync to one target.
pub(super) struct Rsync {
    program: PathBuf,
    shell: PathBuf,
    flags: &'static str,
    target: PathBuf,
}

impl Rsync {
    /// None when it is not installed.
    pub(super) fn find(
        program: &Path,
        work: &Path,
        flags: &'static str,
        target: PathBuf,
    ) -> Result<Option<Self>, RivalsError> {
        if finished(Command::new(program).arg("--version")).is_err() {
            return Ok(None);
        }
        let shell = work.join("here.sh");
        std::fs::write(&shell, SHELL)
            .and_then(|()| std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o700)))
            .map_err(RivalsError::io("writing a shell for rsync"))?;
        Ok(Some(Self { program: program.to_path_buf(), shell, flags, target }))
    }

    pub(super) fn label(&self) -> String {
        format!("rsync {}", self.flags)
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// The target becomes what the source is.
    pub(super) fn copy(&self, source: &Path) -> Result<Step, RivalsError> {
        let mut command = Command::new(&self.program);
        command.args([self.flags, "--delete", "--stats", "--rsh"]).arg(&self.shell);
        command.arg("--rsync-path").arg(&self.program);
        // what is in the source, not the source itself
        command.arg(source.join("")).arg(format!("here:{}", self.target.display()));
        let (output, mut step) = Step::of(|| finished(&mut command))?;
        let stats = String::from_utf8_lossy(&output.stdout).into_owned();
        step.bytes = bytes_of(&stats);
        if step.bytes.is_none() {
            return Err(RivalsError::wrong("rsync", "its statistics cannot be read"));
        }
        Ok(step)
    }
}

/// Bytes both ways, from what `--stats` prints.
fn bytes_of(stats: &str) -> Option<u64> {
    let line = |name: &str| {
        let text = stats.lines().find_map(|line| line.strip_prefix(name))?;
        text.trim().replace([',', '.'], "").parse::<u64>().ok()
    };
    Some(line("Total bytes sent:")? + line("Total bytes received:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_with_and_without_separators() {
        let stats = "Number of files: 3\nTotal bytes sent: 1,234\nTotal bytes received: 66\n";
        assert_eq!(bytes_of(stats), Some(1_300));
        assert_eq!(bytes_of("Total bytes sent: 5"), None);
    }
}
