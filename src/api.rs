//! The control API: what people and programs on this machine ask of a node.
//!
//! One [`router`] over a [`Host`], which is a node that a process has open. A process that stays,
//! such as `selfsame listen`, serves it on a socket in its data folder ([`ControlSocket`]); a
//! command that finds nobody there opens the store and calls the router itself. [`Client`] does
//! both, so that every command is the same beside a running node and without one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use selfsame::api::types::NewCollection;
//! use selfsame::api::{Client, Host};
//! use selfsame::node::home::Home;
//! use selfsame::types::{CollectionName, Key};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! Home::init(folder.path())?;
//! assert!(Client::connect(folder.path()).await.is_none(), "nobody has the node open");
//!
//! let home = Home::open(folder.path())?;
//! let node = Client::here(Arc::new(Host::new(&home)));
//! let players = CollectionName::new("players")?;
//! node.create(&players, &NewCollection::default()).await?;
//! node.put(&players, &Key::new("ada")?, b"level 3".to_vec()).await?;
//! let value = node.value(&players, &Key::new("ada")?).await?;
//! assert_eq!(&*value.bytes, b"level 3");
//! drop(node);
//! home.close()?;
//! # Ok(())
//! # }
//! ```

mod backup;
mod body;
mod certificates;
pub mod client;
mod clones;
mod conflicts;
mod doctor;
mod entries;
pub mod error;
mod exit;
pub mod frames;
mod history;
pub mod host;
mod metrics;
pub(crate) mod paths;
mod proofs;
mod reach;
pub(crate) mod report;
mod router;
mod scrub;
pub mod serve;
mod sessions;
mod status;
mod transfer;
pub mod types;

pub use client::{CallError, ChangeChoice, Client, CommitFile, ConflictQuery};
pub use error::{ApiError, Problem};
pub use exit::Exit;
pub use host::{ApiLimits, Host};
pub use router::router;
#[cfg(unix)]
pub use serve::ControlSocket;
pub use transfer::{BATCH_BYTES, BATCH_ENTRIES};
