//! A reader of OpenMetrics text, as strict as the specification (version 1.0.0).

use std::collections::{BTreeMap, BTreeSet};

/// A metric with its samples: suffix of the name, labels, value.
#[derive(Debug, Default)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// All metrics of a text, by name.
#[track_caller]
pub(crate) fn parsed(text: &str) -> BTreeMap<String, Metric> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with its mark and a newline");
    assert!(!body.contains("# EOF"), "there is one end");
    let (mut metrics, mut seen) = (BTreeMap::<String, Metric>::new(), BTreeSet::new());
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').unwrap();
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(is_name(name), "{line}");
            if name != current {
                assert!(!metrics.contains_key(name), "{name} is in two pieces");
                current = name.to_owned();
            }
            let metric = metrics.entry(current.clone()).or_default();
            assert!(metric.samples.is_empty(), "{line} comes before the samples");
            match what {
                "TYPE" => metric.kind = text.to_owned(),
                "HELP" => metric.help = text.to_owned(),
                "UNIT" => assert!(name.ends_with(&format!("_{text}")), "{line}"),
                other => panic!("{other} is no word of the format"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let metric = metrics.get_mut(&current).expect("a sample has its metric above it");
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} in {current}"));
        let suffixes: &[&str] = match metric.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("{current} is a {other:?}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(seen.insert((name.clone(), labels.clone())), "{line} is there twice");
        assert!(metric.kind == "gauge" || value >= 0.0, "{line}");
        metric.samples.push((suffix.to_owned(), labels, value));
    }
    for (name, metric) in &metrics {
        assert!(!metric.kind.is_empty() && metric.help.len() > 5, "{name}: {metric:?}");
        check_histogram(name, metric);
    }
    metrics
}

fn check_histogram(name: &str, metric: &Metric) {
    let of = |suffix: &str| {
        let all = metric.samples.iter().filter(move |sample| sample.0 == suffix);
        all.map(|(_, labels, value)| (labels.get("le").cloned(), *value)).collect::<Vec<_>>()
    };
    let buckets = of("_bucket");
    assert!(buckets.is_sorted_by(|one, next| one.1 <= next.1), "{name}");
    if let Some(last) = buckets.last() {
        assert_eq!((last.0.as_deref(), last.1), (Some("+Inf"), of("_count")[0].1), "{name}");
    }
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Name, labels and value of a line.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after);
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
}

/// Text up to the quote that ends it, and what comes after.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                other => panic!("\\{other} stands for nothing"),
            }),
            other => value.push(other),
        }
    }
    panic!("{text} has no end")
}
