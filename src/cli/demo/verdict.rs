//! The end: are the three the same, is it proved, and did each kind of work happen?

use serde_json::json;

use super::DemoError;
use super::acts::{Story, plain_bytes};
use super::episode::Episode;
use super::machine::Machine;
use super::voice::{Voice, cell, count, counted, figures, size};
use crate::hash::Root;
use crate::merkle::{Certificate, Envelope, Leaf, Tree};
use crate::session::Phase;

/// From so many entries on, each kind of work must have happened.
const PROMISED_FROM: u64 = 200;

/// Says how it ended; whether all is as it should be.
pub(super) fn tell(story: &Story) -> Result<bool, DemoError> {
    let mut held = true;
    let mut table =
        figures(&["node", "entries", "bytes", "root, computed from the entries"].map(String::from));
    let mut roots = Vec::new();
    for machine in &story.machines {
        let working = story.voice.working(format!("{} reads and hashes everything", machine.name));
        let (root, entries, bytes, sound) = tokio::task::block_in_place(|| recompute(machine))?;
        drop(working);
        held &= sound;
        let told = root.to_string();
        let cells = [
            machine.name.to_owned(),
            count(entries),
            size(bytes),
            format!("{}..{}", &told[..16], &told[told.len() - 4..]),
        ];
        table.add_row(cells.into_iter().enumerate().map(|(at, text)| cell(at, text)));
        roots.push((machine.name, root));
    }
    let equal = roots.iter().all(|(_, root)| *root == roots[0].1);
    held &= equal;
    story.voice.space()?;
    story.voice.table(&table)?;
    story.voice.space()?;
    story.voice.say(if equal {
        "Every value was read and hashed again, every tree built anew: three roots, all the same."
    } else {
        "The roots are NOT equal."
    })?;
    held &= certificates(&story.voice, &story.episodes, &roots[0].1)?;
    held &= kinds_of_work(story)?;
    story.voice.json(&json!({
        "equal": equal,
        "roots": roots.iter().map(|(name, root)| json!({ "node": name, "root": root.to_string() }))
            .collect::<Vec<_>>(),
        "as_promised": held,
    }))?;
    Ok(held)
}

/// The root that follows from keys and records as they are read from the store, and whether
/// every value has its hash.
fn recompute(machine: &Machine) -> Result<(Root, u64, u64, bool), DemoError> {
    let collection = machine.collection()?;
    let report = collection.check()?;
    let snapshot = collection.snapshot()?;
    let algorithm = collection.spec().algorithm;
    let (mut leaves, mut last) = (Vec::new(), None);
    loop {
        let entries = snapshot.entries_after(last.as_ref(), 4_096, |_| true)?;
        let Some(entry) = entries.last() else { break };
        last = Some(algorithm.key_hash(&entry.key));
        leaves.extend(entries.iter().map(|entry| Leaf {
            key: algorithm.key_hash(&entry.key),
            record: entry.record.digest(algorithm),
            totals: entry.record.totals(),
        }));
    }
    let tree = Tree::build(algorithm, leaves);
    let root = Envelope::new(collection.spec().clone(), tree.tree_hash(), tree.totals())?.root();
    let sound = report.is_sound() && root == collection.root()?;
    Ok((root, tree.totals().entries, plain_bytes(&collection)?, sound))
}

/// Verifies each certificate from its bytes; those of the last root must name all nodes.
fn certificates(voice: &Voice, episodes: &[Episode], root: &Root) -> Result<bool, DemoError> {
    let mut named = Vec::new();
    let mut verified = 0;
    for episode in episodes {
        let Some(certificate) = episode.certificate() else { continue };
        let bytes = certificate.to_bytes();
        let read = Certificate::parse(&bytes)?;
        verified += 1;
        if read.message().root() == root {
            voice.fact(
                "signed",
                &format!(
                    "{} and {} over this root: {} bytes, both signatures hold",
                    episode.names[0],
                    episode.names[1],
                    bytes.len(),
                ),
            )?;
            named.extend(read.message().nodes());
        }
    }
    named.sort_unstable();
    named.dedup();
    voice.say(&format!(
        "{} of the sessions above verified from their bytes.",
        counted(verified, "certificate", "certificates"),
    ))?;
    Ok(named.len() == 3)
}

/// Each kind of work, and the session that shows it.
fn kinds_of_work(story: &Story) -> Result<bool, DemoError> {
    let shown = |work: &dyn Fn(&Episode) -> u64, better: &dyn Fn(&Episode) -> f64| {
        let working = story.episodes.iter().filter(|episode| work(episode) > 0);
        let best = working.max_by(|one, other| better(one).total_cmp(&better(other)))?;
        Some((best.number, work(best)))
    };
    let most = |work: &dyn Fn(&Episode) -> u64| shown(work, &|episode| work(episode) as f64);
    let complete = |episode: &Episode, work| if episode.is_complete() { work } else { 0 };
    let alone = |episode: &Episode| {
        if episode.announcement_sufficed() { episode.found(Phase::Announce) } else { 0 }
    };
    let bloom = |episode: &Episode| complete(episode, episode.found(Phase::BloomExchange));
    let sketch = |episode: &Episode| complete(episode, episode.found(Phase::SketchExchange));
    let delta = |episode: &Episode| complete(episode, episode.values().values_delta());
    let kinds = [
        ("announcement alone", shown(&alone, &Episode::saving), "news found without any search"),
        ("bloom exchange", most(&bloom), "keys found by filters"),
        ("sketch exchange", most(&sketch), "keys named by sketches"),
        ("delta", most(&delta), "values sent as differences"),
    ];
    let promised = story.data.len() >= PROMISED_FROM;
    let mut held = true;
    story.voice.space()?;
    let mut table = figures(&["what did work", "session", "how much", ""].map(String::from));
    for (name, shown, what) in kinds {
        let cells = match shown {
            Some((session, much)) => {
                [name.to_owned(), session.to_string(), count(much), what.to_owned()]
            }
            None => {
                held &= !promised;
                [name.to_owned(), "-".into(), "NOT SEEN".into(), String::new()]
            }
        };
        let last = cells.len() - 1;
        table.add_row(cells.into_iter().enumerate().map(|(at, text)| cell(at % last, text)));
    }
    story.voice.table(&table)?;
    if !promised {
        story.voice.say(&format!(
            "With fewer than {PROMISED_FROM} entries some of this is not worth its bytes, and the \
             planner leaves it out.",
        ))?;
    }
    Ok(held)
}
