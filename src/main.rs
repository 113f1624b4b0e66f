//! The `selfsame` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    selfsame::cli::run()
}
