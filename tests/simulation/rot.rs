//! Rows that change by themselves.

use std::sync::Arc;

use selfsame::hash::{KeyHash, ValueHash};
use selfsame::store::Table;

use super::node::name;
use super::oracle::Holds;
use super::world::{World, note, number_of};

impl World {
    /// A row has changed on disk: what that does to what the oracle expects.
    pub fn rotted(&mut self, at: usize, table: Table, row: &[u8], value: Arc<[u8]>) -> Holds {
        let hash = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 32]);
        let key = match table {
            Table::Entries | Table::Values => Some(number_of(&KeyHash(hash(&row[4..36])))?),
            _ => None,
        };
        let node = &mut self.nodes[at];
        node.disk.rot(table, row, value);
        match (table, key) {
            (Table::Values, Some(key)) => {
                node.lost.insert((key, ValueHash(hash(&row[36..68]))));
            }
            (Table::Entries, Some(key)) => {
                node.stand.rotten.insert(key);
                node.stand.damaged = true;
            }
            _ => node.stand.damaged = true,
        }
        node.remember();
        let of = key.map(|key| format!(" of k{key}")).unwrap_or_default();
        note!(self, "a row of {table:?}{of} rots at {}", name(at));
        Ok(())
    }
}
