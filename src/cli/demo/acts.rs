//! The story: five acts, each with what is interesting about it.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::block_in_place;

use super::DemoError;
use super::damage;
use super::data::Data;
use super::episode::Episode;
use super::machine::Machine;
use super::verdict;
use super::voice::{Voice, count, counted, size};
use crate::replica::{Collection, Recovered};
use crate::session::SyncConfig;
use crate::store::EmbeddedStore;
use crate::types::Key;

/// The nodes, by their place in [`Story::machines`].
const NAMES: [&str; 3] = ["oslo", "lima", "nara"];
const OSLO: usize = 0;
const LIMA: usize = 1;
const NARA: usize = 2;
/// Bytes of entries imported in one commit.
const BATCH_BYTES: usize = 4 << 20;

/// Three nodes, their data, and what has happened so far.
pub(super) struct Story {
    pub(super) voice: Voice,
    pub(super) machines: [Machine; 3],
    pub(super) data: Data,
    pub(super) episodes: Vec<Episode>,
}

impl Story {
    /// Makes the nodes and starts them.
    pub(super) fn new(folder: &Path, data: Data, voice: Voice) -> Result<Self, DemoError> {
        let [oslo, lima, nara] = NAMES.map(|name| Machine::init(name, folder));
        let mut machines = [oslo?, lima?, nara?];
        let ids = machines.each_ref().map(|machine| machine.id);
        for machine in &mut machines {
            machine.admit(ids.into_iter().filter(|id| *id != machine.id).collect())?;
            machine.start()?;
        }
        Ok(Self { voice, machines, data, episodes: Vec::new() })
    }

    /// Tells it all; whether everything is equal and all that was promised was seen.
    pub(super) async fn tell(&mut self) -> Result<bool, DemoError> {
        self.voice.say(
            "Three nodes run in this process: oslo, lima and nara. Each has its own key, its own \
             store on disk and its own UDP port; they meet over QUIC on loopback and share nothing \
             else. In each session the planner chooses what to do (strategy auto).",
        )?;
        self.one_data_set_imported_twice().await?;
        self.a_newcomer().await?;
        self.steady_state().await?;
        self.a_node_away_and_a_page_lost().await?;
        self.a_long_partition_and_a_lost_context().await?;
        self.everybody_meets().await?;
        let held = verdict::tell(self)?;
        for machine in &mut self.machines {
            machine.stop().await?;
        }
        Ok(held)
    }

    async fn one_data_set_imported_twice(&mut self) -> Result<(), DemoError> {
        self.voice.title("1  The same data, imported twice")?;
        let (mut from, mut bytes, entries) = (0, 0, self.data.len());
        let working = self.voice.working("importing".into());
        while from < entries {
            let batch = self.data.batch(from, BATCH_BYTES)?;
            if batch.is_empty() {
                break;
            }
            from += batch.len() as u64;
            bytes += batch.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
            self.machines[OSLO].put(batch.clone())?;
            self.machines[LIMA].put(batch)?;
            working.at(format!("{} of {} entries", count(from), count(entries)));
        }
        drop(working);
        self.voice.say(&format!(
            "oslo and lima each import the same {} ({}) on their own, before they have ever met. \
             When they do, they tell each other keys and hashes, and find that no value has to \
             travel (the smallest, up to 256 bytes, ride along with their hashes).",
            counted(entries, "entry", "entries"),
            size(bytes),
        ))?;
        self.meet(OSLO, LIMA).await
    }

    async fn a_newcomer(&mut self) -> Result<(), DemoError> {
        self.voice.title("2  A newcomer")?;
        self.voice.say(
            "nara joins with an empty store and asks oslo. There is nothing to be clever about: \
             everything travels once, compressed.",
        )?;
        self.meet(NARA, OSLO).await
    }

    async fn steady_state(&mut self) -> Result<(), DemoError> {
        self.voice.title("3  Every day: announcement alone")?;
        let (changed, fresh, deleted) = self.drift(OSLO, 0.003, 0.001, 0.0005)?;
        self.voice.say(&format!(
            "A day at oslo: {changed} entries changed, {fresh} new, {deleted} deleted. Each node \
             knows which writes the other has seen, so oslo reads what is news from an index and \
             announces it: nobody searches. What changed travels as a difference against the \
             version that the other has.",
        ))?;
        self.meet(OSLO, LIMA).await?;
        self.meet(OSLO, NARA).await?;
        self.voice.say("lima and nara have never met; there is nothing left for them to say.")?;
        self.meet(LIMA, NARA).await
    }

    async fn a_node_away_and_a_page_lost(&mut self) -> Result<(), DemoError> {
        self.voice.title("4  A node is away, a disk loses a page: sketch exchange")?;
        self.machines[NARA].stop().await?;
        let both = self.data.pick(0.001, 2);
        let (changed, fresh, deleted) = self.drift(OSLO, 0.02, 0.005, 0.005)?;
        self.drift(LIMA, 0.01, 0.005, 0.0)?;
        self.edit(OSLO, &both)?;
        self.edit(LIMA, &both)?;
        self.voice.say(&format!(
            "nara is shut down. Meanwhile at oslo: {changed} entries changed, {fresh} new, {deleted} \
             deleted; at lima others are changed and added, and {} are changed at both: conflicts, \
             of which no side is lost.",
            both.len(),
        ))?;
        self.meet(OSLO, LIMA).await?;
        self.tell_of_a_conflict(&both)?;
        self.machines[LIMA].stop().await?;
        let lost = damage::lose_a_page(&self.machines[LIMA].store())?;
        self.voice.space()?;
        self.voice.say(&format!(
            "lima is shut down too, and its disk loses a page of the tree with {} and a row of its \
             context: they become zeros on disk.",
            counted(lost, "entry", "entries"),
        ))?;
        self.recover(LIMA)?;
        self.voice.say(
            "It no longer knows what it has seen beyond what it still holds; oslo tells it.",
        )?;
        self.meet(LIMA, OSLO).await?;
        let offline = self.return_of_nara()?;
        self.voice.space()?;
        self.voice.say(&format!(
            "nara comes back, writes {offline} while nobody listens, and meets lima. lima still \
             knows which writes are dead, but its log of removals went with the damage, so it \
             cannot announce those {deleted} deletions. The roots differ, few leaves do: a sketch \
             names them.",
        ))?;
        self.meet(NARA, LIMA).await
    }

    async fn a_long_partition_and_a_lost_context(&mut self) -> Result<(), DemoError> {
        self.voice.title("5  A long partition, a lost context: bloom exchange")?;
        self.machines[NARA].stop().await?;
        let (changed, fresh, deleted) = self.drift(OSLO, 0.1, 0.03, 0.2)?;
        self.voice.say(&format!(
            "nara is away for long. A season ends at oslo: {} deleted, {} changed, {} new.",
            count(deleted as u64),
            count(changed as u64),
            count(fresh as u64),
        ))?;
        self.meet(LIMA, OSLO).await?;
        if self.episodes.last().and_then(Episode::braked).is_some() {
            self.voice.say(
                "So many deletions at once may be a mistake, and a deletion is the one thing that \
                 no peer can give back. lima stopped before the first one; we mean it, and repeat \
                 as with --allow-removals.",
            )?;
            self.meet_with(LIMA, OSLO, true).await?;
        }
        self.machines[OSLO].stop().await?;
        damage::lose_the_context(&self.machines[OSLO].store())?;
        self.voice.space()?;
        self.voice.say("oslo is shut down, and a row of its context becomes zeros on disk.")?;
        self.recover(OSLO)?;
        self.meet(OSLO, LIMA).await?;
        let offline = self.return_of_nara()?;
        self.voice.space()?;
        self.voice.say(&format!(
            "nara comes back, writes {offline}, and meets oslo, whose log of removals is gone. \
             oslo announces what is new; the {} deletions it cannot, and they are more than a tenth \
             of all entries: filters over what each side holds now cost less than a walk.",
            count(deleted as u64),
        ))?;
        self.meet_with(NARA, OSLO, true).await
    }

    async fn everybody_meets(&mut self) -> Result<(), DemoError> {
        self.voice.title("6  Are they the same?")?;
        self.meet_with(LIMA, NARA, true).await?;
        self.meet(LIMA, OSLO).await
    }

    /// Changes, adds and deletes shares of the entries at a node.
    fn drift(
        &mut self,
        at: usize,
        changed: f64,
        fresh: f64,
        deleted: f64,
    ) -> Result<(usize, usize, usize), DemoError> {
        let least = |share: f64| usize::from(share > 0.0);
        let changed = self.data.pick(changed, least(changed));
        self.edit(at, &changed)?;
        let deleted = self.data.pick(deleted, 2 * least(deleted));
        self.machines[at].delete(&deleted)?;
        self.data.deleted(&deleted);
        let fresh = self.data.fresh(fresh)?;
        let figures = (changed.len(), fresh.len(), deleted.len());
        self.machines[at].put(fresh)?;
        Ok(figures)
    }

    fn edit(&mut self, at: usize, keys: &[Key]) -> Result<(), DemoError> {
        let data = &mut self.data;
        self.machines[at].edit(keys, |value| data.edited(value))
    }

    fn return_of_nara(&mut self) -> Result<String, DemoError> {
        self.machines[NARA].start()?;
        let fresh = self.data.fresh(0.0005)?;
        let written = counted(fresh.len() as u64, "entry", "entries");
        self.machines[NARA].put(fresh)?;
        Ok(written)
    }

    /// Opens a damaged node: it must notice, and is recovered.
    fn recover(&mut self, at: usize) -> Result<Recovered, DemoError> {
        let name = NAMES[at];
        self.machines[at].start()?;
        let collection = self.machines[at].collection()?;
        let Some(damage) = collection.damage() else {
            return Err(DemoError::Unnoticed(name));
        };
        let recovered = block_in_place(|| collection.recover())?;
        self.voice.say(&format!(
            "Opened again, it notices: {damage}. `selfsame recover` keeps {} and gives up {}.",
            counted(recovered.entries, "entry", "entries"),
            count(recovered.lost),
        ))?;
        Ok(recovered)
    }

    fn tell_of_a_conflict(&self, keys: &[Key]) -> Result<(), DemoError> {
        let Some(key) = keys.first() else { return Ok(()) };
        let Some(entry) = self.machines[OSLO].collection()?.get(key)? else { return Ok(()) };
        let versions: Vec<String> = entry
            .record
            .versions()
            .iter()
            .map(|sibling| format!("{}..", &sibling.value_hash.to_string()[..8]))
            .collect();
        self.voice.fact("conflict", &format!(
            "for example {}: versions {}, both kept until somebody who has seen both writes again",
            String::from_utf8_lossy(key.as_bytes()),
            versions.join(" and "),
        ))
    }

    async fn meet(&mut self, from: usize, to: usize) -> Result<(), DemoError> {
        self.meet_with(from, to, false).await
    }

    /// One node dials another and synchronises.
    async fn meet_with(
        &mut self,
        from: usize,
        to: usize,
        allow_removals: bool,
    ) -> Result<(), DemoError> {
        let names = [NAMES[from], NAMES[to]];
        let working = self.voice.working(format!("{} > {}", names[0], names[1]));
        let collections = [self.machines[from].collection()?, self.machines[to].collection()?];
        let everything = collections.iter().map(plain_bytes).collect::<Result<Vec<_>, _>>()?;
        let node = Arc::clone(self.machines[from].node()?);
        let config = SyncConfig { allow_removals, ..node.config.clone() };
        let address = self.machines[to].address()?;
        let link = node.connect(self.machines[from].endpoint()?, &address, node.patience).await?;
        let (_never, stop) = watch::channel(false);
        let done = node.synchronise(&link, &collections[0], &config, stop, &working).await?;
        let mut served = Vec::new();
        for _ in &done.reports {
            served.push(self.machines[to].served().await?);
        }
        let traffic = link.connection().traffic();
        drop(working);
        let number = self.episodes.len() + 1;
        let episode = Episode::new(number, names, [done.reports, served]);
        let mut episode = episode.ok_or(DemoError::NoReport(names[0]))?;
        episode.datagrams = traffic.bytes_sent + traffic.bytes_received;
        episode.everything = everything.into_iter().max().unwrap_or_default();
        episode.tell(&self.voice)?;
        self.voice.space()?;
        let as_it_should = episode.is_complete() || episode.braked().is_some();
        let outcome = format!("{:?}", episode.outcome);
        self.episodes.push(episode);
        if as_it_should { Ok(()) } else { Err(DemoError::Outcome { names, outcome }) }
    }
}

/// Bytes of all values, equal versions of a key counted once.
pub(super) fn plain_bytes(collection: &Arc<Collection<EmbeddedStore>>) -> Result<u64, DemoError> {
    block_in_place(|| {
        let snapshot = collection.snapshot()?;
        let (mut bytes, mut last) = (0, None);
        loop {
            let entries = snapshot.entries_after(last.as_ref(), 4_096, |_| true)?;
            let Some(entry) = entries.last() else { return Ok(bytes) };
            last = Some(collection.key_hash(&entry.key));
            let versions = entries.iter().flat_map(|entry| entry.record.versions());
            bytes += versions.map(|sibling| sibling.size).sum::<u64>();
        }
    })
}
