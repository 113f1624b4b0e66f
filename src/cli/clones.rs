//! `selfsame clones`

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{Output, counted, date_time, note, print, print_json};
use super::{Context, Exit, arguments};
use crate::api::types::{CloneText, ClonesText, SameDotText};
use crate::types::CollectionName;

/// Shows whether two copies of a node have written, and what was copied aside
///
/// A machine that is copied, or resumed from an image, while its node runs is a second node with
/// the same identity. Sessions find that out before they remove anything: they end, the node goes
/// on with a fresh writer, and its own writes of the old one are copied aside, since the rules may
/// now take them for writes of the copy. End one of the copies, look with --show at what was copied,
/// put again what is missing, and forget it. Also shown are writes of two copies that met under one
/// number: of each pair the greater stays at every node. Ends with 1 if there is anything, 0 if not.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame clones players
  selfsame clones players --show 1 > aside.jsonl
  selfsame clones players --forget 1")]
pub(super) struct Clones {
    /// The collection
    #[arg(value_parser = arguments::collection)]
    collection: CollectionName,
    /// Prints what was copied aside with this number, as JSON lines: {"key" or "key_hex",
    /// "writer", "counter", "stamp", "size", "value_hash", "value_hex"}
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["forget", "forget_writes"])]
    show: Option<u64>,
    /// Forgets what has this number, and what was copied aside with it
    #[arg(long, value_name = "NUMBER", conflicts_with = "forget_writes")]
    forget: Option<u64>,
    /// Forgets the writes that met under one number
    #[arg(long)]
    forget_writes: bool,
    /// Prints JSON: {"clones", "same_dot"}; with --forget {"forgotten"}
    #[arg(long)]
    json: bool,
}

impl Clones {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { collection, show, forget, forget_writes, json } = self;
        context.with(|control| {
            if let Some(number) = show {
                let mut lines = control.wait(control.node.aside(&collection, number))?;
                let mut output = Output::new();
                while let Some(line) = control.wait(lines.next_line())? {
                    output.bytes(&line)?;
                    output.bytes(b"\n")?;
                }
                output.finish()?;
                return Ok(Exit::Done);
            }
            if forget.is_some() || forget_writes {
                let forgotten = control.wait(async {
                    match forget {
                        Some(number) => control.node.forget_clone(&collection, number).await,
                        None => control.node.forget_same_dot(&collection).await,
                    }
                })?;
                let text = counted(forgotten.forgotten, "record", "records");
                let told = if json {
                    print_json(&forgotten)
                } else {
                    print(format_args!("{text} forgotten"))
                };
                return told.map(|()| Exit::Done);
            }
            let kept = control.wait(control.node.clones(&collection))?;
            if json {
                print_json(&json!(kept))?;
            } else {
                tell(&collection, &kept)?;
            }
            let none = kept.clones.is_empty() && kept.same_dot.is_empty();
            Ok(if none { Exit::Done } else { Exit::Differs })
        })
    }
}

fn tell(collection: &CollectionName, kept: &ClonesText) -> Result<(), CliError> {
    let mut output = Output::new();
    for one in &kept.clones {
        output.line(clone_text(collection, one))?;
    }
    for one in &kept.same_dot {
        output.line(same_dot_text(one))?;
    }
    output.finish()?;
    if kept.clones.is_empty() && kept.same_dot.is_empty() {
        note("no two copies of a node have written, as far as this node has seen");
    }
    Ok(())
}

fn clone_text(collection: &CollectionName, one: &CloneText) -> String {
    let CloneText { number, peer, writer, how, .. } = one;
    let when = date_time(one.found_ms);
    let found = if one.ours {
        format!("another copy of this node writes too: found at {when} with {peer}")
    } else {
        format!("two copies of {peer} write: found at {when}")
    };
    let mut text = format!(
        "{number}: {found} ({how}, writer {writer})\n   end one of them, and start the other anew"
    );
    if one.aside > 0 {
        let aside = counted(one.aside, "write was", "writes were");
        let show = format!("selfsame clones {collection} --show {number}");
        text.push_str(&format!("\n   {aside} copied aside: `{show}`"));
    }
    if one.not_before > 0 {
        text.push_str(&format!("\n   writes up to number {} were not looked at", one.not_before));
    }
    if one.left_out > 0 {
        let left = counted(one.left_out, "write", "writes");
        text.push_str(&format!("\n   {left} could not be copied: the entries rotted"));
    }
    text
}

fn same_dot_text(one: &SameDotText) -> String {
    let key = |put: &crate::api::types::PutText| {
        let key = put.key.as_ref().and_then(crate::api::types::KeyText::key);
        key.map_or_else(|| format!("key hash {}", put.kh), |key| key.to_string())
    };
    let SameDotText { writer, counter, lost, .. } = one;
    let made_way = format!("{} (value {})", key(lost), lost.value_hash);
    let stays = one.kept.as_ref().map_or_else(
        || "another".to_owned(),
        |kept| format!("{} (value {})", key(kept), kept.value_hash),
    );
    let when = one.found_ms.map(|at| format!("{}: ", date_time(at))).unwrap_or_default();
    let whose = if one.lost_here { "held here" } else { "of the peer" };
    format!(
        "{when}two writes under {writer}:{counter}: {stays} stays; {made_way}, {whose}, made way"
    )
}
