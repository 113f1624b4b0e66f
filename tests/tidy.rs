//! The rules of the house: what a change must keep, told by a test instead of a reviewer.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::process::Command;

use source::{Source, package, sources};

/// The floors of the house, lowest first: imports go down, or stay on their floor.
///
/// A room is a module of the crate's root, or one below that stands on another floor than its
/// parent. The root itself is the map and stands on none.
const FLOORS: [(&str, &[&str]); 6] = [
    ("L0 words", &["clock", "codec", "dots", "entry", "hash", "limits", "mutants", "types"]),
    ("L1 algorithms", &["delta", "merkle", "resolve", "sketch"]),
    ("L2 protocol", &["backup", "replica", "session", "store"]),
    ("L3 world", &["net", "store::committer", "store::embedded"]),
    ("L4 node", &["node"]),
    ("L5 faces", &["api", "cli", "main"]),
];

/// The highest floor that knows no socket, file, clock, thread or global randomness.
const PURE_UP_TO: usize = 2;

/// Names under which rooms of a higher floor are re-exported by a room of a lower one.
const HIGHER_NAMES: [&str; 2] = ["EmbeddedOptions", "EmbeddedStore"];

/// What a pure room never names, as identifiers.
const WORLDLY_WORDS: [&str; 12] = [
    "EmbeddedStore",
    "Instant",
    "OsRng",
    "SysRng",
    "SystemTime",
    "fjall",
    "getrandom",
    "quinn",
    "rustls",
    "socket2",
    "thread_rng",
    "tokio",
];

/// What a pure room never names, as paths below `std` and `rand`.
const WORLDLY_PATHS: [(&str, &[&str]); 2] = [
    ("std", &["env", "fs", "net", "os", "process", "thread"]),
    ("rand", &["rng", "random", "thread_rng"]),
];

/// Longest file of `src`, in lines.
const MAX_LINES: usize = 800;

/// Public modules without an example, each with its reason.
const WITHOUT_EXAMPLE: [(&str, &str); 0] = [];

/// How `src/lib.rs` begins its lines. The unit struct carries a guide whose examples are tested.
const OF_A_MAP: [&str; 7] =
    ["pub mod ", "mod ", "pub use ", "#[cfg(", "#![", "#[doc", "struct LibraryGuide;"];

/// Features and the crates that must not come with them.
const ABSENT: [(&str, &[&str]); 3] = [
    ("", &["bincode", "bitvec", "fjall", "quinn", "rand", "rustls", "serde", "tokio", "zstd"]),
    ("tree", &["bincode", "fjall", "quinn", "rand", "rustls", "serde", "tokio", "zstd"]),
    ("session", &["fjall", "getrandom", "quinn", "rand", "rustls", "socket2", "tokio"]),
];

/// The floor of a module, and the room that says so.
fn floor(module: &[&str]) -> Option<(usize, String)> {
    (1..=module.len()).rev().find_map(|names| {
        let room = module[..names].join("::");
        let at = FLOORS.iter().position(|(_, rooms)| rooms.contains(&room.as_str()))?;
        Some((at, room))
    })
}

fn is_root(source: &Source) -> bool {
    source.path == "lib.rs"
}

fn is_pure(source: &Source) -> bool {
    floor(&source.module()).is_some_and(|(at, _)| at <= PURE_UP_TO)
}

fn report(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn every_file_has_a_floor() {
    let faults: Vec<_> = sources()
        .iter()
        .filter(|source| !is_root(source) && floor(&source.module()).is_none())
        .map(|source| format!("src/{}", source.path))
        .collect();
    report(&faults, "modules that stand on no floor: give each one in FLOORS");
}

#[test]
fn imports_go_down() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !is_root(source)) {
        let module = source.module();
        let Some((from, room)) = floor(&module) else { continue };
        let mut imports = source.paths_from("crate", 2);
        imports.extend(source.paths_from("selfsame", 2));
        for import in imports {
            let names: Vec<_> = import.split("::").collect();
            if let Some((to, other)) = floor(&names).filter(|(to, _)| *to > from) {
                faults.push(format!(
                    "src/{} ({room}, {}) uses {other} ({})",
                    source.path, FLOORS[from].0, FLOORS[to].0
                ));
            }
        }
        let map_of_them = source.path == "store.rs";
        let high = source.identifiers().filter(|(_, word)| HIGHER_NAMES.contains(word));
        if from <= PURE_UP_TO && !map_of_them {
            faults.extend(high.map(|(at, word)| format!("src/{}:{at} uses {word}", source.path)));
        }
    }
    report(&faults, "imports that go up");
}

/// Both are faces; the command line stands on the API, not the other way round.
#[test]
fn the_api_knows_no_command_line() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.module().first() == Some(&"api")) {
        let imports = source.paths_from("crate", 1);
        if imports.iter().any(|import| import == "cli") {
            faults.push(format!("src/{}", source.path));
        }
    }
    report(&faults, "files of the API that use the command line");
}

/// Otherwise [`imports_go_down`] would not see where they lead.
#[test]
fn who_leaves_a_module_says_crate() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !is_root(source)) {
        let inner = source.code.lines().any(|line| line.trim_end().ends_with('{') && is_mod(line));
        let depth = source.module().len() + usize::from(inner);
        let climbs = "super::".repeat(depth);
        for (at, line) in source.code.lines().enumerate() {
            if line.contains(&climbs) {
                faults.push(format!("src/{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    report(&faults, "`super` that leads to the crate's root: write `crate::`");
}

fn is_mod(line: &str) -> bool {
    line.trim_start().trim_start_matches("pub ").starts_with("mod ")
}

#[test]
fn words_algorithms_and_protocol_know_no_world() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| is_pure(source)) {
        let map_of_them = source.path == "store.rs";
        for (at, word) in source.identifiers() {
            if WORLDLY_WORDS.contains(&word) && !(map_of_them && HIGHER_NAMES.contains(&word)) {
                faults.push(format!("src/{}:{at} names {word}", source.path));
            }
        }
        for (root, below) in WORLDLY_PATHS {
            for name in source.paths_from(root, 1).iter().filter(|n| below.contains(&n.as_str())) {
                faults.push(format!("src/{} uses {root}::{name}", source.path));
            }
        }
    }
    report(&faults, "time, randomness, files and sockets belong to L3 and above, or in arguments");
}

#[test]
fn files_hold_one_idea() {
    let faults: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, source)| format!("src/{}: {lines} lines", source.path))
        .collect();
    report(&faults, "files over 800 lines: look for the second idea");
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
    let mut faults = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("src/{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    report(&faults, "marks of unfinished work");
}

/// The one module of processor intrinsics.
const INTRINSICS: &str = "sketch/pinsketch/clmul.rs";

#[test]
fn no_code_is_unsafe_but_one_module_of_intrinsics_that_says_why() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.path == INTRINSICS {
            let blocks = source.identifiers().filter(|(_, word)| *word == "unsafe").count();
            assert_eq!(source.text.matches("// SAFETY: ").count(), blocks, "a reason for each");
            continue;
        }
        let found = source.identifiers().filter(|(_, word)| *word == "unsafe");
        faults.extend(found.map(|(at, _)| format!("src/{}:{at}", source.path)));
    }
    report(&faults, "unsafe code");
    let manifest = std::fs::read_to_string(package().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""), "Cargo.toml no longer denies it");
    let allowing = sources().iter().filter(|one| one.text.contains("unsafe_code")).count();
    assert_eq!(allowing, 1, "one module is let do it, by the one that holds it");
}

#[test]
fn lib_is_only_a_map() {
    let sources = sources();
    let lib = sources.iter().find(|source| is_root(source)).unwrap();
    let faults: Vec<_> = lib
        .code
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter(|line| !OF_A_MAP.iter().any(|start| line.starts_with(start)))
        .map(str::to_owned)
        .collect();
    report(&faults, "src/lib.rs holds docs, modules and re-exports, and nothing else");
}

#[test]
fn main_is_short() {
    let sources = sources();
    let main = sources.iter().find(|source| source.path == "main.rs").unwrap();
    let lines = main.text.lines().count();
    assert!(lines < 30, "src/main.rs has {lines} lines: what it does belongs in src/cli");
}

#[test]
fn no_module_is_called_mod() {
    let faults: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.path.ends_with("/mod.rs"))
        .map(|source| format!("src/{}", source.path))
        .collect();
    report(&faults, "`foo.rs` stands beside `foo/`");
}

#[test]
fn public_modules_show_how_they_are_used() {
    let sources = sources();
    let mut faults = Vec::new();
    for path in public_modules(&sources, "lib.rs", "") {
        let source = sources.iter().find(|source| source.path == path).unwrap();
        let excused = WITHOUT_EXAMPLE.iter().any(|(module, _)| *module == path);
        let shown = source.docs().contains("```");
        match (shown, excused) {
            (false, false) => faults.push(format!("src/{path} has no example in its //! docs")),
            (true, true) => faults.push(format!("src/{path} is excused, and has an example")),
            _ => {}
        }
    }
    report(&faults, "a public module has an example that compiles");
}

/// Files of the modules that are public all the way from `file`, whose children are in `folder`.
fn public_modules(sources: &[Source], file: &str, folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Some(parent) = sources.iter().find(|source| source.path == file) else { return found };
    for line in parent.code.lines() {
        let name = line.trim().strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'));
        let Some(name) = name else { continue };
        let path = format!("{folder}{name}.rs");
        found.extend(public_modules(sources, &path, &format!("{folder}{name}/")));
        found.insert(path);
    }
    found
}

#[test]
fn lower_levels_bring_no_runtime_along() {
    let mut faults = Vec::new();
    for (level, absent) in ABSENT {
        let crates = crates_of(level);
        assert!(crates.contains("blake3"), "`cargo tree` lists the crates: {crates:?}");
        for name in absent.iter().filter(|name| crates.contains(**name)) {
            faults.push(format!("features [{level}] bring {name}"));
        }
    }
    report(&faults, "crates that a lower level must not need");
}

/// Names of the crates that a program with these features is made of.
fn crates_of(features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(package())
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--no-default-features", "--features", features])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
