//! Open invitations, as the inviter keeps them: what is needed to recognise one, not to use it.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use super::{Invitation, PairingError};
use crate::node::peers::{
    Checked, Grants, GrantsText, PeerFiles, PeerName, PeersError, Word, invalid, read, remove,
    replace,
};

/// Most invitations that may be open at once.
const MAX_OPEN: usize = 64;

const HEADER: &str = "\
# Open invitations of this node, written by `selfsame peer invite`. Each is for one use. To take
# one back, delete its [[invite]] block; to take back all, delete this file.

";

/// An invitation that has not been used yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenInvite {
    /// The public half of the key by which the joiner is known.
    key: [u8; 32],
    /// The key of the answer.
    answer: Zeroizing<[u8; 32]>,
    /// When it expires, in seconds since 1970.
    pub expires_unix_s: u64,
    /// How the joiner will be called here.
    pub name: Option<PeerName>,
    /// What the joiner will be granted here.
    pub grants: Grants,
}

impl OpenInvite {
    /// What is kept of an invitation.
    #[must_use]
    pub fn new(invitation: &Invitation, name: Option<PeerName>, grants: Grants) -> Self {
        let secret = invitation.secret();
        Self {
            key: secret.key().node_id().0,
            answer: secret.answer_key(),
            expires_unix_s: invitation.expires_unix_s(),
            name,
            grants,
        }
    }

    pub(super) fn answer_key(&self) -> &[u8; 32] {
        &self.answer
    }
}

/// The open invitations of a data folder: `invites.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Invites<'a>(&'a PeerFiles);

impl<'a> Invites<'a> {
    /// Those beside a peer book.
    #[must_use]
    pub const fn new(files: &'a PeerFiles) -> Self {
        Self(files)
    }

    /// Those that have not expired.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(self, now_unix_s: u64) -> Result<Vec<OpenInvite>, PeersError> {
        let path = self.0.invites_path();
        let Some(text) = read(&path)? else { return Ok(Vec::new()) };
        let mut invites = parse(&text, &path)?;
        invites.retain(|one| one.expires_unix_s > now_unix_s);
        Ok(invites)
    }

    /// Adds one, and forgets those that have expired.
    ///
    /// # Errors
    /// The file cannot be read or written, or too many are open.
    pub fn add(self, invite: OpenInvite, now_unix_s: u64) -> Result<(), PairingError> {
        let _lock = self.0.lock()?;
        let mut invites = self.open(now_unix_s)?;
        if invites.len() >= MAX_OPEN {
            return Err(PairingError::TooMany(invites.len()));
        }
        invites.push(invite);
        Ok(self.write(&invites)?)
    }

    /// Takes out the invitation that is known by this key, and forgets those that have expired.
    /// When it is answered, it is gone from the disk: nobody gets it twice.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn burn(self, key: &[u8; 32], now_unix_s: u64) -> Result<Option<OpenInvite>, PeersError> {
        let _lock = self.0.lock()?;
        let mut invites = self.open(now_unix_s)?;
        // all are compared, and each in the same time, whether one fits or not
        let fits: Vec<bool> = invites.iter().map(|one| one.key.ct_eq(key).into()).collect();
        let found = fits.iter().position(|fits| *fits).map(|at| invites.remove(at));
        if invites.is_empty() {
            remove(&self.0.invites_path())?;
        } else if found.is_some() {
            self.write(&invites)?;
        }
        Ok(found)
    }

    fn write(self, invites: &[OpenInvite]) -> Result<(), PeersError> {
        let mut tables = ArrayOfTables::new();
        for (at, one) in invites.iter().enumerate() {
            let mut table = Table::new();
            table.decor_mut().set_prefix(if at == 0 { HEADER } else { "\n" });
            table.insert("key", value(hex::encode(one.key)));
            table.insert("answer", value(hex::encode(one.answer.as_ref())));
            let expires = i64::try_from(one.expires_unix_s).unwrap_or(i64::MAX);
            table.insert("expires_unix_s", value(expires));
            if let Some(name) = &one.name {
                table.insert("name", value(name.as_str()));
            }
            let mut grants = Table::new();
            for rule in one.grants.rules() {
                let name = rule.collection.as_ref().map_or("*", |name| name.as_str());
                grants.insert(name, value(rule.grant.to_string()));
            }
            table.insert("grants", Item::Table(grants));
            tables.push(table);
        }
        let mut document = DocumentMut::new();
        document.insert("invite", Item::ArrayOfTables(tables));
        replace(&self.0.invites_path(), document.to_string().as_bytes())
    }
}

/// 32 bytes in hex.
struct Bytes32([u8; 32]);

impl Word for Bytes32 {
    const EXPECTED: &str = "64 hex digits in quotes";
    fn read(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        let read = hex::decode_to_slice(text, &mut bytes);
        read.map(|()| Self(bytes)).map_err(|_| Self::EXPECTED.to_owned())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvitesText {
    #[serde(default)]
    invite: Vec<InviteText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteText {
    key: Checked<Bytes32>,
    answer: Checked<Bytes32>,
    #[serde(deserialize_with = "seconds")]
    expires_unix_s: u64,
    name: Option<Checked<PeerName>>,
    grants: Option<GrantsText>,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u64::try_from(number).map_err(|_| serde::de::Error::custom("it is before 1970"))
}

fn parse(text: &str, path: &Path) -> Result<Vec<OpenInvite>, PeersError> {
    let read: InvitesText = toml::from_str(text).map_err(|error| invalid(text, path, &error))?;
    let invite = |one: InviteText| OpenInvite {
        key: one.key.0.0,
        answer: Zeroizing::new(one.answer.0.0),
        expires_unix_s: one.expires_unix_s,
        name: one.name.map(|Checked(name)| name),
        grants: one.grants.map(|GrantsText(grants)| grants).unwrap_or_default(),
    };
    Ok(read.invite.into_iter().map(invite).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::net::Identity;
    use crate::node::pairing::Secret;

    fn invite(seed: u8, expires: u64) -> OpenInvite {
        let inviter = Identity::from_secret(&[1; 32]).node_id();
        let secret = Secret::from_bytes([seed; 16]);
        let invitation = Invitation::new(inviter, Vec::new(), secret, expires).unwrap();
        let grants = ["*=read", "a \"b\"=write"].map(|rule| rule.parse().unwrap());
        OpenInvite::new(&invitation, Some("berlin".parse().unwrap()), grants.into_iter().collect())
    }

    #[test]
    fn each_is_burnt_once_and_what_expired_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        let invites = Invites::new(&files);
        for (seed, expires) in [(1, 100), (2, 200), (3, 300)] {
            invites.add(invite(seed, expires), 50).unwrap();
        }
        let key = |seed| Secret::from_bytes([seed; 16]).key().node_id().0;
        assert_eq!(invites.open(50).unwrap().len(), 3);
        assert_eq!(invites.burn(&key(9), 50).unwrap(), None);
        assert_eq!(invites.burn(&key(2), 50).unwrap(), Some(invite(2, 200)));
        assert_eq!(invites.burn(&key(2), 50).unwrap(), None);
        assert_eq!(invites.burn(&key(1), 100).unwrap(), None, "expired");
        assert_eq!(invites.burn(&key(3), 299).unwrap(), Some(invite(3, 300)));
        assert!(!files.invites_path().exists(), "nothing is left open");
    }

    #[test]
    fn the_file_is_for_the_owner_and_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        Invites::new(&files).add(invite(7, 100), 50).unwrap();
        let text = std::fs::read_to_string(files.invites_path()).unwrap();
        assert!(text.starts_with("# Open invitations"), "{text}");
        assert!(!text.contains(&"07".repeat(16)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(files.invites_path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn not_more_than_so_many_are_open() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        for seed in 0..64 {
            Invites::new(&files).add(invite(seed, 100), 50).unwrap();
        }
        let refused = Invites::new(&files).add(invite(99, 100), 50).unwrap_err();
        assert!(matches!(refused, PairingError::TooMany(64)), "{refused}");
        Invites::new(&files).add(invite(99, 200), 150).unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let wrong = parse("[[invite]]\nkey = \"12\"\n", Path::new("i")).unwrap_err();
        assert_eq!(wrong.to_string(), "i, line 2: 64 hex digits in quotes");
    }
}
