//! Backups and restores that are killed, and nodes that go back to an older moment while the other
//! one goes on.

use std::path::{Path, PathBuf};

use rand::RngExt as _;

use super::World;
use super::oracle::Moment;

/// Backups of a node that are remembered; older ones stay in their folder.
const REMEMBERED: usize = 8;

/// A backup and those before it in its chain, and where its node stood.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    chain: Vec<PathBuf>,
    moment: Moment,
}

impl World {
    fn folder(&self, node: usize) -> PathBuf {
        self.places[node].path("backups")
    }

    /// Remembers a backup that was written since the last time: of where the node stands now.
    fn remember_backup(&mut self, node: usize) {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(self.folder(node).join("c")) {
            Ok(files) => files.map(|file| file.unwrap().path()).collect(),
            Err(_) => return,
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "backup"));
        files.sort();
        let Some(last) = files.last() else { return };
        let known = self.backups[node].last();
        if known.is_some_and(|known| known.chain.last() == Some(last)) {
            return;
        }
        let is_full = |file: &PathBuf| file.to_str().unwrap().ends_with("-full.backup");
        let begin = files.iter().rposition(is_full).expect("a chain begins with a full one");
        let moment = self.oracle.moment(node);
        self.backups[node].push(Backup { chain: files[begin..].to_vec(), moment });
        if self.backups[node].len() > REMEMBERED {
            self.backups[node].remove(0);
        }
    }

    fn back_up_arguments(folder: &Path, incremental: bool) -> Vec<&str> {
        let mut arguments = vec!["backup", "c", "--to", folder.to_str().unwrap()];
        if incremental {
            arguments.push("--incremental");
        }
        arguments
    }

    /// A backup that comes to its end.
    fn back_up_whole(&mut self, node: usize) {
        let folder = self.folder(node);
        let incremental = self.rng.random_range(0..4) > 0;
        self.places[node].run(&Self::back_up_arguments(&folder, incremental)).ended(0);
        self.remember_backup(node);
    }

    /// Killed again and again between writes: what has a name is whole, and the next one goes on.
    pub(crate) fn back_up(&mut self) {
        let node = self.node();
        let folder = self.folder(node);
        for _ in 0..4 {
            let incremental = self.rng.random_range(0..4) > 0;
            let delay = self.delay("backup", 30.0);
            let running = self.places[node].start(&Self::back_up_arguments(&folder, incremental));
            self.kill_after("backup", running, delay);
            self.remember_backup(node);
            self.operate(node);
        }
        self.back_up_whole(node);
        let folder = folder.to_str().unwrap();
        self.places[node].run(&["backup", "verify", folder]).ended(0);
        let left = std::fs::read_dir(self.folder(node).join("c")).unwrap().filter(|file| {
            file.as_ref().unwrap().file_name().to_str().unwrap().starts_with(".selfsame-")
        });
        assert_eq!(left.count(), 0, "the last one sweeps what was left");
    }

    /// Goes back to an older moment, its own or the other's, while both have written since. Killed
    /// in it, it stands where it stood, or there.
    pub(crate) fn restore(&mut self, beside: bool) {
        let node = self.node();
        self.back_up_whole(node);
        for _ in 0..self.rng.random_range(0..5) {
            self.operate(node);
            self.operate(1 - node);
        }
        let of = if self.rng.random_range(0..4) == 0 { 1 - node } else { node };
        let of = if self.backups[of].is_empty() { node } else { of };
        let which = self.rng.random_range(0..self.backups[of].len());
        let Backup { chain, moment } = self.backups[of][which].clone();
        let files = chain.iter().map(|file| file.to_str().unwrap());
        let arguments: Vec<&str> = ["restore"].into_iter().chain(files).collect();
        let arguments = [&arguments[..], &["--replace"]].concat();
        let delay = self.delay("restore", 60.0);
        if beside {
            let (listening, _) = self.listen(node);
            let running = self.places[node].start(&arguments);
            let ran = self.kill_after("restore", running, delay);
            match ran.code() {
                Some(code) => {
                    assert_eq!(code, 0, "{ran:?}");
                    self.oracle.restored(node, moment);
                }
                // the process that has the store open may have come to the end all the same
                None => self.oracle.perhaps_restored(node, moment),
            }
            if self.rng.random() {
                listening.kill();
            } else {
                self.stop(listening, "INT");
            }
            return;
        }
        let running = self.places[node].start(&arguments);
        let ran = self.kill_after("restore", running, delay);
        match ran.code() {
            Some(code) => {
                assert_eq!(code, 0, "{ran:?}");
                self.oracle.restored(node, moment);
            }
            None if self.rng.random() => self.oracle.perhaps_restored(node, moment),
            None => {
                self.places[node].run(&arguments).ended(0);
                self.oracle.restored(node, moment);
            }
        }
    }
}
