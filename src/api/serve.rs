//! The socket on which a process that has a node open answers others.
//!
//! It lies in the data folder, mode 0600: whoever may open it may do all that the node's owner
//! may. One that a dead process left is replaced; one where somebody answers is never taken.
//!
//! ```
//! # #[cfg(unix)]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use selfsame::api::{Client, ControlSocket, Host};
//! use selfsame::node::home::Home;
//!
//! let folder = tempfile::tempdir()?;
//! let id = Home::init(folder.path())?;
//! let home = Home::open(folder.path())?;
//! let socket = ControlSocket::bind(folder.path()).await?;
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let serving = tokio::spawn(socket.serve(Arc::new(Host::new(&home)), stopped));
//!
//! let node = Client::connect(folder.path()).await.expect("it answers");
//! assert_eq!(node.node().await?.id, id.to_string());
//! stop.send(true)?;
//! serving.await?;
//! assert!(Client::connect(folder.path()).await.is_none());
//! # Ok(())
//! # }
//! # #[cfg(not(unix))]
//! # fn main() {}
//! ```

#[cfg(unix)]
pub use unix::ControlSocket;
#[cfg(unix)]
pub(super) use unix::call;

use std::io;
use std::path::PathBuf;

/// A socket that cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody answers there.
    #[error("another process answers at {}: end that one first", .0.display())]
    Taken(PathBuf),
    /// Something else has the name.
    #[error("{} is no socket: move it away", .0.display())]
    Occupied(PathBuf),
    /// The file system failed, or has no sockets.
    #[error("cannot offer the socket {path}: {source}", path = .path.display())]
    File {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(unix)]
mod unix;
