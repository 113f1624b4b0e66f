//! selfsame measured beside the code of others, in one process and on the same data.

mod error;
mod find;
mod folder;
mod measure;
mod table;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures selfsame beside other people's code, on the same data
///
/// Bytes and messages are counted from serialised buffers and repeat to the byte. Times are CPU
/// time: on a shared machine only ratios within one run mean anything. Tables go to standard
/// output as markdown and, with --out, into a folder as CSV.
#[derive(Parser)]
#[command(name = "rivals", version)]
struct Rivals {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Tree(tree::Arguments),
    Find(find::Arguments),
    Folder(folder::Arguments),
    #[command(hide = true)]
    Weigh(tree::WeighArguments),
}

fn main() -> ExitCode {
    let done = match Rivals::parse().verb {
        Verb::Tree(arguments) => tree::run(&arguments),
        Verb::Find(arguments) => find::run(&arguments),
        Verb::Folder(arguments) => folder::run(&arguments),
        Verb::Weigh(arguments) => tree::weigh(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivals: {error}");
            ExitCode::FAILURE
        }
    }
}
