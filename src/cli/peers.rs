//! `selfsame peer`: whom this node knows and what each may do.
//!
//! These verbs touch the files of the peer book only, so they work beside a process that has the
//! data folder open.

mod add;
mod grant;
mod invite;
mod invites;
mod join;
mod ls;
mod rm;
mod uninvite;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::error::CliError;
use super::{Context, Exit};
use crate::node::peers::{Grant, GrantRule, Grants};

/// Lists the peers of this node, changes what each may do here, pairs with new ones
///
/// The peer book is peers.toml in the data folder. A running `selfsame listen` notices within a
/// second that it has changed: what was taken back ends at once.
#[derive(Args)]
pub(super) struct Peers {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Add(add::Add),
    Ls(ls::List),
    Rm(rm::Remove),
    Grant(grant::Give),
    Invite(invite::Invite),
    Invites(invites::ListInvites),
    Uninvite(uninvite::Uninvite),
    Join(join::Join),
}

impl Peers {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self.verb {
            Verb::Add(verb) => verb.run(context),
            Verb::Ls(verb) => verb.run(context),
            Verb::Rm(verb) => verb.run(context),
            Verb::Grant(verb) => verb.run(context),
            Verb::Invite(verb) => verb.run(context),
            Verb::Invites(verb) => verb.run(context),
            Verb::Uninvite(verb) => verb.run(context),
            Verb::Join(verb) => verb.run(context),
        }
    }
}

/// The time by which invitations expire.
fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Grants as they are printed for programs.
fn grants_json(grants: &Grants) -> Map<String, Value> {
    let rule = |rule: GrantRule| {
        let name = rule.collection.map_or("*".to_owned(), |name| name.to_string());
        (name, rule.grant.to_string().into())
    };
    grants.rules().map(rule).collect()
}

/// What a new peer may do here.
#[derive(Args)]
struct GrantArguments {
    /// What the peer may do here with a collection: none, read (compare and take) or write (also
    /// give); * stands for all collections that are not named; may be repeated [default:
    /// *=write]
    #[arg(long = "grant", value_name = "COLLECTION=GRANT")]
    rules: Vec<GrantRule>,
}

impl GrantArguments {
    /// None if nothing was said.
    fn said(&self) -> Option<Grants> {
        (!self.rules.is_empty()).then(|| self.rules.iter().cloned().collect())
    }

    fn grants(&self) -> Grants {
        self.said().unwrap_or(Grants::all(Grant::Write))
    }
}
