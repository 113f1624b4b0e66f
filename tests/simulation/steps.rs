//! What happens next.

use selfsame::dots::Dot;
use selfsame::session::{Mode, Profile, Strategy, SyncConfig};
use selfsame::store::Table;

use super::disk::WriteFault;
use super::node::name;
use super::oracle::Holds;
use super::world::{World, note};

/// Things that are done at one end of a session in one step, at most.
const PUMPED: usize = 12;
/// Draws for each: most of what is drawn cannot be done just then.
const TRIES: usize = 6;

impl World {
    pub fn step(&mut self) -> Holds {
        self.now_ms += match self.dice.below(20) {
            0 => 700,
            _ => self.dice.below(20) as u64,
        };
        let at = self.dice.below(self.nodes.len());
        match self.dice.below(100) {
            0..14 => self.write(at),
            14..24 => self.meet(at),
            24..70 => self.go_on(),
            70..76 => self.deliver_push(at),
            76..82 => self.disturb_session(),
            82..87 => self.end_process(at),
            87..91 => self.break_disk(at),
            91..95 => self.turn_back(at),
            _ => self.change_world(at),
        }?;
        self.flights.retain(|flight| !flight.is_over());
        Ok(())
    }

    fn value(&mut self) -> Vec<u8> {
        let size = match self.dice.below(10) {
            0 => 0,
            1..7 => self.dice.between(1, 8),
            7 => 40,
            _ if self.profile.large_values => self.dice.between(300, 900),
            _ => 12,
        };
        let word = self.dice.below(6) as u8;
        vec![word; size]
    }

    fn write(&mut self, at: usize) -> Holds {
        let number = self.dice.below(usize::from(self.profile.keys)) as u8;
        let held = self.nodes[at].model().dots(number);
        let some: Vec<Dot> = held.iter().copied().filter(|_| self.dice.percent(50)).collect();
        match self.dice.below(10) {
            0..5 => {
                let value = self.value();
                self.put(at, number, value, None)
            }
            5 | 6 => {
                let value = self.value();
                self.put(at, number, value, Some(some))
            }
            7 => self.delete(at, number, Some(some)),
            _ => self.delete(at, number, None),
        }
    }

    pub fn config(&mut self) -> SyncConfig {
        let mode = match self.dice.below(10) {
            0 | 1 if self.profile.one_way => Mode::Pull,
            2 | 3 if self.profile.one_way => Mode::Push,
            4 => Mode::Compare,
            _ => Mode::Both,
        };
        let strategy = match self.dice.below(8) {
            0 => Strategy::Bloom,
            1 => Strategy::Merkle,
            2 => Strategy::Sketch,
            3 => Strategy::Iblt,
            _ => Strategy::Auto,
        };
        SyncConfig {
            mode,
            strategy,
            profile: Profile::Auto,
            max_batch_size: self.dice.between(1, 5),
            bloom_filter_items: self.dice.between(1, 20),
            bloom_filter_fpr: 0.3,
            max_merkle_depth: self.dice.between(0, 12) as u16,
            enable_binary_diff: self.dice.percent(70),
            allow_removals: self.dice.percent(60),
        }
    }

    fn meet(&mut self, from: usize) -> Holds {
        let to = self.dice.below(self.nodes.len());
        let full = self.flights.len() >= self.profile.overlap;
        if from == to || full || !self.nodes[from].online || !self.nodes[to].online {
            return Ok(());
        }
        let config = self.config();
        self.begin_session(from, to, config)
    }

    fn go_on(&mut self) -> Holds {
        if self.flights.is_empty() {
            return Ok(());
        }
        let which = self.dice.below(self.flights.len());
        let most = self.dice.between(1, PUMPED);
        let mut done = 0;
        for _ in 0..most * TRIES {
            let (at, action) = (self.dice.below(2), self.dice.below(6));
            done += usize::from(self.pump(which, at, action)?);
            if done == most {
                break;
            }
        }
        Ok(())
    }

    fn deliver_push(&mut self, to: usize) -> Holds {
        if self.pushes.is_empty() {
            return self.go_on();
        }
        let which = self.dice.below(self.pushes.len());
        self.push(which, to)
    }

    fn disturb_session(&mut self) -> Holds {
        if self.flights.is_empty() || !self.profile.cuts {
            return self.go_on();
        }
        let (which, at) = (self.dice.below(self.flights.len()), self.dice.below(2));
        match self.dice.below(4) {
            0 => {
                self.cut(which);
                Ok(())
            }
            1 => self.stop_session(which, at),
            2 => {
                self.cut(which);
                self.disconnect(which, 0)?;
                self.disconnect(which, 1)
            }
            _ => {
                self.cut(which);
                self.disconnect(which, at)
            }
        }
    }

    fn end_process(&mut self, at: usize) -> Holds {
        if self.nodes[at].open.is_none() {
            return self.start(at);
        }
        if self.nodes[at].disk.is_sick() {
            self.crash(at)?;
            return self.start(at);
        }
        if !self.profile.crashes {
            return self.go_on();
        }
        match self.dice.below(4) {
            0 => self.restart(at),
            1 => self.crash(at),
            _ => {
                self.crash(at)?;
                self.start(at)
            }
        }
    }

    fn break_disk(&mut self, at: usize) -> Holds {
        match self.dice.below(6) {
            0 if self.profile.disk_faults => {
                let batches = self.dice.between(1, 3) as u32;
                self.fault(at, WriteFault::Full(batches));
            }
            1 if self.profile.disk_faults => {
                let after = self.dice.below(3) as u32;
                self.fault(at, WriteFault::Fails(after));
            }
            2 if self.profile.disk_faults => {
                let after = self.dice.below(2) as u32;
                self.fault(at, WriteFault::SyncFails(after));
            }
            3 if self.profile.lies => {
                let lies = self.dice.percent(50);
                note!(self, "the disk of {} lies: {lies}", name(at));
                self.nodes[at].disk.lie(lies);
            }
            4 if self.profile.rot => return self.rot(at),
            _ => {
                self.nodes[at].disk.sync();
                self.nodes[at].remember();
            }
        }
        Ok(())
    }

    /// One row changes by itself.
    fn rot(&mut self, at: usize) -> Holds {
        let node = &self.nodes[at];
        let fit = node.open.is_some() && !node.disk.has_fault() && !node.disk.is_sick();
        if !fit || node.ghost.is_some() {
            return Ok(());
        }
        let table = *self.dice.pick(&[Table::Pages, Table::Entries, Table::Values, Table::Context]);
        let tables = self.nodes[at].disk.tables();
        let rows: Vec<_> = tables.rows(table).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let &(key, value) = self.dice.pick(&rows);
        let mut bytes = value.to_vec();
        match self.dice.below(3) {
            0 => bytes.truncate(self.dice.below(bytes.len() + 1)),
            1 => bytes = vec![0xff; bytes.len()],
            _ if bytes.is_empty() => {}
            _ => {
                let bit = self.dice.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        if bytes[..] == value[..] {
            return Ok(());
        }
        self.rotted(at, table, key, bytes.into())
    }

    fn turn_back(&mut self, at: usize) -> Holds {
        match self.dice.below(4) {
            0 | 1 if self.profile.restores => {
                self.backup(at);
                Ok(())
            }
            2 if self.profile.restores && !self.backups.is_empty() => {
                let own = |at: usize, of: usize| at == of;
                let mut which = self.dice.below(self.backups.len());
                if self.dice.percent(70)
                    && let Some(mine) = self.backups.iter().position(|b| own(at, b.of))
                {
                    which = mine;
                }
                self.restore(at, which)
            }
            _ => {
                let damaged = self.nodes[at].stand.damaged;
                if damaged || self.profile.recoveries && self.dice.percent(40) {
                    return self.recover(at);
                }
                self.repair(at, false)
            }
        }
    }

    fn change_world(&mut self, at: usize) -> Holds {
        match self.dice.below(5) {
            0 if self.nodes.len() < self.profile.most_nodes => self.add_node(),
            1 if self.profile.skews => {
                let skews = [0, 0, 400, 2_000, 5_000, -3_000];
                let skew = *self.dice.pick(&skews);
                note!(self, "the clock of {} is {skew} ms ahead", name(at));
                self.nodes[at].skew_ms = skew;
                Ok(())
            }
            2 => {
                let online = !self.nodes[at].online;
                note!(self, "{} {}", name(at), if online { "comes back" } else { "goes away" });
                self.nodes[at].online = online;
                for which in 0..self.flights.len() {
                    if !online && self.flights[which].nodes.contains(&at) {
                        self.cut(which);
                    }
                }
                Ok(())
            }
            3 => {
                let snapshot = self.live(at).and_then(|(things, _)| things.snapshot().ok());
                self.nodes[at].stale = snapshot;
                Ok(())
            }
            _ => self.go_on(),
        }
    }
}
