//! A light client that asks a node over its control socket, and believes nothing that it cannot
//! check: of this crate it needs the feature `tree`, and else the standard library alone.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use selfsame::hash::Root;
use selfsame::merkle::{
    Answer, Bundle, ChangeBundle, MAX_PROOF_FILE_BYTES, ManyBundle, Prefix, PrefixBundle,
};
use selfsame::types::{Key, NodeId};

/// Head of an answer, at most.
const MAX_HEAD_BYTES: u64 = 16 << 10;
/// Longest value that is taken.
const MAX_VALUE_BYTES: u64 = 16 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a light client holds: where to ask, and the 32 bytes that it trusts.
pub(crate) struct LightClient {
    /// The node's control socket.
    pub(crate) socket: PathBuf,
    /// The collection, whose name is plain text.
    pub(crate) collection: String,
    /// The root of the collection: pinned, or taken from a certificate, or followed.
    pub(crate) root: Root,
}

impl LightClient {
    /// What is held under a key, if anything, with the value of the latest version.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let bundle = Bundle::parse(&self.ask("GET", &of_key("proof", key), &[])?)?;
        let Answer::Present(record) = bundle.verify(&self.root, key)? else { return Ok(None) };
        // the value travels apart: its hash is under the root
        let value = self.ask("GET", &of_key("value", key), &[])?;
        let hash = bundle.envelope().algorithm().value_hash(&value);
        if record.latest().value_hash != hash {
            return Err("the value is not the one whose hash was proved".into());
        }
        Ok(Some(value))
    }

    /// What is held under each of many keys.
    pub(crate) fn get_many(&self, keys: &[Key]) -> Result<Vec<(Key, Answer)>> {
        let mut body = Vec::new();
        for key in keys {
            body.push(0);
            body.extend((key.as_bytes().len() as u16).to_le_bytes());
            body.extend(0_u32.to_le_bytes());
            body.extend(key.as_bytes());
        }
        let file = ManyBundle::parse(&self.ask("POST", "proof/many", &body)?)?;
        let answers = file.verify(&self.root)?;
        // a proof of other keys is no answer
        if !keys.iter().all(|key| answers.iter().any(|(found, _)| found == key)) {
            return Err("the proof leaves keys out".into());
        }
        Ok(answers)
    }

    /// All keys that begin so, and that there is no other: from a proof of the whole collection.
    pub(crate) fn all_beginning(&self, beginning: &str) -> Result<Vec<Key>> {
        let file = PrefixBundle::parse(&self.ask("GET", "proof/prefix?prefix=/0", &[])?)?;
        let entries = file.verify(&self.root)?;
        if *file.prefix() != Prefix::ALL {
            return Err("the proof is of a part of the collection".into());
        }
        let keys = entries.iter().map(|(key, _)| key);
        let keys = keys.filter(|key| key.as_bytes().starts_with(beginning.as_bytes()));
        Ok(keys.cloned().collect())
    }

    /// Follows the node from the root that is held to the one after the last change of a key: only
    /// by a commit that the node has signed, and that changed nothing else. Gives how many keys it
    /// changed.
    pub(crate) fn follow(&mut self, node: &NodeId, key: &Key) -> Result<usize> {
        let file = ChangeBundle::parse(&self.ask("GET", &of_key("proof/change", key), &[])?)?;
        file.verify(node)?;
        file.check_before(&self.root)?;
        let [_, after] = file.roots();
        self.root = after;
        Ok(file.changes().len())
    }

    /// The body of an answer to a request of HTTP/1.1, on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = format!(
            "{method} /v1/collections/{}/{path} HTTP/1.1\r\nhost: selfsame\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            self.collection,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let most = MAX_HEAD_BYTES + MAX_VALUE_BYTES.max(MAX_PROOF_FILE_BYTES as u64);
        let mut answer = Vec::new();
        stream.take(most).read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").ok_or("no HTTP answer")?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer)?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            return Err(
                format!("the node says {status}: {}", String::from_utf8_lossy(&body)).into()
            );
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or("an answer without its length")?.trim().parse()?;
        if body.len() != length {
            return Err("the answer was cut short".into());
        }
        Ok(body)
    }
}

fn of_key(endpoint: &str, key: &Key) -> String {
    format!("{endpoint}?key_hex={}", hex::encode(key.as_bytes()))
}
