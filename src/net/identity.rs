//! A node's key pair and the file it lives in.
//!
//! The file is text: comment lines that start with `#`, and one line of 64 hex digits, the
//! Ed25519 secret key (the seed of RFC 8032). It is created with mode 0600, in one step and
//! never over another file; one that others may read is refused when it is opened.
//!
//! ```
//! use selfsame::net::{Identity, parse_node_id};
//!
//! let identity = Identity::generate()?;
//! let text = identity.node_id().to_string();
//! assert_eq!(text.len(), 64);
//! assert_eq!(parse_node_id(&text)?, identity.node_id());
//! assert!(parse_node_id(&"0".repeat(64)).is_err()); // a point of small order
//! # Ok::<(), selfsame::net::IdentityError>(())
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rand::TryRng as _;
use zeroize::Zeroizing;

use crate::merkle::{self, NodeKey, Signature};
use crate::types::NodeId;

/// Longest identity file that is read: comments and one key need far less.
const MAX_FILE_BYTES: u64 = 4096;

/// An identity or a node id that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is not a node id.
    #[error("{0:?} is not a node id: expected 64 hex digits, as `selfsame id` prints them")]
    NotHex(String),
    /// The bytes are no key that a node could own.
    #[error("{0} is not a usable node id: not the canonical form of a sound Ed25519 public key")]
    UnsoundKey(NodeId),
    /// There is no such file.
    #[error("there is no identity file {path}: create one first", path = .0.display())]
    Missing(PathBuf),
    /// A file is already there.
    #[error("{path} already exists: an identity is never overwritten; move it away first",
        path = .0.display())]
    Exists(PathBuf),
    /// Others may read the file.
    #[error("{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`, and make \
        a new identity if somebody may have read it", path = .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path} is not an identity file: expected comment lines that start with # and one \
        line of 64 hex digits", path = .0.display())]
    Malformed(PathBuf),
    /// The file system failed.
    #[error("cannot access the identity file {path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system has no randomness to give.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(String),
}

/// An Ed25519 key pair: who this node is.
///
/// The secret is wiped from memory when dropped, never shown, and leaves only as signatures.
pub struct Identity {
    key: NodeKey,
    id: NodeId,
}

impl Identity {
    /// How the name begins under which an identity file is written before it gets its own.
    pub(crate) const PASSING: &str = ".identity";

    /// Draws a new key pair from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut secret = Zeroizing::new([0; 32]);
        rand::rngs::SysRng
            .try_fill_bytes(secret.as_mut())
            .map_err(|error| IdentityError::Randomness(error.to_string()))?;
        Ok(Self::from_secret(&secret))
    }

    /// The key pair of a secret key.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let key = NodeKey::from_seed(secret);
        let id = key.node_id();
        Self { key, id }
    }

    /// Draws a new identity and writes it to a file of mode 0600 that must not exist yet.
    ///
    /// The file appears complete and synced, or not at all.
    ///
    /// # Errors
    /// A file of that name exists, or the directory cannot be written.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let identity = Self::generate()?;
        identity.write(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
            _ => IdentityError::File { path: path.into(), source: error },
        })?;
        Ok(identity)
    }

    /// Reads an identity file.
    ///
    /// # Errors
    /// No such file, one that others may read, or one that holds something else.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing(path.into()),
            _ => IdentityError::File { path: path.into(), source },
        };
        let file = File::open(path).map_err(failed)?;
        check_permissions(&file, path)?;
        // Read at once into room for the largest file: a growing buffer would leave copies.
        let mut text = Zeroizing::new(vec![0; MAX_FILE_BYTES as usize + 1]);
        let mut filled = 0;
        while filled < text.len() {
            match (&file).read(&mut text[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        parse_secret(&text[..filled])
            .map(|secret| Self::from_secret(&secret))
            .ok_or_else(|| IdentityError::Malformed(path.into()))
    }

    /// Reads the identity file, or creates it if there is none.
    ///
    /// # Errors
    /// As [`Identity::open`] and [`Identity::create`].
    pub fn open_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::open(path) {
            // Another process may create it in between: then its file is the identity.
            Err(IdentityError::Missing(_)) => match Self::create(path) {
                Err(IdentityError::Exists(_)) => Self::open(path),
                created => created,
            },
            opened => opened,
        }
    }

    /// The public key, which is the node's id.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.id
    }

    /// Signs a message (Ed25519, RFC 8032).
    ///
    /// The same key signs handshakes; a message therefore begins with words of its own, as all
    /// that the specification signs does (`selfsame v1 ...`).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// A secret for one purpose and one thing: the same whenever this identity is used, and of no
    /// help to find the key.
    pub(super) fn secret_for(&self, purpose: &str, of: &[u8]) -> [u8; 32] {
        let secret = Zeroizing::new(self.key.to_seed());
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(secret.as_ref()).update(of);
        hasher.finalize().into()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut digits = Zeroizing::new([0; 64]);
        let secret = Zeroizing::new(self.key.to_seed());
        hex::encode_to_slice(secret.as_ref(), digits.as_mut()).map_err(io::Error::other)?;
        let mut file = tempfile::Builder::new().prefix(Self::PASSING).tempfile_in(directory)?;
        writeln!(file, "# The secret key of a selfsame node. Never share it; one node only.")?;
        writeln!(file, "# Node id: {}", self.id)?;
        file.write_all(digits.as_ref())?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|refused| refused.error)?;
        // The name is durable only when its directory is.
        if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads a node id from its text form, 64 hex digits.
///
/// # Errors
/// Other text, or a key that is not canonical or of small order.
pub fn parse_node_id(text: &str) -> Result<NodeId, IdentityError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| IdentityError::NotHex(text.chars().take(80).collect()))?;
    check_node_id(bytes)
}

/// Accepts bytes as a node id if they are the canonical form of a key of large order.
///
/// # Errors
/// Any other bytes.
pub fn check_node_id(bytes: [u8; 32]) -> Result<NodeId, IdentityError> {
    let id = NodeId(bytes);
    merkle::check_node_id(&id).map(|()| id).map_err(|_| IdentityError::UnsoundKey(id))
}

/// Whether the node signed the message; strict, so that no signature has a second form.
#[must_use]
pub fn verify_signature(id: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
    Signature::from_bytes(*signature).verify(id, message).is_ok()
}

/// The one line that is neither blank nor a comment.
fn parse_secret(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return None;
    }
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(lines.next()?, secret.as_mut()).ok()?;
    lines.next().is_none().then_some(secret)
}

#[cfg(unix)]
fn check_permissions(file: &File, path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;

    let metadata =
        file.metadata().map_err(|source| IdentityError::File { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(IdentityError::Malformed(path.into()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(IdentityError::Permissions { path: path.into(), mode })
    }
}

#[cfg(not(unix))]
fn check_permissions(_file: &File, _path: &Path) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn unsound_keys_are_refused() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let mut non_canonical = [0xff; 32]; // y = p + 1, the identity point once more
        non_canonical[0] = 0xee;
        non_canonical[31] = 0x7f;
        let mut not_on_curve = [0; 32];
        not_on_curve[0] = 2;
        let mut minus_zero = identity_point; // x = 0 with its sign bit set
        minus_zero[31] = 0x80;
        for bytes in [[0; 32], identity_point, non_canonical, not_on_curve, minus_zero] {
            assert!(check_node_id(bytes).is_err(), "{}", hex::encode(bytes));
        }
        for text in ["", "ab", &"g".repeat(64), &"1".repeat(63), &"1".repeat(65)] {
            assert!(matches!(parse_node_id(text), Err(IdentityError::NotHex(_))), "{text}");
        }
    }

    #[test]
    fn signatures_are_verified_strictly() {
        let identity = Identity::from_secret(&[7; 32]);
        let mut signature = identity.sign(b"selfsame v1 test");
        assert!(verify_signature(&identity.node_id(), b"selfsame v1 test", &signature));
        assert!(!verify_signature(&identity.node_id(), b"selfsame v1 tess", &signature));
        signature[40] ^= 1;
        assert!(!verify_signature(&identity.node_id(), b"selfsame v1 test", &signature));
    }

    #[test]
    fn a_file_is_created_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        assert!(matches!(Identity::open(&path), Err(IdentityError::Missing(_))));
        let created = Identity::open_or_create(&path).unwrap();
        assert_eq!(Identity::open_or_create(&path).unwrap().node_id(), created.node_id());
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(Identity::create(&path), Err(IdentityError::Exists(_))));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[cfg(unix)]
    #[test]
    fn looser_permissions_are_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        Identity::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660, 0o610, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let refused = Identity::open(&path).unwrap_err();
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        assert!(Identity::open(&path).is_ok());
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let digits = "ab".repeat(32);
        let bad = [
            String::new(),
            "# only a comment\n".into(),
            format!("{digits}\n{digits}\n"),
            format!("{digits}0\n"),
            digits.replace('a', "x"),
            format!("{}{digits}\n", "# long\n".repeat(1000)),
        ];
        for text in bad {
            Identity::create(&path).unwrap();
            std::fs::write(&path, &text).unwrap();
            assert!(matches!(Identity::open(&path), Err(IdentityError::Malformed(_))), "{text}");
            std::fs::remove_file(&path).unwrap();
        }
        Identity::create(&path).unwrap();
        std::fs::write(&path, format!("\r\n# note\r\n  {}\r\n\r\n", digits.to_uppercase()))
            .unwrap();
        assert_eq!(
            Identity::open(&path).unwrap().node_id(),
            Identity::from_secret(&[0xab; 32]).node_id()
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        let identity = Identity::from_secret(&[0xab; 32]);
        assert!(!format!("{identity:?}").contains("abab"));
    }
}
