//! `selfsame metrics`

use clap::Args;

use super::error::CliError;
use super::output::{print, print_json};
use super::{Context, Exit};

/// Prints the figures of this node for Prometheus, as OpenMetrics text
///
/// Beside a process that stays (`selfsame serve`, `selfsame listen`): what its sessions did since
/// its start, how it stands with its peers, and what each collection holds. Alone: what the store
/// knows. The same text is at /v1/metrics of the control socket. Nothing is read that depends on
/// how much a collection holds; no key and no value is in it. docs/operations.md has all metrics
/// in a table, and rules for alerts.
#[derive(Args)]
#[command(after_help = "Examples:
  selfsame metrics
  selfsame metrics > selfsame.prom.new && mv selfsame.prom.new selfsame.prom
  selfsame metrics --json | jq '.metrics[] | select(.name == \"selfsame_pair_equal\").samples'")]
pub(super) struct Metrics {
    /// Prints JSON: {"metrics": [{"name", "type", "help", "labels", "samples"}]}; a sample has
    /// "labels" and "value", of a histogram "labels" and "histogram"
    #[arg(long)]
    json: bool,
}

impl Metrics {
    pub(super) fn run(self, context: &Context) -> Result<Exit, CliError> {
        context.with(|control| {
            if self.json {
                print_json(&control.wait(control.node.metrics())?)?;
            } else {
                print(control.wait(control.node.metrics_text())?.trim_end())?;
            }
            Ok(Exit::Done)
        })
    }
}
