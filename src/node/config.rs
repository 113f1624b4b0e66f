//! The node's settings: `config.toml` in its data folder.
//!
//! Every key has a default; what is written must be known, of the right type and in range, or
//! the error names file, line and reason.
//!
//! ```
//! use std::path::Path;
//! use selfsame::node::config::Config;
//!
//! let config = Config::parse("[sync]\nmax_batch_size = 50\n", Path::new("config.toml"))?;
//! assert_eq!(config.sync().max_batch_size, 50);
//! let wrong = Config::parse("\n[sync]\nbatch = 50\n", Path::new("config.toml")).unwrap_err();
//! assert!(wrong.to_string().starts_with("config.toml, line 3: unknown field `batch`"));
//! assert_eq!(Config::parse(Config::DEFAULT_TEXT, Path::new("config.toml"))?, Config::default());
//! # Ok::<(), selfsame::node::config::ConfigError>(())
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use super::manager::SessionLimits;
use super::schedule::ScheduleSettings;
use super::scrub::ScrubSettings;
use crate::limits::Limits;
use crate::net::{NetLimits, parse_node_id};
use crate::session::{Profile, SyncConfig};
use crate::store::Durability;
use crate::types::NodeId;

/// The port that nodes listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7447;
/// Longest config file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
const LONGEST_MS: u64 = 3_600_000;
/// Longest time that a session may be allowed: a day.
const LONGEST_SESSION_MS: u64 = 86_400_000;
/// Least memory that sessions may be allowed: what one value and its messages need.
const SMALLEST_MEMORY: u64 = 4 << 20;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; `selfsame init` writes one if it is missing",
        path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no config.
    #[error("{path}, line {line}: {reason}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// The settings of a node: all known, of the right type and in range.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to wait for peers.
    pub listen: SocketAddr,
    /// Who may connect.
    #[serde(deserialize_with = "node_ids")]
    pub allow: Vec<NodeId>,
    #[serde(deserialize_with = "durability")]
    durability: Durability,
    limits: LimitSettings,
    sync: SyncSettings,
    deadlines: Deadlines,
    scrub: ScrubKeys,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScrubKeys {
    #[serde(deserialize_with = "within::<_, u64, 0, 31_536_000>")]
    interval_s: u64,
    #[serde(deserialize_with = "within::<_, u64, 1_024, { 1 << 40 }>")]
    bytes_per_s: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, 100>")]
    time_percent: u64,
}

impl Default for ScrubKeys {
    fn default() -> Self {
        let settings = ScrubSettings::default();
        Self {
            interval_s: settings.interval_ms / 1_000,
            bytes_per_s: settings.bytes_per_s,
            time_percent: settings.time_percent,
        }
    }
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitSettings {
    #[serde(deserialize_with = "within::<_, u64, 1, { 1 << 30 }>")]
    max_value_bytes: u64,
    #[serde(deserialize_with = "within::<_, usize, 1, 65_535>")]
    max_siblings: usize,
    #[serde(deserialize_with = "within::<_, u64, 0, MAX_WHOLE>")]
    max_clock_drift_ms: u64,
    #[serde(deserialize_with = "within::<_, usize, 1, 16_777_216>")]
    max_writers: usize,
    #[serde(deserialize_with = "within::<_, usize, 1, 16_777_216>")]
    max_session_entries: usize,
    #[serde(deserialize_with = "within::<_, u64, 1, { 1 << 40 }>")]
    max_session_bytes: u64,
    #[serde(deserialize_with = "within::<_, u64, 0, { 1 << 30 }>")]
    min_bytes_per_s: u64,
    #[serde(deserialize_with = "within::<_, u64, SMALLEST_MEMORY, MAX_WHOLE>")]
    max_session_memory_bytes: u64,
    #[serde(deserialize_with = "within::<_, u64, SMALLEST_MEMORY, MAX_WHOLE>")]
    max_memory_bytes: u64,
    #[serde(deserialize_with = "within::<_, u64, 0, MAX_WHOLE>")]
    max_removals: u64,
    #[serde(deserialize_with = "within::<_, u64, 0, 100>")]
    max_removals_percent: u64,
    #[serde(deserialize_with = "within::<_, usize, 64, 16_777_216>")]
    max_loaded_pages: usize,
    #[serde(deserialize_with = "within::<_, usize, 0, { 1 << 40 }>")]
    max_sketch_bytes: usize,
    #[serde(deserialize_with = "within::<_, usize, 0, 524_288>")]
    kept_symbols: usize,
    #[serde(deserialize_with = "within::<_, u64, 0, MAX_WHOLE>")]
    history_age_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 0, 10_000>")]
    history_percent: u64,
    #[serde(deserialize_with = "within::<_, u64, 0, MAX_WHOLE>")]
    removal_log_entries: u64,
    #[serde(deserialize_with = "within::<_, u64, 16, MAX_WHOLE>")]
    certificate_log_entries: u64,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SyncSettings {
    #[serde(deserialize_with = "within::<_, u64, 1, 86_400>")]
    interval_s: u64,
    #[serde(deserialize_with = "within::<_, usize, 1, 4_096>")]
    max_concurrent_sessions: usize,
    profile: Profile,
    #[serde(deserialize_with = "within::<_, usize, 1, 65_536>")]
    max_batch_size: usize,
    #[serde(deserialize_with = "within::<_, usize, 1, 100_000_000>")]
    bloom_filter_items: usize,
    #[serde(deserialize_with = "rate")]
    bloom_filter_fpr: f64,
    #[serde(deserialize_with = "within::<_, u16, 1, 256>")]
    max_merkle_depth: u16,
    enable_binary_diff: bool,
    allow_removals: bool,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Deadlines {
    #[serde(deserialize_with = "within::<_, u64, 1, LONGEST_MS>")]
    dial_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, LONGEST_MS>")]
    answer_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, LONGEST_MS>")]
    idle_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, LONGEST_SESSION_MS>")]
    phase_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, LONGEST_SESSION_MS>")]
    session_ms: u64,
    #[serde(deserialize_with = "within::<_, u64, 1, 3_600>")]
    shutdown_s: u64,
}

/// Largest whole number that TOML can write.
const MAX_WHOLE: u64 = i64::MAX as u64;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)),
            allow: Vec::new(),
            durability: Durability::Always,
            limits: LimitSettings::default(),
            sync: SyncSettings::default(),
            deadlines: Deadlines::default(),
            scrub: ScrubKeys::default(),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_value_bytes: limits.max_value_bytes,
            max_siblings: limits.max_siblings,
            max_clock_drift_ms: limits.max_clock_drift_ms,
            max_writers: limits.max_writers,
            max_session_entries: limits.max_session_entries,
            max_session_bytes: limits.max_session_bytes,
            min_bytes_per_s: limits.min_bytes_per_s,
            max_session_memory_bytes: limits.max_session_memory_bytes,
            max_memory_bytes: SessionLimits::default().max_memory_bytes,
            max_removals: limits.max_removals,
            max_removals_percent: limits.max_removals_percent,
            max_loaded_pages: limits.max_loaded_pages,
            max_sketch_bytes: limits.max_sketch_bytes,
            kept_symbols: limits.kept_symbols,
            history_age_ms: limits.history_age_ms,
            history_percent: limits.history_percent,
            removal_log_entries: limits.removal_log_entries,
            certificate_log_entries: limits.certificate_log_entries,
        }
    }
}

impl Default for SyncSettings {
    fn default() -> Self {
        let sync = SyncConfig::default();
        Self {
            interval_s: ScheduleSettings::default().interval_ms / 1_000,
            max_concurrent_sessions: SessionLimits::default().max_concurrent,
            profile: sync.profile,
            max_batch_size: sync.max_batch_size,
            bloom_filter_items: sync.bloom_filter_items,
            bloom_filter_fpr: sync.bloom_filter_fpr,
            max_merkle_depth: sync.max_merkle_depth,
            enable_binary_diff: sync.enable_binary_diff,
            allow_removals: sync.allow_removals,
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let sessions = SessionLimits::default();
        Self {
            dial_ms: 10_000,
            answer_ms: 30_000,
            idle_ms: 60_000,
            phase_ms: sessions.phase.as_millis() as u64,
            session_ms: sessions.session.as_millis() as u64,
            shutdown_s: 10,
        }
    }
}

impl Config {
    /// The config file as it is first written: every key with its meaning, unit and default.
    pub const DEFAULT_TEXT: &str = include_str!("config.toml");

    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is no config.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Unreadable { path: path.into(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut file = io::Read::take(file, MAX_FILE_BYTES + 1);
        io::Read::read_to_string(&mut file, &mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(failed(io::Error::other("it is larger than any config: over 1 MiB")));
        }
        Self::parse(&text, path)
    }

    /// Reads the text of the file at `path`, which only errors mention.
    ///
    /// # Errors
    /// It is no config.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = &text.as_bytes()[..at];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let reason = error.message().trim().to_owned();
            ConfigError::Invalid { path: path.into(), line, reason }
        })
    }

    /// When a change counts as written.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// The limits of the node.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let LimitSettings {
            max_value_bytes,
            max_siblings,
            max_clock_drift_ms,
            max_writers,
            max_session_entries,
            max_session_bytes,
            min_bytes_per_s,
            max_session_memory_bytes,
            max_memory_bytes: _,
            max_removals,
            max_removals_percent,
            max_loaded_pages,
            max_sketch_bytes,
            kept_symbols,
            history_age_ms,
            history_percent,
            removal_log_entries,
            certificate_log_entries,
        } = self.limits;
        Limits {
            max_value_bytes,
            max_siblings,
            max_clock_drift_ms,
            max_writers,
            max_session_entries,
            max_session_bytes,
            min_bytes_per_s,
            // one value, here and on its way, must fit
            max_session_memory_bytes: max_session_memory_bytes
                .max(max_value_bytes.saturating_mul(4)),
            max_removals,
            max_removals_percent,
            max_loaded_pages,
            max_sketch_bytes,
            kept_symbols,
            history_age_ms,
            history_percent,
            removal_log_entries,
            certificate_log_entries,
            ..Limits::default()
        }
    }

    /// How sessions behave unless they are told otherwise.
    #[must_use]
    pub fn sync(&self) -> SyncConfig {
        let SyncSettings {
            interval_s: _,
            max_concurrent_sessions: _,
            profile,
            max_batch_size,
            bloom_filter_items,
            bloom_filter_fpr,
            max_merkle_depth,
            enable_binary_diff,
            allow_removals,
        } = self.sync;
        SyncConfig {
            profile,
            max_batch_size,
            bloom_filter_items,
            bloom_filter_fpr,
            max_merkle_depth,
            enable_binary_diff,
            allow_removals,
            ..SyncConfig::default()
        }
    }

    /// When a daemon turns to which peer.
    #[must_use]
    pub fn schedule(&self) -> ScheduleSettings {
        ScheduleSettings {
            interval_ms: self.sync.interval_s * 1_000,
            // peers find room, too
            max_sessions: self.sync.max_concurrent_sessions.div_ceil(2),
            ..ScheduleSettings::default()
        }
    }

    /// How often all that is stored is read again, and at which rate.
    #[must_use]
    pub const fn scrub(&self) -> ScrubSettings {
        let ScrubKeys { interval_s, bytes_per_s, time_percent } = self.scrub;
        ScrubSettings { interval_ms: interval_s * 1_000, bytes_per_s, time_percent }
    }

    /// What all sessions together may take, and how long each.
    #[must_use]
    pub const fn sessions(&self) -> SessionLimits {
        SessionLimits {
            max_concurrent: self.sync.max_concurrent_sessions,
            max_memory_bytes: self.limits.max_memory_bytes,
            session: Duration::from_millis(self.deadlines.session_ms),
            phase: Duration::from_millis(self.deadlines.phase_ms),
        }
    }

    /// How long running sessions have to end when the node is to stop.
    #[must_use]
    pub const fn shutdown(&self) -> Duration {
        Duration::from_secs(self.deadlines.shutdown_s)
    }

    /// The settings that a running node cannot take over from another config, where they differ:
    /// it must be started anew for them.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let all = [
            ("listen", self.listen == other.listen),
            ("durability", self.durability == other.durability),
            ("[limits]", self.limits() == other.limits()),
            ("idle_ms", self.deadlines.idle_ms == other.deadlines.idle_ms),
        ];
        all.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// What connections may cost.
    #[must_use]
    pub fn net(&self) -> NetLimits {
        NetLimits {
            idle_timeout: Duration::from_millis(self.deadlines.idle_ms),
            ..NetLimits::default()
        }
    }

    /// How long finding and greeting a peer may take.
    #[must_use]
    pub const fn dial_deadline(&self) -> Duration {
        Duration::from_millis(self.deadlines.dial_ms)
    }

    /// Longest wait for a peer's next answer.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        Duration::from_millis(self.deadlines.answer_ms)
    }
}

/// A whole number from `MIN` to `MAX`.
fn within<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = deserializer.deserialize_i64(Within { least: MIN, greatest: MAX })?;
    T::try_from(number).map_err(|_| D::Error::custom(format!("{number} is too much here")))
}

/// What a number may be; says so when it is something else.
struct Within {
    least: u64,
    greatest: u64,
}

impl Visitor<'_> for Within {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, greatest } = self;
        write!(f, "a whole number from {least} to {greatest}, in the unit that ends the key's name")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number)
            .ok()
            .filter(|number| (self.least..=self.greatest).contains(number))
            .ok_or_else(|| {
                E::custom(format!("{number} is not from {} to {}", self.least, self.greatest))
            })
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(deserializer)?;
    if (0.000_001..=0.9).contains(&rate) {
        return Ok(rate);
    }
    Err(D::Error::custom(format!("{rate} is not from 0.000001 to 0.9")))
}

fn durability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Durability, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "always" => Ok(Durability::Always),
        "periodic" => Ok(Durability::Periodic),
        "never" => Ok(Durability::Never),
        other => Err(D::Error::custom(format!(
            "{other:?} is no durability: use \"always\", \"periodic\" or \"never\""
        ))),
    }
}

/// A node id as text, checked.
struct IdText(NodeId);

impl<'de> Deserialize<'de> for IdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // a visitor's error has the line of the element, any other that of the list
        deserializer.deserialize_str(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = IdText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node id: 64 hex digits in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<IdText, E> {
        parse_node_id(text).map(IdText).map_err(E::custom)
    }
}

fn node_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeId>, D::Error> {
    let ids = Vec::<IdText>::deserialize(deserializer)?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("c")).unwrap_err().to_string()
    }

    #[test]
    fn the_written_defaults_are_the_defaults() {
        let written = Config::parse(Config::DEFAULT_TEXT, Path::new("c")).unwrap();
        assert_eq!(written, Config::default());
        assert_eq!(written.limits(), Limits::default());
        assert_eq!(written.sync(), SyncConfig::default());
        assert_eq!(Config::parse("", Path::new("c")).unwrap(), Config::default());
    }

    #[test]
    fn what_a_running_node_cannot_take_over_is_named() {
        let config = Config::default();
        assert!(config.needs_restart(&config).is_empty());
        let text = "listen = \"[::]:1\"\n[limits]\nmax_siblings = 3\n[sync]\ninterval_s = 5\n";
        let other = Config::parse(text, Path::new("c")).unwrap();
        assert_eq!(config.needs_restart(&other), ["listen", "[limits]"]);
        assert_eq!(other.schedule().interval_ms, 5_000);
    }

    #[test]
    fn what_a_session_may_cost_is_as_written() {
        let text = "[limits]\nmax_writers = 1000000\nmax_session_bytes = 5\nmin_bytes_per_s = 0";
        let limits = Config::parse(text, Path::new("c")).unwrap().limits();
        let cost = (limits.max_writers, limits.max_session_bytes, limits.min_bytes_per_s);
        assert_eq!(cost, (1_000_000, 5, 0));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert!(error("listen = \"here\"").starts_with("c, line 1: "));
        assert!(error("\nlisten = 7").starts_with("c, line 2: "));
        let unknown = error("[limits]\n# a comment\nmax_values = 1\n");
        assert!(unknown.starts_with("c, line 3: unknown field `max_values`"), "{unknown}");
        let range = error("[limits]\nmax_value_bytes = 0\n");
        assert_eq!(range, "c, line 2: 0 is not from 1 to 1073741824");
        assert!(error("[sync]\nbloom_filter_fpr = 1.5\n").contains("line 2: 1.5 is not from"));
        assert!(error("[sync]\nallow_removals = \"yes\"\n").contains("line 2: invalid type"));
        assert!(error("durability = \"some\"").contains("\"always\", \"periodic\" or \"never\""));
        let id = error(&format!("allow = [\n  \"{}\",\n]", "0".repeat(64)));
        assert!(id.starts_with("c, line 2: 0000") && id.contains("not a usable node id"), "{id}");
        let range = error("[limits]\nmax_session_bytes = 0\n");
        assert_eq!(range, "c, line 2: 0 is not from 1 to 1099511627776");
        assert!(error("listen = ").starts_with("c, line 1: "));
        assert!(error("[sync]\ninterval_s = 0").contains("line 2: 0 is not from 1 to 86400"));
        assert!(error("[sync]\ninterval_s = \"1m\"").contains("line 2: invalid type"));
        let unit = error("[sync]\ninterval_s = \"5m\"");
        assert!(unit.contains("line 2: ") && unit.contains("in the unit that ends the key's name"));
        assert!(error("[limits]\nmax_siblings = -1").contains("-1 is not from 1 to 65535"));
    }
}
