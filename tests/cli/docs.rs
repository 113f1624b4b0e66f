//! The documentation says what the binary says.

use std::path::Path;

use selfsame::node::config::Config;

use super::node::TestNode;

fn doc(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// The part of docs/cli.md that the binary writes itself.
fn help_of_all_verbs() -> String {
    let node = TestNode::bare();
    let help = |path: &[&str]| {
        let ran = node.run([path, &["--help"]].concat()).ended(0);
        let text: Vec<_> = ran.text().lines().map(str::trim_end).collect();
        format!("```text\n{}\n```\n", text.join("\n").trim_end())
    };
    let mut text = format!("## selfsame\n\n{}", help(&[]));
    for verb in selfsame::cli::command().get_subcommands() {
        let name = verb.get_name();
        text.push_str(&format!("\n## selfsame {name}\n\n{}", help(&[name])));
        for inner in verb.get_subcommands() {
            let inner = inner.get_name();
            text.push_str(&format!("\n### selfsame {name} {inner}\n\n{}", help(&[name, inner])));
        }
    }
    text
}

/// `UPDATE_DOCS=1 cargo test --test cli the_help` writes it anew.
#[test]
fn the_help_of_every_verb_is_in_the_docs() {
    const MARK: &str = "<!-- below this line: written by the test of the command line -->\n\n";
    let path = doc("cli.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (intro, written) = text.split_once(MARK).expect("the mark is in docs/cli.md");
    let help = help_of_all_verbs();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{intro}{MARK}{help}")).unwrap();
    } else {
        assert!(written == help, "docs/cli.md is not up to date: run this test with UPDATE_DOCS=1");
    }
}

#[test]
fn every_exit_code_is_documented() {
    let text = std::fs::read_to_string(doc("cli.md")).unwrap();
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 130] {
        assert!(text.contains(&format!("| {code} |")), "{code}");
    }
}

#[test]
fn every_key_of_the_config_is_documented_with_its_default() {
    let text = std::fs::read_to_string(doc("config.md")).unwrap();
    let defaults: toml::Table = Config::DEFAULT_TEXT.parse().unwrap();
    for (key, value) in &defaults {
        if let Some(section) = value.as_table() {
            assert!(text.contains(&format!("## [{key}]")), "{key}");
            for (inner, value) in section {
                assert!(
                    text.contains(&format!("| `{inner}` | `{value}` |")),
                    "{key}.{inner} {value}"
                );
            }
        } else {
            assert!(text.contains(&format!("| `{key}` | `{value}` |")), "{key} {value}");
        }
    }
}

#[test]
fn every_endpoint_is_documented() {
    let text = std::fs::read_to_string(doc("api.md")).unwrap();
    let router = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/router.rs");
    let router = std::fs::read_to_string(router).unwrap();
    let routes: Vec<_> =
        router.split(".route(\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    assert!(routes.len() > 15);
    for route in routes {
        let route = route.trim_start_matches("/v1");
        let said = if route == "/" { "`/collections/{name}`" } else { &format!("{route}`") };
        assert!(text.contains(said), "{said}");
    }
}

/// What is logged: the last text of each call at these levels.
fn logged(code: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (word, level) in [("info", "INFO"), ("warn", "WARN"), ("error", "ERROR")] {
        for call in code.split(&format!("tracing::{word}!(")).skip(1) {
            let ends = |at: &usize| call[at + 1..].trim_start().starts_with(')');
            let end = call.match_indices('"').map(|(at, _)| at).find(ends).unwrap();
            let message = call[..end].rsplit_once('"').unwrap().1;
            found.push((level, message.to_owned()));
        }
    }
    found
}

#[test]
fn every_line_of_the_log_is_documented() {
    let text = std::fs::read_to_string(doc("operations.md")).unwrap();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for (level, message) in logged(&std::fs::read_to_string(&path).unwrap()) {
                count += 1;
                let row = format!("| {level} | `{message}`");
                assert!(text.contains(&row), "not in operations.md: {row}");
            }
        }
    }
    assert_eq!(count, text.lines().filter(|line| is_of_log(line)).count(), "rows without a line");
}

fn is_of_log(line: &str) -> bool {
    ["INFO", "WARN", "ERROR"].iter().any(|level| line.starts_with(&format!("| {level} |")))
}

/// The table of all metrics, as the binary has them.
fn table_of_metrics() -> String {
    let node = TestNode::new();
    let all = node.run(["metrics", "--json"]).ended(0).json();
    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for metric in all["metrics"].as_array().unwrap() {
        let labels: Vec<_> = metric["labels"].as_array().unwrap().iter().collect();
        let labels: Vec<_> =
            labels.iter().map(|label| format!("`{}`", label.as_str().unwrap())).collect();
        let of = |field: &str| metric[field].as_str().unwrap();
        let (name, kind, help) = (of("name"), of("type"), of("help"));
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    table
}

/// `UPDATE_DOCS=1 cargo test --test cli every_metric` writes it anew.
#[test]
fn every_metric_is_in_the_docs() {
    const MARKS: [&str; 2] =
        ["<!-- metrics: written by a test -->\n\n", "\n<!-- end of the metrics -->"];
    let path = doc("operations.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MARKS[0]).expect("the mark is in docs/operations.md");
    let (written, after) = rest.split_once(MARKS[1]).expect("so is the other");
    let table = table_of_metrics();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, [before, MARKS[0], &table, MARKS[1], after].concat()).unwrap();
    } else {
        assert!(written == table, "docs/operations.md is not up to date: run with UPDATE_DOCS=1");
    }
}

#[test]
fn every_verb_has_examples() {
    fn check(command: &clap::Command) {
        if command.has_subcommands() {
            command.get_subcommands().for_each(check);
            return;
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example"), "{}", command.get_name());
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 10, "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
    check(&selfsame::cli::command());
}
