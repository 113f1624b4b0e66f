//! `selfsame peer invites`

use clap::Args;
use serde_json::{Value, json};

use super::{grants_json, now_unix_s};
use crate::cli::error::CliError;
use crate::cli::output::{Output, note, print, span, table};
use crate::cli::{Context, Exit};
use crate::node::home::Home;
use crate::node::pairing::{Invites, OpenInvite};
use crate::node::peers::PeerFiles;

/// Lists the open invitations of this node: those that are not used, expired or taken back
///
/// Each is named by an id, by which `selfsame peer uninvite` takes it back. The string that uses
/// an invitation was printed when it was made, and cannot be shown again: this node does not have
/// it.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame peer invites
  selfsame peer invites --json | jq -r .id")]
pub(in crate::cli) struct ListInvites {
    /// Prints JSON, a line for each: {"id", "name", "grants", "made_ms", "expires_ms"}, times
    /// in milliseconds since 1970
    #[arg(long)]
    json: bool,
}

impl ListInvites {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        let folder = context.folder()?;
        Home::identity_of(&folder)?;
        let files = PeerFiles::new(&folder);
        let now = now_unix_s();
        let open = Invites::new(&files).open(now)?;
        if self.json {
            let mut output = Output::new();
            for invite in &open {
                output.json(&described(invite))?;
            }
            output.finish()?;
        } else if open.is_empty() {
            note("no invitation is open: `selfsame peer invite` makes one");
        } else {
            let mut rows = table(&["ID", "NAME", "MAY DO HERE", "MADE", "EXPIRES"], &[]);
            for invite in &open {
                let made = invite.made_unix_s.map(|made| now.saturating_sub(made));
                rows.add_row([
                    invite.id().to_string(),
                    invite.name.as_ref().map_or("-".into(), ToString::to_string),
                    invite.grants.to_string(),
                    made.map_or("-".into(), |ago| format!("{} ago", span(millis(ago)))),
                    format!("in {}", span(millis(invite.expires_unix_s.saturating_sub(now)))),
                ]);
            }
            print(rows)?;
        }
        Ok(Exit::Done)
    }
}

const fn millis(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000)
}

fn described(invite: &OpenInvite) -> Value {
    json!({
        "id": invite.id().to_string(),
        "name": invite.name.as_ref().map(ToString::to_string),
        "grants": grants_json(&invite.grants),
        "made_ms": invite.made_unix_s.map(millis),
        "expires_ms": millis(invite.expires_unix_s),
    })
}
