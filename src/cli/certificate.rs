//! `selfsame certificate`: what this node and its peers have signed to each other.

mod accept;
mod evidence;
mod ls;
mod show;
mod verify;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::{count, date_time, size};
use super::{Context, Exit};
use crate::api::types::CertificateText;
use crate::clock::Stamp;
use crate::merkle::{CertificateBundle, MAX_CERTIFICATE_BUNDLE_BYTES};

/// Shows the certificates of this node, and verifies those of any
///
/// A session that leaves both ends the same, other than before, ends with a certificate: both
/// nodes sign the root and the context that they hold. Each node keeps it in a log.
#[derive(Args)]
pub(super) struct Certificates {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ls(ls::List),
    Show(show::Show),
    Verify(verify::Verify),
    Evidence(evidence::Evidence),
    Accept(accept::Accept),
}

impl Certificates {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self.verb {
            Verb::Ls(verb) => verb.run(context),
            Verb::Show(verb) => verb.run(context),
            Verb::Verify(verb) => verb.run(),
            Verb::Evidence(verb) => verb.run(context),
            Verb::Accept(verb) => verb.run(context),
        }
    }
}

/// A file, as far as a certificate can be long, and one byte more.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(CliError::file("read", path))?;
    let most = MAX_CERTIFICATE_BUNDLE_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(CliError::file("read", path))?;
    Ok(bytes)
}

/// What a certificate says, for people.
fn described(text: &CertificateText, bundle: &CertificateBundle) -> String {
    let stamp = Stamp(text.stamp.parse().unwrap_or_default()).millis();
    let [lesser, greater] = &text.nodes;
    let mut said = format!(
        "collection  {}\nnodes       {lesser}\n            {greater}\nroot        {}\n\
         context     {}\nsession     {}\nclock       {}",
        text.collection,
        text.root,
        text.context,
        text.session,
        date_time(stamp),
    );
    if let Some(number) = text.number {
        said = format!("number      {number}\n{said}");
    }
    if let Some(kept) = text.kept_ms {
        said.push_str(&format!("\nkept        {}", date_time(kept)));
    }
    if let (Some(entries), Some(bytes)) = (text.entries, text.bytes) {
        said.push_str(&format!("\nentries     {}, {}", count(entries), size(bytes)));
    }
    if let Some(place) = bundle.place() {
        let fields = place.head().fields();
        said.push_str(&format!(
            "\nlog         item {} of {} in the certificate log {} of {}",
            place.proof().index(),
            fields.size(),
            fields.log().id,
            place.head().node()
        ));
    }
    said
}
