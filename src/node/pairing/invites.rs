//! Open invitations, as the inviter keeps them: what is needed to recognise one, not to use it.

use std::fmt;
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
# Open invitations of this node, written by `selfsame peer invite`. Each is for one use. `selfsame
# peer uninvite` takes one back; so does deleting its [[invite]] block.

";

/// Bytes of its key by which an invitation is named: far more than [`MAX_OPEN`] ever need.
const ID_BYTES: usize = 8;
/// Fewest digits by which an invitation can be named.
const MIN_PREFIX: usize = 4;

/// How an open invitation is named: the beginning of the key by which it is recognised, in hex.
/// It is of no use to whoever would like to use the invitation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InviteId([u8; ID_BYTES]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

/// An invitation that has not been used yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenInvite {
    /// The public half of the key by which the joiner is known.
    key: [u8; 32],
    /// The key of the answer.
    answer: Zeroizing<[u8; 32]>,
    /// When it was made, in seconds since 1970, if that was written down.
    pub made_unix_s: Option<u64>,
    /// When it expires, in seconds since 1970.
    pub expires_unix_s: u64,
    /// How the joiner will be called here.
    pub name: Option<PeerName>,
    /// What the joiner will be granted here.
    pub grants: Grants,
}

impl OpenInvite {
    /// What is kept of an invitation that is made now.
    #[must_use]
    pub fn new(
        invitation: &Invitation,
        now_unix_s: u64,
        name: Option<PeerName>,
        grants: Grants,
    ) -> Self {
        let secret = invitation.secret();
        Self {
            key: secret.key().node_id().0,
            answer: secret.answer_key(),
            made_unix_s: Some(now_unix_s),
            expires_unix_s: invitation.expires_unix_s(),
            name,
            grants,
        }
    }

    /// How it is named.
    #[must_use]
    pub fn id(&self) -> InviteId {
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&self.key[..ID_BYTES]);
        InviteId(id)
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
        if invites.is_empty() || found.is_some() {
            self.keep(&invites)?;
        }
        Ok(found)
    }

    /// Takes one back, by the first digits of its id, and forgets those that have expired: from
    /// now on nobody can use it, whatever process runs here.
    ///
    /// # Errors
    /// None or more than one that is open begins so, or the file cannot be read or written.
    pub fn withdraw(self, id: &str, now_unix_s: u64) -> Result<OpenInvite, PairingError> {
        let _lock = self.0.lock()?;
        let mut invites = self.open(now_unix_s)?;
        let digits = id.to_ascii_lowercase();
        let begins = |one: &OpenInvite| one.id().to_string().starts_with(&digits);
        let mut fitting = invites.iter().enumerate().filter(|(_, one)| begins(one));
        let at = match (fitting.next(), fitting.next()) {
            (Some((at, _)), None) if digits.len() >= MIN_PREFIX => at,
            (Some(_), Some(_)) if digits.len() >= MIN_PREFIX => {
                return Err(PairingError::SeveralInvites(shown(id)));
            }
            _ => return Err(PairingError::NoInvite(shown(id))),
        };
        let taken = invites.remove(at);
        self.keep(&invites)?;
        Ok(taken)
    }

    /// These are left.
    fn keep(self, invites: &[OpenInvite]) -> Result<(), PeersError> {
        if invites.is_empty() { remove(&self.0.invites_path()) } else { self.write(invites) }
    }

    fn write(self, invites: &[OpenInvite]) -> Result<(), PeersError> {
        let mut tables = ArrayOfTables::new();
        for (at, one) in invites.iter().enumerate() {
            let mut table = Table::new();
            table.decor_mut().set_prefix(if at == 0 { HEADER } else { "\n" });
            table.insert("key", value(hex::encode(one.key)));
            table.insert("answer", value(hex::encode(one.answer.as_ref())));
            let time = |seconds: u64| value(i64::try_from(seconds).unwrap_or(i64::MAX));
            if let Some(made) = one.made_unix_s {
                table.insert("made_unix_s", time(made));
            }
            table.insert("expires_unix_s", time(one.expires_unix_s));
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

/// Text of a person, as far as a message shows it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
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
    #[serde(default)]
    made_unix_s: Option<Seconds>,
    expires_unix_s: Seconds,
    name: Option<Checked<PeerName>>,
    grants: Option<GrantsText>,
}

/// Seconds since 1970.
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let number = u64::try_from(number);
        number.map(Self).map_err(|_| serde::de::Error::custom("it is before 1970"))
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<OpenInvite>, PeersError> {
    let read: InvitesText = toml::from_str(text).map_err(|error| invalid(text, path, &error))?;
    let invite = |one: InviteText| OpenInvite {
        key: one.key.0.0,
        answer: Zeroizing::new(one.answer.0.0),
        made_unix_s: one.made_unix_s.map(|Seconds(made)| made),
        expires_unix_s: one.expires_unix_s.0,
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
        let name = Some("berlin".parse().unwrap());
        OpenInvite::new(&invitation, 50, name, grants.into_iter().collect())
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
    fn one_is_taken_back_by_its_first_digits_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        let invites = Invites::new(&files);
        for seed in [1, 2, 3] {
            invites.add(invite(seed, 100), 50).unwrap();
        }
        let id = invite(2, 100).id().to_string();
        let wrong = ["", "zz", &id[..3], "2001", &format!("{id}0")];
        for text in wrong {
            let refused = invites.withdraw(text, 50).unwrap_err();
            assert!(matches!(refused, PairingError::NoInvite(_)), "{text}: {refused}");
        }
        assert_eq!(invites.withdraw(&id[..4].to_uppercase(), 50).unwrap(), invite(2, 100));
        invites.withdraw(&id, 50).unwrap_err();
        assert_eq!(invites.burn(&invite(2, 100).key, 50).unwrap(), None);
        assert_eq!(invites.open(50).unwrap(), [invite(1, 100), invite(3, 100)]);
        // one that has expired is open no more
        invites.withdraw(&invite(1, 100).id().to_string(), 100).unwrap_err();
        invites.withdraw(&invite(1, 100).id().to_string(), 50).unwrap();
        invites.withdraw(&invite(3, 100).id().to_string(), 50).unwrap();
        assert!(!files.invites_path().exists(), "nothing is left open");
    }

    #[test]
    fn two_that_begin_alike_are_told_apart_by_more_digits() {
        let folder = tempfile::tempdir().unwrap();
        let files = PeerFiles::new(folder.path());
        let mut alike = [invite(1, 100), invite(2, 100)];
        alike[1].key = alike[0].key;
        alike[1].key[3] ^= 1;
        Invites::new(&files).write(&alike).unwrap();
        let id = alike[0].id().to_string();
        let refused = Invites::new(&files).withdraw(&id[..6], 50).unwrap_err();
        assert!(matches!(refused, PairingError::SeveralInvites(_)), "{refused}");
        assert_eq!(Invites::new(&files).withdraw(&id[..10], 50).unwrap(), alike[0]);
    }

    #[test]
    fn when_it_was_made_may_be_unknown() {
        let text = format!("[[invite]]\nkey = \"{0}\"\nanswer = \"{0}\"\n", "0".repeat(64));
        let read = parse(&format!("{text}expires_unix_s = 7\n"), Path::new("i")).unwrap();
        assert_eq!((read[0].made_unix_s, read[0].expires_unix_s), (None, 7));
        let wrong = parse(&format!("{text}expires_unix_s = -7\n"), Path::new("i")).unwrap_err();
        assert_eq!(wrong.to_string(), "i, line 4: it is before 1970");
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
