//! Arguments that several verbs share.

use clap::Args;

use super::error::CliError;
use crate::types::{CollectionName, Key, TypeError};

/// Parses the name of a collection.
pub(super) fn collection(text: &str) -> Result<CollectionName, TypeError> {
    CollectionName::new(text)
}

/// A key on the command line.
#[derive(Args)]
pub(super) struct KeyArgument {
    /// The key: 1 to 1,024 bytes of text
    #[arg(value_name = "KEY")]
    key: String,
    /// The key is written in hex, for bytes that are no text
    #[arg(long)]
    hex: bool,
}

impl KeyArgument {
    pub(super) fn key(&self) -> Result<Key, CliError> {
        Ok(Key::new(bytes(&self.key, self.hex)?)?)
    }
}

/// The bytes that an argument stands for.
pub(super) fn bytes(text: &str, hex: bool) -> Result<Vec<u8>, CliError> {
    if !hex {
        return Ok(text.as_bytes().to_vec());
    }
    hex::decode(text).map_err(|_| CliError::Hex { text: text.chars().take(80).collect() })
}
