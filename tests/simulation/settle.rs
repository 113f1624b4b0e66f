//! The end of a history: all faults stop, everybody meets everybody, and all must be the same.

use std::collections::BTreeSet;

use selfsame::dots::Dot;
use selfsame::limits::Limits;
use selfsame::session::{Outcome, Strategy, SyncConfig};

use super::node::name;
use super::oracle::{Holds, Model, ensure, text};
use super::world::{World, note};

/// Rounds in which everybody meets everybody, until nothing is left to say.
const ROUNDS: usize = 3;

impl World {
    pub fn settle(&mut self) -> Holds {
        note!(self, "all faults stop");
        for which in 0..self.flights.len() {
            self.cut(which);
            self.disconnect(which, 0)?;
            self.disconnect(which, 1)?;
        }
        self.flights.clear();
        self.pushes.clear();
        self.now_ms += 1_000_000;
        for at in 0..self.nodes.len() {
            self.heal(at)?;
        }
        for at in 0..self.nodes.len() {
            self.repair(at, true)?;
        }
        let models: Vec<Model> = self.nodes.iter().map(|node| node.model().clone()).collect();
        let expected = living(&models);
        note!(self, "living: {}", self.truth.names(expected.iter().copied()));
        for _ in 0..ROUNDS {
            self.round()?;
        }
        for at in 0..self.nodes.len() {
            let held: BTreeSet<Dot> = self.nodes[at].model().held().map(|(dot, ..)| dot).collect();
            ensure(held == expected, || {
                format!(
                    "{} ends with {}, not with {}",
                    name(at),
                    self.truth.names(held),
                    self.truth.names(expected.iter().copied())
                )
            })?;
        }
        let states: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let things = node.usable().ok_or("not open")?;
                things.state_hash().map_err(text)
            })
            .collect::<Result<_, String>>()?;
        ensure(states.windows(2).all(|pair| pair[0] == pair[1]), || {
            "the nodes hold the same and have not seen the same".into()
        })
    }

    fn heal(&mut self, at: usize) -> Holds {
        let node = &mut self.nodes[at];
        node.disk.mend();
        (node.skew_ms, node.online) = (0, true);
        node.limits = Limits::default();
        if node.open.is_some() && !node.disk.is_sick() {
            self.restart(at)?;
        } else {
            self.crash(at)?;
        }
        self.start(at)?;
        if self.nodes[at].stand.damaged {
            self.recover(at)?;
        }
        self.check(at)
    }

    fn round(&mut self) -> Holds {
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                let strategy = *self.dice.pick(&Strategy::ALL);
                let config = SyncConfig { strategy, ..SyncConfig::default() };
                let (from, to) = if self.dice.percent(50) { (one, other) } else { (other, one) };
                let outcomes = self.run_session(from, to, config)?;
                let complete =
                    |end: &Option<Outcome>| matches!(end, Some(Outcome::Complete { .. }));
                ensure(outcomes.iter().all(complete), || {
                    format!("a session without faults ends with {outcomes:?}")
                })?;
            }
        }
        Ok(())
    }
}

/// What all live with who ever saw it.
fn living(models: &[Model]) -> BTreeSet<Dot> {
    let held = models.iter().flat_map(|model| model.held().map(|(dot, ..)| dot));
    held.filter(|&dot| !models.iter().any(|model| model.is_dead(dot))).collect()
}
