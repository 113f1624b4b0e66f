//! The entries of the demo: states of a made-up game, or the files of a folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walkdir::WalkDir;

use super::DemoError;
use crate::types::Key;

/// Sizes of generated states are spread evenly over the powers of two between these.
const SIZES: (f64, f64) = (200.0, 16_384.0);
/// A larger file is left out, so that a folder of films does not become a demo of patience.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Attempts to change a value before something is put behind it.
const TRIES: usize = 8;

/// A key and its value.
pub(super) type Entry = (Key, Arc<[u8]>);

/// Where the entries come from.
pub(super) enum Source {
    /// So many generated states.
    Generated(u64),
    /// The files of a folder, by relative path.
    Files(Vec<(Key, PathBuf)>),
}

/// What the demo knows of its entries: which keys there are, and how they change. The same seed
/// leads to the same entries and the same changes.
pub(super) struct Data {
    source: Source,
    seed: u64,
    random: StdRng,
    live: Vec<Key>,
    fresh: u64,
}

impl Data {
    /// Generated states.
    pub(super) fn generated(entries: u64, seed: u64) -> Self {
        Self::new(Source::Generated(entries), seed)
    }

    /// The files of a folder; and how many were left out.
    pub(super) fn folder(folder: &Path, seed: u64) -> Result<(Self, u64), DemoError> {
        let (mut files, mut left_out) = (Vec::new(), 0);
        for file in WalkDir::new(folder).sort_by_file_name() {
            let file = file.map_err(|error| {
                let path = error.path().unwrap_or(folder).to_path_buf();
                DemoError::File { path, source: error.into() }
            })?;
            if file.file_type().is_dir() {
                continue;
            }
            let usable = file.file_type().is_file()
                && file.metadata().is_ok_and(|about| about.len() <= MAX_FILE_BYTES);
            match key_of(folder, file.path()).filter(|_| usable) {
                Some(key) => files.push((key, file.into_path())),
                None => left_out += 1,
            }
        }
        if files.is_empty() {
            return Err(DemoError::NoFiles(folder.into()));
        }
        Ok((Self::new(Source::Files(files), seed), left_out))
    }

    fn new(source: Source, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { source, seed, random, live: Vec::new(), fresh: 0 }
    }

    /// How many entries there are at first.
    pub(super) fn len(&self) -> u64 {
        match &self.source {
            Source::Generated(entries) => *entries,
            Source::Files(files) => files.len() as u64,
        }
    }

    /// The first entries from a position on: as many as come to `bytes`, at least one; none at
    /// the end.
    pub(super) fn batch(&mut self, from: u64, bytes: usize) -> Result<Vec<Entry>, DemoError> {
        let (mut batch, mut held) = (Vec::new(), 0);
        for at in from..self.len() {
            let (key, value): Entry = match &self.source {
                Source::Generated(_) => (state_key(at)?, state(self.seed, at).into()),
                Source::Files(files) => {
                    let Some((key, path)) = usize::try_from(at).ok().and_then(|at| files.get(at))
                    else {
                        break;
                    };
                    let value = fs::read(path)
                        .map_err(|source| DemoError::File { path: path.clone(), source })?;
                    (key.clone(), value.into())
                }
            };
            held += value.len();
            self.live.push(key.clone());
            batch.push((key, value));
            if held >= bytes {
                break;
            }
        }
        Ok(batch)
    }

    /// Different keys by chance: this share of all, at least `least`, as far as there are any.
    pub(super) fn pick(&mut self, share: f64, least: usize) -> Vec<Key> {
        let count = ((self.live.len() as f64 * share) as usize).max(least).min(self.live.len());
        for at in 0..count {
            let other = self.random.random_range(at..self.live.len());
            self.live.swap(at, other);
        }
        self.live[..count].to_vec()
    }

    /// Takes note that keys are deleted.
    pub(super) fn deleted(&mut self, keys: &[Key]) {
        let gone: BTreeSet<&Key> = keys.iter().collect();
        self.live.retain(|key| !gone.contains(key));
    }

    /// New entries: this share of all, at least one.
    pub(super) fn fresh(&mut self, share: f64) -> Result<Vec<Entry>, DemoError> {
        let count = ((self.live.len() as f64 * share) as u64).max(1);
        let mut entries = Vec::new();
        for _ in 0..count {
            let at = self.len() + self.fresh;
            self.fresh += 1;
            let key = match &self.source {
                Source::Generated(_) => state_key(at)?,
                Source::Files(_) => named(&format!("selfsame-demo/new-{:04}.json", self.fresh))?,
            };
            self.live.push(key.clone());
            entries.push((key, state(self.seed, at).into()));
        }
        Ok(entries)
    }

    /// The value after something happened to it: a few numbers are others, sometimes there is an
    /// item more.
    pub(super) fn edited(&mut self, value: &[u8]) -> Arc<[u8]> {
        let mut edited = value.to_vec();
        let times = self.random.random_range(1..=4);
        for tried in 0..times + TRIES {
            // a number may become what it was
            if tried < times || edited == value {
                change_a_number(&mut edited, &mut self.random);
            }
        }
        if edited.ends_with(b"}]}\n") && self.random.random_bool(0.3) {
            edited.truncate(edited.len() - 3);
            edited.push(b',');
            edited.extend_from_slice(item(&mut self.random).as_bytes());
            edited.extend_from_slice(b"]}\n");
        }
        if edited == value {
            edited.extend_from_slice(format!("{}\n", self.random.random::<u32>()).as_bytes());
        }
        edited.into()
    }
}

fn named(name: &str) -> Result<Key, DemoError> {
    Ok(Key::new(name.as_bytes().to_vec())?)
}

fn state_key(at: u64) -> Result<Key, DemoError> {
    named(&format!("players/{at:06}"))
}

/// The relative path with slashes, if it can be a key.
fn key_of(folder: &Path, path: &Path) -> Option<Key> {
    let relative = path.strip_prefix(folder).ok()?;
    let names: Option<Vec<&str>> = relative.iter().map(|name| name.to_str()).collect();
    Key::new(names?.join("/").into_bytes()).ok()
}

/// Other digits in the number that follows a random place; other letters where there is no number.
fn change_a_number(value: &mut [u8], random: &mut StdRng) {
    if value.is_empty() {
        return;
    }
    let from = random.random_range(0..value.len());
    let behind = value[from..].iter().position(u8::is_ascii_digit).map(|at| from + at);
    let digits = behind.or_else(|| value.iter().position(u8::is_ascii_digit));
    let start = digits.unwrap_or(from);
    for byte in value[start..].iter_mut().take(6) {
        if digits.is_some() && !byte.is_ascii_digit() {
            break;
        }
        *byte = match digits {
            Some(_) => random.random_range(b'1'..=b'9'),
            None => random.random_range(b'a'..=b'z'),
        };
    }
}

const NAMES: [&str; 12] = [
    "Mira", "Tove", "Anselm", "Ikram", "Joris", "Sunniva", "Bao", "Leontine", "Ravi", "Oksana",
    "Emeka", "Yuki",
];
const MAPS: [&str; 6] = ["harbour", "old-mill", "glacier", "salt-flats", "catacombs", "orchard"];
const ITEMS: [&str; 12] = [
    "iron-sword",
    "oak-shield",
    "healing-draught",
    "rope",
    "lantern",
    "silver-ring",
    "map-piece",
    "wolf-pelt",
    "arrow-bundle",
    "rune-of-frost",
    "copper-ore",
    "bread",
];

fn one_of<'a>(words: &[&'a str], random: &mut StdRng) -> &'a str {
    words[random.random_range(0..words.len())]
}

fn item(random: &mut StdRng) -> String {
    format!(
        r#"{{"item":"{}","uid":"{:08x}","count":{},"wear":0.{:02},"bound":{}}}"#,
        one_of(&ITEMS, random),
        random.random::<u32>(),
        random.random_range(1..100),
        random.random_range(0..100),
        random.random::<bool>(),
    )
}

/// The state of one player: JSON that compresses about as such states do.
fn state(seed: u64, at: u64) -> Vec<u8> {
    let random = &mut StdRng::seed_from_u64(seed.rotate_left(32) ^ at);
    let size = SIZES.0 * (SIZES.1 / SIZES.0).powf(random.random::<f64>());
    let mut text = format!(
        r#"{{"player":{at},"name":"{}","level":{},"gold":{},"at":"{}","x":{},"y":{},"items":["#,
        one_of(&NAMES, random),
        random.random_range(1..90),
        random.random_range(0..500_000),
        one_of(&MAPS, random),
        random.random_range(0..4_096),
        random.random_range(0..4_096),
    );
    text.push_str(&item(random));
    while text.len() + 50 < size as usize {
        text.push(',');
        text.push_str(&item(random));
    }
    text.push_str("]}\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_seed_makes_one_data_set_and_every_edit_changes_valid_json() {
        let (mut one, mut other) = (Data::generated(300, 7), Data::generated(300, 7));
        let batch = one.batch(0, usize::MAX).unwrap();
        assert_eq!(batch, other.batch(0, usize::MAX).unwrap());
        assert_eq!(batch.len(), 300);
        assert!(batch.iter().all(|(_, value)| (150..17_000).contains(&value.len())));
        for (_, value) in &batch {
            let edited = one.edited(value);
            assert_eq!(edited, other.edited(value));
            assert_ne!(edited, *value);
            serde_json::from_slice::<serde_json::Value>(&edited).unwrap();
        }
        assert_eq!(one.pick(0.5, 1), other.pick(0.5, 1));
    }

    #[test]
    fn tiny_and_odd_values_can_be_edited_too() {
        let mut data = Data::generated(1, 1);
        for value in [&b""[..], b"x", b"\0\xff", b"no digits here"] {
            assert_ne!(&*data.edited(value), value);
        }
        assert!(data.pick(0.5, 3).is_empty(), "there is nothing to pick from");
    }
}
