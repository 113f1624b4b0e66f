//! A folder that looks like one, and how it drifts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Arguments;
use crate::error::RivalsError;

/// Largest file against the smallest: sizes are spread evenly over the powers of two between.
const SPREAD: f64 = 512.0;
/// One file in so many does not compress.
const NOISE: usize = 3;
const WORDS: [&str; 16] = [
    "the",
    "state",
    "of",
    "player",
    "session",
    "level",
    "{\"name\":",
    "\"score\":",
    "return",
    "if (",
    ") {\n",
    "}\n",
    "replica",
    "0.5",
    "<td>",
    "\n\n",
];

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RivalsError {
    RivalsError::io(format!("{what} {}", path.display()))
}

/// Files below a folder, made from a seed.
pub(super) struct Folder {
    path: PathBuf,
    names: Vec<PathBuf>,
    made: usize,
    mean: f64,
    rng: SmallRng,
}

impl Folder {
    pub(super) fn make(path: &Path, arguments: &Arguments) -> Result<Self, RivalsError> {
        let count = arguments.files.max(1);
        let mut folder = Self {
            path: path.to_path_buf(),
            names: Vec::new(),
            made: 0,
            mean: arguments.bytes as f64 / count as f64,
            rng: SmallRng::seed_from_u64(arguments.seed),
        };
        for _ in 0..count {
            folder.add()?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Files and bytes.
    pub(super) fn totals(&self) -> Result<(u64, u64), RivalsError> {
        let files = list(&self.path)?;
        Ok((files.len() as u64, files.values().map(|bytes| bytes.len() as u64).sum()))
    }

    fn add(&mut self) -> Result<(), RivalsError> {
        let at = self.made;
        self.made += 1;
        // the mean of sizes spread so is (spread - 1) / ln(spread) times the smallest
        let least = self.mean * SPREAD.ln() / (SPREAD - 1.0);
        let size = (least * SPREAD.powf(self.rng.random())).round() as usize;
        let bytes = match at % NOISE {
            0 => (0..size).map(|_| self.rng.random()).collect(),
            _ => self.text(size),
        };
        let ending = if at.is_multiple_of(NOISE) { "bin" } else { "txt" };
        let name = format!("d{:02}/e{:02}/file-{at:06}.{ending}", at % 17, at / 17 % 23);
        let path = self.path.join(&name);
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent).map_err(io("making", parent))?;
        fs::write(&path, bytes).map_err(io("writing", &path))?;
        self.names.push(name.into());
        Ok(())
    }

    fn text(&mut self, size: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 16);
        while text.len() < size {
            match self.rng.random_range(0..4) {
                0 => text.extend(self.rng.random_range(0..100_000u32).to_string().bytes()),
                _ => text.extend(WORDS[self.rng.random_range(0..WORDS.len())].bytes()),
            }
            text.push(b' ');
        }
        text.truncate(size);
        text
    }

    /// A copy of everything, with the times of the files.
    pub(super) fn keep_copy(&self, to: &Path) -> Result<(), RivalsError> {
        copy(&self.path, to)
    }

    /// One file in a hundred gets small edits, one in two hundred is new, one in two hundred goes.
    pub(super) fn drift(&mut self) -> Result<(), RivalsError> {
        let count = self.names.len();
        let few = (count / 200).max(1);
        for _ in 0..few {
            let name = self.names.swap_remove(self.rng.random_range(0..self.names.len()));
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(io("removing", &path))?;
            if self.names.is_empty() {
                break;
            }
        }
        for _ in 0..(count / 100).max(1).min(self.names.len()) {
            let path = self.path.join(&self.names[self.rng.random_range(0..self.names.len())]);
            let mut bytes = fs::read(&path).map_err(io("reading", &path))?;
            self.edit(&mut bytes);
            fs::write(&path, bytes).map_err(io("writing", &path))?;
        }
        (0..few).try_for_each(|_| self.add())
    }

    /// One to four edits of up to 64 bytes: written over, put between or cut out.
    fn edit(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.random_range(1..=4) {
            let at = self.rng.random_range(0..=bytes.len());
            let length = self.rng.random_range(1..=64);
            let end = (at + length).min(bytes.len());
            let new = self.text(length);
            match self.rng.random_range(0..3) {
                0 => drop(bytes.splice(at..end, new)),
                1 => drop(bytes.splice(at..at, new)),
                _ => drop(bytes.drain(at..end)),
            }
        }
    }
}

/// All files below a folder, by path.
fn list(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, RivalsError> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).map_err(io("reading", &at))? {
            let path = entry.map_err(io("reading", &at))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).map_err(io("reading", &path))?;
                files.insert(path.strip_prefix(folder).unwrap_or(&path).to_path_buf(), bytes);
            }
        }
    }
    Ok(files)
}

/// Copies all files; their times become those of the copying.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), RivalsError> {
    for (name, bytes) in list(from)? {
        let path = to.join(name);
        let parent = path.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(io("making", parent))?;
        fs::write(&path, bytes).map_err(io("writing", &path))?;
    }
    Ok(())
}

/// Both folders have the same files.
pub(super) fn same(who: &'static str, one: &Path, other: &Path) -> Result<(), RivalsError> {
    if list(one)? == list(other)? {
        return Ok(());
    }
    let what = format!("{} and {} are not the same", one.display(), other.display());
    Err(RivalsError::wrong(who, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments() -> Arguments {
        Line::parse_from(["folder", "--files", "400", "--bytes", "400000"]).arguments
    }

    #[test]
    fn a_folder_is_a_function_of_its_seed_and_drifts_a_little() -> Result<(), RivalsError> {
        let work = tempfile::tempdir().map_err(RivalsError::io("temporary folder"))?;
        let (one, other) = (work.path().join("one"), work.path().join("other"));
        let mut folder = Folder::make(&one, &arguments())?;
        Folder::make(&other, &arguments())?;
        same("files", &one, &other)?;
        let (files, bytes) = folder.totals()?;
        assert_eq!(files, 400);
        assert!((200_000..800_000).contains(&bytes), "{bytes}");

        folder.drift()?;
        assert!(same("files", &one, &other).is_err());
        let (before, after) = (list(&other)?, list(&one)?);
        let gone = before.keys().filter(|name| !after.contains_key(*name)).count();
        let new = after.keys().filter(|name| !before.contains_key(*name)).count();
        assert_eq!((gone, new), (2, 2));
        let changed = after
            .iter()
            .filter(|(name, bytes)| before.get(*name).is_some_and(|before| before != *bytes));
        assert!((1..=4).contains(&changed.count()));
        Ok(())
    }
}
