//! The certificates that this node signed with its peers, kept in a log (tree.md, kind 2).
//!
//! The last ones are kept whole, and the last one with each peer as long as the collection is; of
//! those that were dropped the log keeps what proofs about the others need. All of this stands
//! beside the entries: no damage here keeps a collection from being used.

use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::codec::{CodecError, Reader, Writing as _};
use crate::hash::{HASH_LEN, LogHash, LogHead};
use crate::merkle::log::{LogHeadFields, LogId, LogKind, LogSegment, first_item};
use crate::merkle::{Certificate, Envelope, InclusionProof, MerkleLog};
use crate::store::{Batch, CommitNumber, Durability, Read, Span, Store, Table};
use crate::types::NodeId;

use super::ReplicaError;
use super::collection::Collection;
use super::log::{OpenLog, identity};
use super::open::for_each_row;
use super::pages::ReadError;
use super::rows::{checked, key_tail, start_row, with_check};

/// Rows that are kept whatever the limit: those of one batch.
const LEAST_KEPT: u64 = 2;
/// Most rows that are read to prove to a peer that a log has grown.
const PROOF_ITEMS: u64 = 65_536;
/// Most rows dropped with one that is kept: after the limit was lowered it takes a few.
const DROPPED_AT_ONCE: u64 = 64;

/// A certificate that was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCertificate {
    /// Its number among all rows of this collection's certificate logs: it never changes. The
    /// first row of each opening is none, so numbers have gaps.
    pub number: u64,
    /// When it was kept, by this node's wall clock.
    pub kept_ms: u64,
    /// What both nodes signed.
    pub certificate: Certificate,
    /// What its root stands for.
    pub envelope: Option<Envelope>,
}

/// A row of the certificate log: whole, but not checked for what its bytes say.
enum Row<'a> {
    Opening { id: u64, previous: LogHead },
    Certificate { number: u64, kept_ms: u64, envelope: &'a [u8], certificate: &'a [u8] },
}

impl<'a> Row<'a> {
    /// The item of the Merkle log.
    fn item(&self) -> &[u8] {
        match self {
            Self::Opening { previous, .. } => &previous.0,
            Self::Certificate { certificate, .. } => certificate,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut row = start_row();
        match self {
            Self::Opening { id, previous } => {
                row.put_u8(0);
                row.put_u64(*id);
                row.put_bytes(&previous.0);
            }
            Self::Certificate { number, kept_ms, envelope, certificate } => {
                row.put_u8(1);
                row.put_u64(*number);
                row.put_u64(*kept_ms);
                row.put_u16(envelope.len() as u16);
                row.put_bytes(envelope);
                row.put_bytes(certificate);
            }
        }
        with_check(row)
    }

    fn parse(row: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        match reader.u8()? {
            0 => {
                let opening =
                    Self::Opening { id: reader.u64()?, previous: LogHead(reader.array()?) };
                reader.finish()?;
                Ok(opening)
            }
            1 => {
                let (number, kept_ms) = (reader.u64()?, reader.u64()?);
                let envelope = reader.u16()?;
                let envelope = reader.bytes(usize::from(envelope))?;
                let certificate = reader.bytes(reader.remaining())?;
                Ok(Self::Certificate { number, kept_ms, envelope, certificate })
            }
            _ => Err(CodecError::Invalid("a row of the certificate log is of an unknown kind")),
        }
    }

    /// The certificate, with its signatures checked.
    fn kept(&self) -> Option<KeptCertificate> {
        let &Self::Certificate { number, kept_ms, envelope, certificate } = self else {
            return None;
        };
        let certificate = Certificate::parse(certificate).ok()?;
        let envelope = Envelope::parse(envelope).ok();
        let envelope = envelope.filter(|envelope| certificate.check_envelope(envelope).is_ok());
        Some(KeptCertificate { number, kept_ms, certificate, envelope })
    }
}

/// Where the logs of all openings are: positions count on from one to the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Places {
    /// The last row.
    position: u64,
    /// The first row that is kept.
    floor: u64,
    /// The log that was written last: its id, 0 for none, and the position of its first row.
    log_id: u64,
    log_first: u64,
    /// The log to which the row at the floor belongs, if its first row was dropped; 0: none.
    cut_id: u64,
    /// What of it was dropped, as size and peaks.
    cut_size: u64,
    cut_peaks: Vec<LogHash>,
}

impl Places {
    const fn log(&self) -> (u64, u64) {
        (self.log_id, self.position.saturating_sub(self.log_first).saturating_add(1))
    }

    fn to_row(&self) -> Vec<u8> {
        let mut row = start_row();
        for number in
            [self.position, self.floor, self.log_id, self.log_first, self.cut_id, self.cut_size]
        {
            row.put_u64(number);
        }
        self.cut_peaks.iter().for_each(|peak| row.put_bytes(&peak.0));
        with_check(row)
    }

    fn parse(row: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(checked(row)?);
        let mut places = Self {
            position: reader.u64()?,
            floor: reader.u64()?,
            log_id: reader.u64()?,
            log_first: reader.u64()?,
            cut_id: reader.u64()?,
            cut_size: reader.u64()?,
            cut_peaks: Vec::new(),
        };
        for _ in 0..reader.remaining() / HASH_LEN {
            places.cut_peaks.push(LogHash(reader.array()?));
        }
        reader.finish()?;
        Ok(places)
    }
}

/// The certificate logs of a collection, once they were asked for.
#[derive(Debug)]
pub(super) struct CertificateLog {
    places: Places,
    /// That of the present opening.
    open: Option<OpenLog>,
    /// The last batch that changed it.
    number: CommitNumber,
}

/// A log of which some rows are kept: its name and its part.
struct Part {
    id: u64,
    /// Position of the row that would be its first item.
    first: u64,
    segment: LogSegment,
}

impl<S: Store> Collection<S> {
    /// Keeps a certificate that this node signed with a peer, synced, and gives its number. The
    /// envelope is that of the certificate's root, if it is known.
    ///
    /// # Errors
    /// The store failed.
    pub fn keep_certificate(
        &self,
        peer: &NodeId,
        certificate: &Certificate,
        envelope: Option<&Envelope>,
        now_ms: u64,
    ) -> Result<u64, ReplicaError> {
        let envelope = envelope.filter(|envelope| certificate.check_envelope(envelope).is_ok());
        let envelope = &*envelope.map(Envelope::to_bytes).unwrap_or_default();
        let certificate = &*certificate.to_bytes();
        let (kept, number) = self.with_certificates(|log| {
            let mut batch = Batch::default();
            let mut places = log.places.clone();
            let mut open = log.open.clone();
            let stored = open.as_ref().map(OpenLog::peaks).unwrap_or_default();
            let log_of_now = match &mut open {
                Some(open) => open,
                none => none.insert(self.open_certificate_log(&mut places, &mut batch)?),
            };
            places.position += 1;
            let number = places.position;
            let row = Row::Certificate { number, kept_ms: now_ms, envelope, certificate };
            log_of_now.append(row.item());
            let bytes = row.to_bytes();
            batch.put(Table::Certificates, &self.id.certificate(number), &bytes);
            batch.put(Table::Certificates, &self.id.last_certificate(peer), &bytes);
            log_of_now.write_peaks(&stored, self.id, &mut batch);
            self.drop_old_certificates(&mut places, &mut batch)?;
            batch.put(Table::Heads, &self.id.certificate_log(), &places.to_row());
            log.number = self.store.apply(batch)?;
            log.places = places;
            log.open = open;
            Ok((number, log.number))
        })?;
        self.store.settle(number, Durability::Always)?;
        Ok(kept)
    }

    fn open_certificate_log(
        &self,
        places: &mut Places,
        batch: &mut Batch,
    ) -> Result<OpenLog, ReadError> {
        let kind = LogKind::Certificates;
        // a head that cannot be read is not one to go on from, and no reason to keep nothing
        let previous =
            match OpenLog::previous_head(&*self.store, self.id, kind, &self.spec, places.log()) {
                Err(ReadError::Damaged(_)) => None,
                other => other?,
            };
        let id = self.node.random_nonzero();
        places.position += 1;
        (places.log_id, places.log_first) = (id, places.position);
        let row = Row::Opening { id, previous: LogHead(first_item(previous)) };
        let mut log = OpenLog::new(kind, &self.spec, id);
        log.append(row.item());
        let at = self.id.certificate(places.position);
        batch.put(Table::Certificates, &at, &row.to_bytes());
        Ok(log)
    }

    /// Drops the oldest rows beyond the limit. What proofs need of them goes to the places.
    fn drop_old_certificates(
        &self,
        places: &mut Places,
        batch: &mut Batch,
    ) -> Result<(), ReadError> {
        let most = self.node.limits.certificate_log_entries.max(LEAST_KEPT);
        for _ in 0..DROPPED_AT_ONCE {
            if places.position - places.floor < most {
                return Ok(());
            }
            let position = places.floor;
            let key = self.id.certificate(position);
            let row = self.store.get(Table::Certificates, &key)?;
            let row = row.as_ref().and_then(|row| Row::parse(row).ok());
            if let Some(Row::Opening { id, .. }) = &row {
                (places.cut_id, places.cut_size, places.cut_peaks) = (*id, 0, Vec::new());
            }
            let cut = match (&row, places.cut_id) {
                (Some(row), 1..) => places.cut(self.spec.algorithm).map(|mut cut| {
                    cut.append(row.item());
                    cut
                }),
                _ => None,
            };
            match cut {
                Some(cut) => {
                    (places.cut_size, places.cut_peaks) = (cut.size(), cut.peaks().to_vec());
                }
                // a damaged row: nothing more can be proved of its log
                None => (places.cut_id, places.cut_size, places.cut_peaks) = (0, 0, Vec::new()),
            }
            batch.remove(Table::Certificates, &key);
            places.floor += 1;
        }
        Ok(())
    }

    /// The certificates kept with numbers below `before`, the latest first, at most `limit` of
    /// them; with one peer only, if it is named. Rows that are damaged are left out.
    ///
    /// # Errors
    /// The store failed.
    pub fn certificates(
        &self,
        peer: Option<&NodeId>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<KeptCertificate>, ReplicaError> {
        let (floor, last) =
            self.with_certificates(|log| Ok((log.places.floor, log.places.position)))?;
        let mut found = Vec::new();
        let mut position = before.map_or(last, |before| before.saturating_sub(1).min(last));
        while position >= floor && position > 0 && found.len() < limit {
            if let Some(kept) = self.certificate(position)?
                && peer.is_none_or(|peer| kept.certificate.message().nodes().contains(peer))
            {
                found.push(kept);
            }
            position -= 1;
        }
        Ok(found)
    }

    /// The certificate with this number; none if it was dropped, is damaged or never was.
    ///
    /// # Errors
    /// The store failed.
    pub fn certificate(&self, number: u64) -> Result<Option<KeptCertificate>, ReplicaError> {
        let row = self.store.get(Table::Certificates, &self.id.certificate(number))?;
        Ok(row.and_then(|row| of_row(&row)))
    }

    /// The last certificate with each peer, by node id. They are kept whatever else is dropped.
    ///
    /// # Errors
    /// The store failed.
    pub fn last_certificates(&self) -> Result<Vec<(NodeId, KeptCertificate)>, ReplicaError> {
        let mut found = Vec::new();
        let visited =
            for_each_row(&*self.store, Table::Certificates, &self.id.last_certificates(), |row| {
                if let (Ok(peer), Some(kept)) = (key_tail(&row.key), of_row(&row.value)) {
                    found.push((NodeId(peer), kept));
                }
                Ok(())
            });
        visited.map_err(|error| error.of(self.name()))?;
        Ok(found)
    }

    /// The last certificate with a peer.
    ///
    /// # Errors
    /// The store failed.
    pub fn last_certificate(&self, peer: &NodeId) -> Result<Option<KeptCertificate>, ReplicaError> {
        let row = self.store.get(Table::Certificates, &self.id.last_certificate(peer))?;
        Ok(row.and_then(|row| of_row(&row)))
    }

    /// Head of this opening's certificate log, all of it synced; none before its first
    /// certificate.
    ///
    /// # Errors
    /// The store failed.
    pub fn certificate_log_head(&self) -> Result<Option<LogHeadFields>, ReplicaError> {
        let (fields, number) = self.with_certificates(|log| {
            Ok((log.open.as_ref().map(OpenLog::head_fields), log.number))
        })?;
        if fields.is_some() {
            self.store.settle(number, Durability::Always)?;
        }
        Ok(fields)
    }

    /// Proof that a certificate is in the log of its opening, with the head of that log as far as
    /// it was written, all of it synced. None if too much of the log was dropped or is damaged.
    /// Reads the rows of that log that are kept.
    ///
    /// # Errors
    /// The store failed.
    pub fn certificate_inclusion(
        &self,
        number: u64,
    ) -> Result<Option<(LogHeadFields, InclusionProof)>, ReplicaError> {
        // under the lock: rows are dropped and the floor is raised together
        let (part, synced) =
            self.with_certificates(|log| Ok((self.part(&log.places, number)?, log.number)))?;
        let Some(Part { id, first, segment }) = part else { return Ok(None) };
        let Some(proof) = segment.inclusion(number - first) else { return Ok(None) };
        let Some(log) = segment.at(segment.size()) else { return Ok(None) };
        let kind = LogKind::Certificates;
        let fields = identity(kind, self.spec.algorithm, &self.spec.name, id).at(&log);
        self.store.settle(synced, Durability::Always)?;
        Ok(Some((fields, proof)))
    }

    /// A log, of whichever opening, up to a size.
    pub(super) fn certificate_segment(
        &self,
        id: LogId,
        size: u64,
    ) -> Result<Option<LogSegment>, ReplicaError> {
        let part = self.with_certificates(|log| {
            let places = &log.places;
            if places.position.saturating_sub(places.floor) > PROOF_ITEMS {
                return Ok(None);
            }
            if id.0 == places.cut_id {
                return self.part(places, places.floor);
            }
            if id.0 == places.log_id {
                return self.part(places, places.position);
            }
            for position in places.floor..=places.position {
                let row = self.store.get(Table::Certificates, &self.id.certificate(position))?;
                let row = row.as_ref().and_then(|row| Row::parse(row).ok());
                if matches!(row, Some(Row::Opening { id: found, .. }) if found == id.0) {
                    return self.part(places, position);
                }
            }
            Ok(None)
        })?;
        let part = part.filter(|part| part.id == id.0);
        Ok(part.and_then(|part| part.segment.when_it_had(size)))
    }

    /// The log of which the row at a position is.
    fn part(&self, places: &Places, position: u64) -> Result<Option<Part>, ReadError> {
        if position < places.floor || position > places.position {
            return Ok(None);
        }
        let algorithm = self.spec.algorithm;
        let mut part = places.cut(algorithm).map(|begun| (places.cut_id, places.floor, begun));
        let mut leaves = Vec::new();
        let mut next = places.floor;
        while next <= places.position {
            let row = self.store.get(Table::Certificates, &self.id.certificate(next))?;
            let row = row.as_ref().and_then(|row| Row::parse(row).ok());
            match &row {
                // the next log, or what cannot be proved any more
                Some(Row::Opening { .. }) | None if next > position => break,
                Some(Row::Opening { id, .. }) => {
                    part = Some((*id, next, MerkleLog::new(algorithm)));
                    leaves.clear();
                }
                Some(Row::Certificate { .. }) => {}
                None => part = None,
            }
            leaves.extend(row.map(|row| algorithm.log_leaf(row.item())));
            next += 1;
        }
        Ok(part.map(|(id, from, begun)| {
            let first = from - begun.size();
            Part { id, first, segment: LogSegment::new(begun, leaves) }
        }))
    }

    fn with_certificates<R>(
        &self,
        work: impl FnOnce(&mut CertificateLog) -> Result<R, ReadError>,
    ) -> Result<R, ReplicaError> {
        let mut kept = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if self.replaced.load(Ordering::Acquire) {
            return Err(ReplicaError::Replaced(self.name().to_string()));
        }
        let log = match &mut *kept {
            Some(log) => log,
            none => {
                let places = self.certificate_places().map_err(|error| error.of(self.name()))?;
                let number = CommitNumber::default();
                none.insert(CertificateLog { places, open: None, number })
            }
        };
        work(log).map_err(|error| error.of(self.name()))
    }

    fn certificate_places(&self) -> Result<Places, ReadError> {
        let row = self.store.get(Table::Heads, &self.id.certificate_log())?;
        let read = row.as_ref().map(|row| Places::parse(row));
        match read {
            Some(Ok(places)) => Ok(places),
            None => Ok(Places { floor: 1, ..Places::default() }),
            // the rows are still there; where their logs end is not known
            Some(Err(_)) => self.places_of_rows(),
        }
    }

    fn places_of_rows(&self) -> Result<Places, ReadError> {
        let prefix = self.id.certificates();
        let mut found: Option<(u64, u64)> = None;
        let mut last: Option<Box<[u8]>> = None;
        loop {
            let start = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys = self
                .store
                .scan_keys(Span::of(Table::Certificates, &prefix).start_at(start), 1_024)?;
            for key in &keys {
                let at = u64::from_be_bytes(key_tail(key).unwrap_or_default());
                found = Some((found.map_or(at, |(first, _)| first), at));
            }
            match keys.into_iter().next_back() {
                Some(key) => last = Some(key),
                None => break,
            }
        }
        let (floor, position) = found.unwrap_or((1, 0));
        Ok(Places { position, floor, ..Places::default() })
    }
}

impl Places {
    /// What was dropped of the log at the floor; none if that is not known.
    fn cut(&self, algorithm: crate::hash::HashAlgorithm) -> Option<MerkleLog> {
        let known = self.cut_id != 0;
        known.then(|| MerkleLog::resume(algorithm, self.cut_size, self.cut_peaks.clone()).ok())?
    }
}

fn of_row(row: &[u8]) -> Option<KeptCertificate> {
    Row::parse(row).ok()?.kept()
}
