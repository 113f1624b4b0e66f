//! A full backup and the parts that follow it, read as one collection.

use std::io::{Read, Write};

use super::read::check_dots;
use super::{BackupError, BackupHead, BackupReader, BackupSummary, BackupWriter, Event};
use crate::dots::Causality;
use crate::merkle::{Leaf, StreamedTree};
use crate::types::CollectionSpec;

/// Most backups of a chain: each is open while it is read, with a block and a value in memory.
pub const MAX_BACKUPS: usize = 256;

/// One backup of a chain, and what of it comes next.
struct Link<R> {
    reader: BackupReader<R>,
    /// Its next key.
    ahead: Option<Event>,
}

impl<R: Read> Link<R> {
    /// Goes on to its next key; values between are read and passed over.
    fn advance(&mut self) -> Result<(), BackupError> {
        loop {
            self.ahead = match self.reader.next_event()? {
                Some(Event::Value { .. }) => continue,
                other => other,
            };
            return Ok(());
        }
    }
}

/// The collection at the moment of the last of these backups. Read to its end, everything was
/// checked: links, blocks, values, dots, context hash and root.
pub struct Chain<R> {
    links: Vec<Link<R>>,
    /// Where the values come from that follow.
    open: Option<usize>,
    tree: StreamedTree,
    missing: u64,
    ended: bool,
}

impl<R: Read> Chain<R> {
    /// The backups in their order: a full one, then parts, each going on from what the one before
    /// it leaves.
    ///
    /// # Errors
    /// They are no chain, or the first keys of one cannot be read.
    pub fn of(readers: Vec<BackupReader<R>>) -> Result<Self, BackupError> {
        let found = readers.len();
        if found == 0 || found > MAX_BACKUPS {
            return Err(BackupError::Backups { found });
        }
        check_links(&readers)?;
        let mut links = Vec::with_capacity(found);
        for (at, mut reader) in readers.into_iter().enumerate() {
            if at + 1 < found {
                reader.forget_context();
            }
            let mut link = Link { reader, ahead: None };
            link.advance()?;
            links.push(link);
        }
        let algorithm = links[0].reader.head().envelope.algorithm();
        let tree = StreamedTree::new(algorithm);
        Ok(Self { links, open: None, tree, missing: 0, ended: false })
    }

    fn last(&self) -> &BackupReader<R> {
        &self.links[self.links.len() - 1].reader
    }

    /// What the last one is of.
    #[must_use]
    pub fn head(&self) -> &BackupHead {
        self.last().head()
    }

    /// Context and exceptions at that moment.
    #[must_use]
    pub fn causality(&self) -> &Causality {
        self.last().causality()
    }

    /// What each holds, once the chain was read to its end.
    #[must_use]
    pub fn summaries(&self) -> Vec<BackupSummary> {
        self.links.iter().filter_map(|link| link.reader.summary()).collect()
    }

    /// Values that came without their bytes so far.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.missing
    }

    /// The next key with what is held under it, in the order of key hashes, or the next value of
    /// the last key: never one that is gone. None at the end, and then all of it holds.
    ///
    /// # Errors
    /// A backup is cut short, damaged or over a limit, or together they are not what they state.
    pub fn next_event(&mut self) -> Result<Option<Event>, BackupError> {
        if let Some(open) = self.open {
            match self.links[open].reader.next_event()? {
                Some(Event::Value { hash, value }) => {
                    self.missing += u64::from(value.is_none());
                    return Ok(Some(Event::Value { hash, value }));
                }
                next => self.links[open].ahead = next,
            }
            self.open = None;
        }
        loop {
            let keys = self.links.iter().filter_map(|link| link.ahead.as_ref()?.key());
            let Some(least) = keys.min().copied() else { break };
            let mut latest = None;
            for at in 0..self.links.len() {
                if self.links[at].ahead.as_ref().and_then(Event::key) != Some(&least) {
                    continue;
                }
                // what an earlier backup says of a key is over
                if let Some(over) = latest.replace(at) {
                    self.links[over].advance()?;
                }
            }
            let Some(latest) = latest else { break };
            match self.links[latest].ahead.take() {
                Some(Event::Held { key_hash, key, record }) => {
                    self.open = Some(latest);
                    check_dots(&record, self.causality())?;
                    let digest = record.digest(self.head().envelope.algorithm());
                    let totals = record.totals();
                    let leaf = Leaf { key: key_hash, record: digest, totals };
                    if !self.tree.push(&leaf) {
                        return Err(BackupError::Malformed("keys are not in their order"));
                    }
                    return Ok(Some(Event::Held { key_hash, key, record }));
                }
                _ => self.links[latest].advance()?,
            }
        }
        self.check_root()?;
        Ok(None)
    }

    fn check_root(&mut self) -> Result<(), BackupError> {
        let envelope = &self.head().envelope;
        let (hash, totals) = (envelope.tree_hash(), envelope.totals());
        if self.tree.tree_hash() != hash || self.tree.totals() != totals {
            return Err(BackupError::Root);
        }
        self.ended = true;
        Ok(())
    }

    /// Whether it was read to its end.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.ended
    }

    /// Reads what is left to the end; `read` is called for each event.
    ///
    /// # Errors
    /// Those of [`next_event`](Self::next_event).
    pub fn verify(&mut self, mut read: impl FnMut(&Event)) -> Result<(), BackupError> {
        while let Some(event) = self.next_event()? {
            read(&event);
        }
        Ok(())
    }

    /// Writes the collection as one full backup, uncompressed, as it is read; `read` is called for
    /// each event.
    ///
    /// # Errors
    /// Those of [`next_event`](Self::next_event), and of the output.
    pub fn merge<W: Write>(
        &mut self,
        output: W,
        mut read: impl FnMut(&Event),
    ) -> Result<(W, BackupSummary), BackupError> {
        let head = BackupHead { base: None, ..self.head().clone() };
        let mut writer = BackupWriter::uncompressed(output, &head, self.causality())?;
        while let Some(event) = self.next_event()? {
            read(&event);
            match event {
                Event::Held { key, record, .. } => writer.held(&key, &record)?,
                Event::Value { value, .. } => writer.value(value.as_deref())?,
                Event::Gone(key) => writer.gone(&key)?,
            }
        }
        writer.finish()
    }
}

fn check_links<R: Read>(readers: &[BackupReader<R>]) -> Result<(), BackupError> {
    let mut before: Option<&BackupHead> = None;
    for (at, reader) in readers.iter().enumerate() {
        let (number, head) = (at + 1, reader.head());
        match (before, &head.base) {
            (None, None) => {}
            (None, Some(_)) => return Err(BackupError::NoFull),
            (Some(before), _) if before.spec() != head.spec() => {
                let (found, expected) = (described(head.spec()), described(before.spec()));
                return Err(BackupError::OtherCollection { number, found, expected });
            }
            (Some(_), None) => return Err(BackupError::SecondFull { number }),
            (Some(before), Some(base)) if before.state() != base.state => {
                let (base, left) = (base.state, before.state());
                return Err(BackupError::Hole { number, base, left });
            }
            (Some(_), Some(_)) => {}
        }
        before = Some(head);
    }
    Ok(())
}

fn described(spec: &CollectionSpec) -> String {
    format!("{} ({}, {})", spec.name, spec.algorithm, spec.policy)
}
