//! `selfsame certificate show`

use std::path::{Path, PathBuf};

use clap::Args;

use super::described;
use crate::api::types::{CertificateAnswer, CertificateQuery, CertificateText};
use crate::cli::error::CliError;
use crate::cli::folder::write_whole;
use crate::cli::output::{Output, note, print, print_json};
use crate::cli::{Context, Exit, arguments};
use crate::merkle::CertificateBundle;
use crate::types::CollectionName;

/// Shows a certificate: one that this node has kept, or one in a file
///
/// Without --number it is the last one of the collection, or the last one with a peer. With
/// --output it is written to a file, for `selfsame certificate verify`: with what its root stands
/// for and its place in the signed log of this node, as far as they are still known, or alone
/// with --bare. Ends with 1 if there is no such certificate.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame certificate show players
  selfsame certificate show players --peer berlin --output players.cert
  selfsame certificate show --file players.cert --json")]
pub(in crate::cli) struct Show {
    /// The collection
    #[arg(value_parser = arguments::collection, required_unless_present = "file")]
    collection: Option<CollectionName>,
    /// The certificate with this number
    #[arg(long)]
    number: Option<u64>,
    /// The last one with this peer: its name, its id or the first digits of it
    #[arg(long)]
    peer: Option<String>,
    /// Shows the certificate in this file instead, whoever wrote it; needs no node
    #[arg(long, conflicts_with_all = ["collection", "number", "peer"])]
    file: Option<PathBuf>,
    /// Writes it to this file; - is standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes the certificate alone
    #[arg(long, requires = "output")]
    bare: bool,
    /// Prints JSON: {"number", "kept_ms", "collection", "nodes", "root", "context", "session",
    /// "stamp", "entries", "bytes", "bundle"}
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(in crate::cli) fn run(self, context: &Context) -> Result<Exit, CliError> {
        if let Some(file) = &self.file {
            let bundle = CertificateBundle::parse(&super::read(file)?)?;
            return self.tell(CertificateText::from(&bundle), &bundle);
        }
        let Some(collection) = &self.collection else { return Ok(Exit::Failed) };
        let query = CertificateQuery {
            peer: self.peer.clone(),
            number: self.number,
            ..CertificateQuery::default()
        };
        context.with(|control| {
            let answer = control.wait(control.node.certificate(collection, &query))?;
            let CertificateAnswer { certificate, bundle } = answer;
            let bundle = hex::decode(bundle).unwrap_or_default();
            self.tell(certificate, &CertificateBundle::parse(&bundle)?)
        })
    }

    fn tell(
        &self,
        certificate: CertificateText,
        bundle: &CertificateBundle,
    ) -> Result<Exit, CliError> {
        let bytes = if self.bare { bundle.certificate().to_bytes() } else { bundle.to_bytes() };
        let to_output = self.output.as_deref() == Some(Path::new("-"));
        match &self.output {
            Some(_) if to_output => {
                let mut output = Output::new();
                output.bytes(&bytes)?;
                output.finish()?;
            }
            Some(path) => write_whole(path, &bytes)?,
            None => {}
        }
        if self.json && !to_output {
            print_json(&CertificateAnswer { certificate, bundle: hex::encode(bytes) })?;
        } else if !to_output {
            print(described(&certificate, bundle))?;
        }
        if let Some(path) = self.output.as_ref().filter(|_| !to_output) {
            note(format_args!("written to {}", path.display()));
        }
        Ok(Exit::Done)
    }
}
