//! `selfsame certificate verify`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::described;
use crate::api::types::CertificateText;
use crate::cli::Exit;
use crate::cli::error::CliError;
use crate::cli::output::{print, print_json};
use crate::hash::Root;
use crate::merkle::{CertificateBundle, Envelope};
use crate::net::{IdentityError, parse_node_id};
use crate::types::NodeId;

/// Verifies a certificate, offline: that these two nodes signed that they hold the same
///
/// Needs no node, no data folder and no trust in whoever made the file; only the ids of the two
/// nodes, from a source that you trust. Ends with 0 if the certificate is valid, 6 if it is well
/// formed and does not hold or is about something else, 2 if the file is no certificate: cut
/// short, too long, changed in form.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame certificate verify players.cert --node ID --node ID
  selfsame certificate verify players.cert --node ID --node ID --root ROOT")]
pub(in crate::cli) struct Verify {
    /// The certificate, as `selfsame certificate show --output` wrote it
    file: PathBuf,
    /// The id of a node that must have signed it: to be given twice
    #[arg(long = "node", value_name = "ID", required = true, value_parser = node_id)]
    nodes: Vec<NodeId>,
    /// The root that it must be about: 64 hex digits
    #[arg(long, value_name = "HEX")]
    root: Option<Root>,
    /// A file with the envelope that its root must stand for
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// Prints JSON, if it is valid: {"result": "valid", "collection", "nodes", "root", "context",
    /// "session", "stamp", "entries", "bytes"}
    #[arg(long)]
    json: bool,
}

fn node_id(text: &str) -> Result<NodeId, IdentityError> {
    parse_node_id(text)
}

impl Verify {
    pub(in crate::cli) fn run(self) -> Result<Exit, CliError> {
        let nodes = <[NodeId; 2]>::try_from(self.nodes.as_slice())
            .map_err(|_| CliError::TwoNodes(self.nodes.len()))?;
        let mut bundle = CertificateBundle::parse(&super::read(&self.file)?)?;
        bundle.check_nodes(&nodes)?;
        if let Some(root) = &self.root {
            bundle.check_root(root)?;
        }
        if let Some(path) = &self.envelope {
            let envelope = Envelope::parse(&super::read(path)?);
            bundle = bundle.with_envelope(envelope.map_err(CliError::Envelope)?)?;
        }
        let text = CertificateText::from(&bundle);
        if self.json {
            let mut json = json!(text);
            if let Some(fields) = json.as_object_mut() {
                fields.insert("result".into(), "valid".into());
            }
            print_json(&json)?;
        } else {
            let what = "valid: both nodes signed that they hold the same";
            print(format_args!("{what}\n{}", described(&text, &bundle)))?;
        }
        Ok(Exit::Done)
    }
}
