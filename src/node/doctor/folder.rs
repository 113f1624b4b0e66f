//! The data folder: what can be looked at whether the node opens or not.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Facts, Report};
use crate::net::{Identity, IdentityError};
use crate::node::Node;
use crate::node::config::Config;
use crate::node::figures::{counted, size, span};
use crate::node::home::Home;
use crate::node::pairing::Invites;
use crate::node::peers::PeerFiles;
use crate::store::EmbeddedStore;

/// With less free, the store soon takes no writes: its journal alone may grow to this.
const LEAST_FREE_BYTES: u64 = 64 << 20;
/// With less free, or less than this part of what the store holds, there is little time left:
/// tables are written anew as a whole before the old ones go.
const SCARCE_FREE_BYTES: u64 = 512 << 20;
const SCARCE_PART: u64 = 10;
/// Files that the file system must have room for.
const LEAST_FREE_FILES: u64 = 1_000;
/// An invitation that is open for longer was perhaps forgotten.
const LONG_OPEN_MS: u64 = 24 * 3_600_000;
/// Files of a store that are looked at.
const MOST_FILES: usize = 1 << 20;

/// What is known of a data folder. What cannot be read says why.
#[derive(Clone, Debug)]
pub struct FolderFacts {
    /// The folder.
    pub folder: PathBuf,
    /// Whether there is such a folder.
    pub there: bool,
    /// Whether this user may write it and what is in it.
    pub writable: Result<(), String>,
    /// Its identity file.
    pub identity: IdentityFact,
    /// Its settings.
    pub config: Result<Config, String>,
    /// How many peers are in its book.
    pub book: Result<usize, String>,
    /// Its open invitations.
    pub invites: Result<Vec<InviteFact>, String>,
    /// The format of its store, and the one that this version writes; none while it has none.
    pub format: Result<Option<(u32, u32)>, String>,
    /// Bytes that the store takes on disk.
    pub store_bytes: u64,
    /// Files of the store.
    pub store_files: u64,
    /// Free bytes on its file system.
    pub free_bytes: Option<u64>,
    /// Files that can still be made there; none where that has no limit.
    pub free_files: Option<u64>,
}

/// An identity file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityFact {
    /// It can be used, and by nobody else.
    Sound,
    /// There is none.
    Missing,
    /// Others may read it.
    Loose {
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be used.
    Unusable(String),
}

/// An open invitation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InviteFact {
    /// Its id.
    pub id: String,
    /// When it was made, in milliseconds since 1970, if that is known.
    pub made_ms: Option<u64>,
    /// When it expires.
    pub expires_ms: u64,
}

impl FolderFacts {
    /// Looks at a data folder. Reads a few small files and the sizes of those of the store, and
    /// writes nothing.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let files = PeerFiles::new(folder);
        let store = Home::store_of(folder);
        let sizes = WalkDir::new(&store).into_iter().take(MOST_FILES).filter_map(|entry| {
            let about = entry.ok()?.metadata().ok()?;
            about.is_file().then_some(about.len())
        });
        let (store_files, store_bytes) =
            sizes.fold((0, 0_u64), |(files, sum), size| (files + 1, sum.saturating_add(size)));
        let (free_bytes, free_files) = free(folder);
        Self {
            folder: folder.into(),
            there: folder.is_dir(),
            writable: writable(folder, &store),
            identity: identity(folder),
            config: Home::config_of(folder).map_err(|error| error.to_string()),
            book: files.book().map(|book| book.peers.len()).map_err(|error| error.to_string()),
            invites: invites(&files),
            format: EmbeddedStore::format_of(&store).map_err(|error| error.to_string()),
            store_bytes,
            store_files,
            free_bytes,
            free_files,
        }
    }
}

fn identity(folder: &Path) -> IdentityFact {
    match Identity::open(&Home::identity_file(folder)) {
        Ok(_) => IdentityFact::Sound,
        Err(IdentityError::Missing(_)) => IdentityFact::Missing,
        Err(IdentityError::Permissions { mode, .. }) => IdentityFact::Loose { mode },
        Err(error) => IdentityFact::Unusable(error.to_string()),
    }
}

fn invites(files: &PeerFiles) -> Result<Vec<InviteFact>, String> {
    let now_s = Node::<EmbeddedStore>::now_ms() / 1_000;
    let open = Invites::new(files).open(now_s).map_err(|error| error.to_string())?;
    let facts = open.iter().map(|invite| InviteFact {
        id: invite.id().to_string(),
        made_ms: invite.made_unix_s.map(|made| made.saturating_mul(1_000)),
        expires_ms: invite.expires_unix_s.saturating_mul(1_000),
    });
    Ok(facts.collect())
}

#[cfg(unix)]
fn writable(folder: &Path, store: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access};
    for path in [folder, store] {
        let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        access(path, all).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn writable(folder: &Path, _: &Path) -> Result<(), String> {
    std::fs::metadata(folder).map(drop).map_err(|error| format!("{}: {error}", folder.display()))
}

#[cfg(unix)]
fn free(folder: &Path) -> (Option<u64>, Option<u64>) {
    let Ok(about) = rustix::fs::statvfs(folder) else { return (None, None) };
    // some file systems make files as they need them, and say zero of zero
    let files = (about.f_files > 0).then_some(about.f_favail);
    (Some(about.f_bavail.saturating_mul(about.f_frsize)), files)
}

#[cfg(not(unix))]
const fn free(_: &Path) -> (Option<u64>, Option<u64>) {
    (None, None)
}

pub(super) fn examine(report: &mut Report, facts: &Facts) {
    let folder = &facts.folder;
    if !folder.there {
        return;
    }
    check_folder(report, folder);
    check_identity(report, folder);
    check_config(report, facts);
    check_book(report, folder);
    check_format(report, folder);
    check_space(report, folder);
    check_invites(report, facts);
}

fn check_folder(report: &mut Report, folder: &FolderFacts) {
    let mut check = report.check("folder");
    if let Err(why) = &folder.writable {
        check.wrong(
            None,
            format!("this user may not read and write it ({why})"),
            "run it as the user that owns the folder, or give it back with `chown -R`; a file \
             system that is read-only has to be mounted for writing",
        );
    }
    check.well(format!("{} can be read and written", folder.folder.display()));
}

fn check_identity(report: &mut Report, folder: &FolderFacts) {
    let mut check = report.check("identity");
    let path = Home::identity_file(&folder.folder);
    let path = path.display();
    match &folder.identity {
        IdentityFact::Sound => check.well("only its owner may read the key of the node"),
        IdentityFact::Missing => check.wrong(
            None,
            format!("there is no {path}: without its key nobody is this node"),
            "restore the file from a backup; or let `selfsame init` make the folder another node, \
             which keeps its entries, and pair it with its peers again",
        ),
        IdentityFact::Loose { mode } => check.wrong(
            None,
            format!("others may read {path}, the key of the node (mode {mode:03o})"),
            format!(
                "`chmod 600 {path}`; if somebody may have read it, make the node anew: remove the \
                 file, `selfsame init`, and pair again"
            ),
        ),
        IdentityFact::Unusable(why) => {
            check.wrong(None, why, "restore the file from a backup of the folder");
        }
    }
}

fn check_config(report: &mut Report, facts: &Facts) {
    let mut check = report.check("config");
    let config = match &facts.folder.config {
        Ok(config) => config,
        Err(why) => {
            check.wrong(None, why, "correct the line; `selfsame config check` says whether it is");
            return;
        }
    };
    if let Some(node) = &facts.node {
        if !node.restart.is_empty() {
            check.look(
                None,
                format!(
                    "config.toml was changed, and {} hold only once the node is started anew",
                    node.restart.join(", ")
                ),
                "start it anew, as with `systemctl restart selfsame`",
            );
        }
        if node.reload {
            check.look(
                None,
                "config.toml was changed, and the running daemon still goes by the old one",
                "`selfsame config reload`",
            );
        }
    }
    if config.sync().allow_removals {
        check.look(
            None,
            "allow_removals is set in config.toml: no session is stopped by the brake",
            "take it out once the removals that it was meant for are done",
        );
    }
    check.well("config.toml is sound, and what it says is what holds");
}

fn check_book(report: &mut Report, folder: &FolderFacts) {
    let mut check = report.check("book");
    match &folder.book {
        Err(why) => check.wrong(
            None,
            why,
            "correct peers.toml; a running daemon goes by the one before until then",
        ),
        Ok(peers) => check.well(match peers {
            0 => "peers.toml names nobody".to_owned(),
            peers => format!("peers.toml is sound: {}", counted(*peers as u64, "peer", "peers")),
        }),
    }
}

fn check_format(report: &mut Report, folder: &FolderFacts) {
    let mut check = report.check("format");
    match &folder.format {
        Err(why) => check.wrong(
            None,
            why,
            "open it with the version that wrote it or a later one; nothing was touched",
        ),
        Ok(None) => check.well("there is no store yet: the first opening makes one"),
        Ok(Some((found, known))) if found < known => check.well(format!(
            "the store is of format {found}; the next opening brings it to {known}, and no older \
             version can open it from then on"
        )),
        Ok(Some((found, _))) => check.well(format!("the store is of format {found}")),
    }
}

fn check_space(report: &mut Report, folder: &FolderFacts) {
    let mut check = report.check("space");
    let Some(free) = folder.free_bytes else {
        check.well("how much room is left is not known on this system");
        return;
    };
    let fact = format!("{} are free, the store takes {}", size(free), size(folder.store_bytes));
    let make_room = "make room, or move the data folder to a larger disk: `df -h` shows what it \
                     shares the disk with";
    if free < LEAST_FREE_BYTES {
        check.wrong(None, format!("{fact}: it will soon take no writes"), make_room);
    } else if free < SCARCE_FREE_BYTES.min(folder.store_bytes.max(LEAST_FREE_BYTES * 2))
        || free < folder.store_bytes / SCARCE_PART
    {
        check.look(None, format!("{fact}: it writes tables anew before old ones go"), make_room);
    }
    if let Some(files) = folder.free_files.filter(|files| *files < LEAST_FREE_FILES) {
        check.look(
            None,
            format!("the file system has room for {files} more files only"),
            "remove small files there: `df -i` shows how many it has",
        );
    }
    check.well(fact);
}

fn check_invites(report: &mut Report, facts: &Facts) {
    let mut check = report.check("invitations");
    let invites = match &facts.folder.invites {
        Ok(invites) => invites,
        Err(why) => {
            check.wrong(None, why, "remove invites.toml, and invite again");
            return;
        }
    };
    for invite in invites {
        let since = invite.made_ms.map(|made| facts.now_ms.saturating_sub(made));
        let Some(since) = since.filter(|since| *since > LONG_OPEN_MS) else { continue };
        let left = span(invite.expires_ms.saturating_sub(facts.now_ms));
        check.look(
            Some(&invite.id),
            format!("it is open for {}, and for {left} more: whoever has it may pair", span(since)),
            format!("`selfsame peer uninvite {}`, unless somebody is still to use it", invite.id),
        );
    }
    check.well(match invites.len() {
        0 => "none is open".to_owned(),
        open => format!("{} open", counted(open as u64, "is", "are")),
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Verdict, healthy, said};
    use super::*;

    #[test]
    fn little_room_is_said_before_there_is_none() {
        let (_folder, mut facts) = healthy();
        let mut verdict = |free_bytes, store_bytes| {
            (facts.folder.free_bytes, facts.folder.store_bytes) = (Some(free_bytes), store_bytes);
            said(&facts, "space")[0].verdict
        };
        assert_eq!(verdict(1 << 20, 0), Verdict::Wrong);
        assert_eq!(verdict(100 << 20, 0), Verdict::Look);
        assert_eq!(verdict(200 << 20, 0), Verdict::Ok, "a small store needs little");
        assert_eq!(verdict(200 << 20, 10 << 30), Verdict::Look);
        assert_eq!(verdict(5 << 30, 100 << 30), Verdict::Look, "a large one needs more");
        assert_eq!(verdict(20 << 30, 100 << 30), Verdict::Ok);
        facts.folder.free_files = Some(10);
        assert!(said(&facts, "space")[0].fact.contains("10 more files"));
    }

    #[test]
    fn an_invitation_that_was_forgotten_is_named() {
        let (_folder, mut facts) = healthy();
        let made_ms = Some(facts.now_ms - LONG_OPEN_MS - 1);
        let invite =
            InviteFact { id: "ab12".into(), made_ms, expires_ms: facts.now_ms + 3_600_000 };
        let young = InviteFact { id: "cd34".into(), made_ms: Some(facts.now_ms), ..invite.clone() };
        facts.folder.invites = Ok(vec![young.clone()]);
        assert_eq!(said(&facts, "invitations")[0].verdict, Verdict::Ok);
        facts.folder.invites = Ok(vec![young, invite]);
        let found = said(&facts, "invitations");
        assert_eq!((found.len(), found[0].about.as_deref()), (1, Some("ab12")));
        assert!(found[0].what_to_do.as_ref().unwrap().contains("peer uninvite ab12"));
    }

    #[test]
    fn settings_that_do_not_hold_yet_are_named() {
        let (_folder, mut facts) = healthy();
        let node = facts.node.as_mut().unwrap();
        (node.restart, node.reload) = (vec!["listen", "[limits]"], true);
        let found = said(&facts, "config");
        assert!(found[0].fact.contains("listen, [limits]"), "{found:?}");
        assert!(found[1].what_to_do.as_ref().unwrap().contains("config reload"));
    }
}
