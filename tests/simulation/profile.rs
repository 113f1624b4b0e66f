//! What a history is made of. Each draws which kinds of faults it knows at all: few at a time go
//! deeper than all at once (swarm testing: Groce et al., ISSTA 2012).

use selfsame::limits::Limits;
use selfsame::store::Durability;

use super::dice::Dice;

#[derive(Clone, Debug)]
pub struct Profile {
    pub nodes: usize,
    pub most_nodes: usize,
    pub keys: u8,
    pub steps: usize,
    pub page_leaves: u16,
    pub overlap: usize,
    pub crashes: bool,
    pub disk_faults: bool,
    pub lies: bool,
    pub rot: bool,
    pub restores: bool,
    pub recoveries: bool,
    pub pushes: bool,
    pub skews: bool,
    pub cuts: bool,
    pub one_way: bool,
    /// Nodes with small limits: values, siblings, keys of a session, removals.
    pub narrow: bool,
    pub large_values: bool,
    /// Whether sessions with refusals join up to what was refused, as with a context full of gaps.
    pub joins_beside: bool,
    /// Whether sessions end after one key or two: removals alone can fill them.
    pub short_sessions: bool,
    /// Whether keys that vanish too early are a fault.
    pub vanishing: bool,
}

impl Profile {
    pub fn draw(dice: &mut Dice) -> Self {
        let nodes = dice.between(2, 4);
        let (joins_beside, short_sessions) = (dice.percent(15), dice.percent(15));
        Self {
            nodes,
            most_nodes: if dice.percent(40) { dice.between(nodes, 6) } else { nodes },
            keys: dice.between(1, 4) as u8,
            steps: dice.between(30, 150),
            page_leaves: dice.between(1, 3) as u16,
            overlap: dice.between(1, 5),
            crashes: dice.percent(50),
            disk_faults: dice.percent(25),
            lies: dice.percent(15),
            rot: dice.percent(25),
            restores: dice.percent(35),
            recoveries: dice.percent(25),
            pushes: dice.percent(40),
            skews: dice.percent(30),
            cuts: dice.percent(60),
            one_way: dice.percent(50),
            narrow: dice.percent(30),
            large_values: dice.percent(40),
            joins_beside,
            short_sessions,
            vanishing: !joins_beside && !short_sessions,
        }
    }

    /// So many nodes to which nothing happens by itself.
    pub fn quiet(nodes: usize) -> Self {
        Self {
            nodes,
            most_nodes: nodes,
            keys: 4,
            steps: 0,
            page_leaves: 1,
            overlap: 2,
            crashes: false,
            disk_faults: false,
            lies: false,
            rot: false,
            restores: false,
            recoveries: false,
            pushes: false,
            skews: false,
            cuts: false,
            one_way: false,
            narrow: false,
            large_values: false,
            joins_beside: false,
            short_sessions: false,
            vanishing: true,
        }
    }

    /// Limits and durability of a node.
    pub fn node(&self, dice: &mut Dice) -> (Limits, Durability) {
        let mut limits = Limits { max_clock_drift_ms: 500, ..Limits::default() };
        if self.narrow {
            if dice.percent(40) {
                limits.max_value_bytes = 12;
            }
            if dice.percent(30) {
                limits.max_siblings = dice.between(1, 3);
            }
            if dice.percent(30) {
                (limits.max_removals, limits.max_removals_percent) = (1, 10);
            }
        }
        if self.short_sessions && dice.percent(50) {
            limits.max_session_entries = dice.between(1, 2);
        }
        if self.joins_beside {
            limits.max_exceptions = 15;
        }
        if dice.percent(20) {
            limits.removal_log_entries = dice.between(1, 4) as u64;
        }
        if dice.percent(20) {
            limits.history_age_ms = 0;
        }
        let durability = match dice.below(4) {
            0 => Durability::Periodic,
            1 => Durability::Never,
            _ => Durability::Always,
        };
        (limits, durability)
    }
}
