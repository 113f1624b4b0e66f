//! The files under `src`, read as text: enough of Rust's grammar to tell code from comments.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One file of the library or the binary.
pub struct Source {
    /// Below `src`, with `/` between folders.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// Without comments and without what stands in literals; lines stay where they are.
    pub code: String,
}

impl Source {
    /// The names of its module path: `net/frame.rs` is `["net", "frame"]`.
    pub fn module(&self) -> Vec<&str> {
        self.path.trim_end_matches(".rs").split('/').collect()
    }

    /// Its inner documentation, `//!`, without the marks.
    pub fn docs(&self) -> String {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("//!"));
        lines.map(|line| format!("{}\n", line.trim_start())).collect()
    }

    /// Every identifier of its code with the line it stands on.
    pub fn identifiers(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(at, line)| {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.filter(|word| !word.is_empty()).map(move |word| (at + 1, word))
        })
    }

    /// The paths below `root` that its code names, each up to `depth` names, as
    /// `use root::{a, b::c}` or anywhere else.
    pub fn paths_from(&self, root: &str, depth: usize) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices(root) {
            let before = self.code[..at].chars().next_back();
            let rest = &self.code[at + root.len()..];
            if before.is_none_or(|c| !is_word(c)) && rest.starts_with("::") {
                expand(&rest[2..], String::new(), depth, &mut found);
            }
        }
        found
    }
}

/// Collects the paths that begin here; returns what follows them.
fn expand<'a>(
    rest: &'a str,
    prefix: String,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            inner = expand(inner, prefix.clone(), depth, found).trim_start();
            inner = match inner.chars().next() {
                Some(',') => &inner[1..],
                Some('}') => return &inner[1..],
                Some(c) => &inner[c.len_utf8()..],
                None => return inner,
            };
        }
    }
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let full = prefix.is_empty() || prefix.matches("::").count() + 1 < depth;
    let path = match (name.is_empty(), prefix.is_empty()) {
        (true, _) => prefix,
        (false, true) => name.to_owned(),
        (false, false) if full => format!("{prefix}::{name}"),
        (false, false) => prefix,
    };
    if let Some(below) = rest.strip_prefix("::") {
        return expand(below, path, depth, found);
    }
    if !path.is_empty() {
        found.insert(path);
    }
    rest
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The root of the package.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `src`, by path.
pub fn sources() -> Vec<Source> {
    let root = package().join("src");
    let mut sources: Vec<_> = rust_files(&root)
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&root).unwrap().components();
            let names: Vec<_> = path.map(|part| part.as_os_str().to_str().unwrap()).collect();
            Source { path: names.join("/"), code: code_of(&text), text }
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Blanks comments and the contents of literals.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.push(' ');
            code.extend(chars[at..end].iter().filter(|c| **c == '\n'));
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn skipped(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    let after_word = at > 0 && is_word(chars[at - 1]);
    match (chars[at], next) {
        ('/', Some('/')) => find(chars, at, |rest| rest[0] == '\n'),
        ('/', Some('*')) => block_comment(chars, at),
        ('"', _) => quoted(chars, at + 1, '"'),
        ('r', Some('"' | '#')) if !after_word => raw_string(chars, at),
        ('\'', Some('\\')) => quoted(chars, at + 1, '\''),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| is_end(&chars[at..])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(chars: &[char], mut at: usize, end: char) -> usize {
    while at < chars.len() && chars[at] != end {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest[1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    find(chars, at + 2 + hashes, closes) + 1 + hashes
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let text = "use a; // no\n/* no /* no */ */let b = \"no\\\" no\"; r#\"no\"#; 'n' '\\'' x<'c>\n";
    let code = code_of(text);
    assert!(!code.contains("no"), "{code}");
    assert!(code.contains("use a;") && code.contains("let b =") && code.contains("x<'c>"));
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn paths_are_found_in_groups() {
    let text = "use crate::{a, b::{c, d::e}};\nfn f() { crate::g::h(); notcrate::i(); }";
    let source = Source { path: "x.rs".into(), text: text.into(), code: text.into() };
    let found: Vec<_> = source.paths_from("crate", 2).into_iter().collect();
    assert_eq!(found, ["a", "b::c", "b::d", "g::h"]);
    let found: Vec<_> = source.paths_from("crate", 1).into_iter().collect();
    assert_eq!(found, ["a", "b", "g"]);
}
