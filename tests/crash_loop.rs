//! The real binary, killed at any moment: what it acknowledged is there, what it was at is done
//! whole or not at all, nothing is left lying about, and the next session makes both nodes equal.
//!
//! `SELFSAME_KILLS` says how many times, `SELFSAME_SEED` which ones: it decides all that a round
//! does, and at which part of it the process is killed, as far as the machine keeps time.
//! `SELFSAME_SCENE` is a part of the name of the only scenes to be drawn.
#![cfg(all(feature = "node", unix))]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "crash_loop/backups.rs"]
mod backups;
#[path = "crash_loop/oracle.rs"]
mod oracle;
#[path = "crash_loop/process.rs"]
mod process;
#[path = "crash_loop/scenes.rs"]
mod scenes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backups::Backup;
use oracle::Oracle;
use process::{Place, Running};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use scenes::SCENES;
use serde_json::Value;

/// Of rounds of a kind: how many met their process alive, how many came too late.
#[derive(Default)]
struct Aim {
    typical_ms: f64,
    hits: u32,
    misses: u32,
}

/// Two nodes that have met, and all that is known of them.
struct World {
    places: [Place; 2],
    ids: [String; 2],
    oracle: Oracle,
    rng: SmallRng,
    aims: BTreeMap<&'static str, Aim>,
    /// Puts that were acknowledged beside a listener.
    beside: usize,
    /// Backups that were made, of each node.
    backups: [Vec<Backup>; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        let places = [Place::new(), Place::new()];
        let ids = [&places[0], &places[1]].map(|place| {
            place.run(&["init"]).ended(0);
            // it deletes as much as it likes, and is impatient
            place.configure(|line| match line.split(" = ").next() {
                Some("allow_removals") => "allow_removals = true".into(),
                Some("interval_s") => "interval_s = 1".into(),
                _ => line.into(),
            });
            place.run(&["collection", "create", "c"]).ended(0);
            place.run(&["id"]).ended(0).stdout.trim().to_owned()
        });
        let rng = SmallRng::seed_from_u64(seed);
        Self {
            places,
            ids,
            oracle: Oracle::default(),
            rng,
            aims: BTreeMap::new(),
            beside: 0,
            backups: Default::default(),
        }
    }

    /// When to kill what takes about so long: at first as said, later as it was met alive or not.
    fn delay(&mut self, what: &'static str, typical_ms: f64) -> Duration {
        let part: f64 = self.rng.random();
        let aim = self.aims.entry(what).or_insert_with(|| Aim { typical_ms, ..Aim::default() });
        Duration::from_secs_f64(part * aim.typical_ms / 1_000.0)
    }

    fn count(&mut self, what: &'static str, in_time: bool) {
        let aim = self.aims.entry(what).or_default();
        if in_time {
            aim.hits += 1;
            aim.typical_ms *= 1.05;
        } else {
            aim.misses += 1;
            aim.typical_ms *= 0.8;
        }
    }

    /// Whether it is alive to be killed.
    fn killed(&mut self, what: &'static str, running: &mut Running) -> bool {
        let in_time = running.is_running();
        self.count(what, in_time);
        in_time
    }

    fn hits(&self) -> u32 {
        self.aims.values().map(|aim| aim.hits).sum()
    }

    /// A listener that is ready, and its address.
    fn listen(&self, node: usize) -> (Running, String) {
        let allowed = &self.ids[1 - node];
        let arguments = ["listen", "--addr", "127.0.0.1:0", "--json", "--allow", allowed];
        let mut listening = self.places[node].start(&arguments);
        let first: Value = serde_json::from_str(&listening.line()).unwrap();
        let address = first["address"].as_str().unwrap();
        (listening, format!("{}@{address}", self.ids[node]))
    }

    /// A daemon that is ready, and its address.
    fn serve(&self, node: usize, address: &str) -> (Running, String) {
        let allowed = &self.ids[1 - node];
        let arguments = ["serve", "--addr", address, "--allow", allowed];
        let mut serving = self.places[node].start(&arguments);
        let first = serving.line();
        let address = first.strip_prefix("serving on ").and_then(|rest| rest.split_once(','));
        (serving, address.expect("it says where it serves").0.to_owned())
    }

    fn start_sync(&self, node: usize, peer: &str, direction: &str) -> Running {
        let rest = ["--direction", direction, "--json"];
        self.places[node].start(&[&["sync", "c", "--peer", peer], &rest[..]].concat())
    }

    fn stop(&self, mut running: Running, signal: &str) {
        running.signal(signal);
        running.end().ended(0);
    }

    fn dump(&self, node: usize) -> Vec<Value> {
        self.places[node].run(&["dump", "c"]).ended(0).lines().collect()
    }

    fn root(&self, node: usize) -> String {
        let digest = self.places[node].run(&["digest", "c", "--json"]).ended(0).json();
        digest["root"].as_str().unwrap().to_owned()
    }

    /// The death of a process takes back nothing that was acknowledged, in any mode.
    fn draw_durability(&mut self) {
        for place in &self.places {
            let mode = ["always", "always", "periodic", "never"][self.rng.random_range(0..4)];
            place.configure(|line| match line.starts_with("durability = ") {
                true => format!("durability = \"{mode}\""),
                false => line.into(),
            });
        }
    }

    /// What survived is sound, and it is what it must be.
    fn read(&mut self) {
        let read = |node: usize| {
            let check = self.places[node].run(&["recover", "c", "--check", "--json"]);
            assert_eq!(check.code(), Some(0), "{check:?}");
            self.places[node].assert_nothing_is_left();
            self.dump(node)
        };
        let dumps = std::thread::scope(|scope| {
            let other = scope.spawn(|| read(1));
            [read(0), other.join().unwrap()]
        });
        self.oracle.read([&dumps[0], &dumps[1]]);
    }

    /// The next session brings both to the same.
    fn meet(&mut self) {
        let listener = self.rng.random_range(0..2);
        let (listening, peer) = self.listen(listener);
        let done = self.start_sync(1 - listener, &peer, "both").end().ended(0).json();
        assert_eq!(done["outcome"], "complete", "{done}");
        self.stop(listening, "INT");
        assert_eq!(self.root(0), self.root(1));
        let dump = self.dump(0);
        self.oracle.read_of_both(&dump);
    }
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let kills = setting("SELFSAME_KILLS").unwrap_or(20);
    let seed = setting("SELFSAME_SEED").unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
    let only = std::env::var("SELFSAME_SCENE").unwrap_or_default();
    println!("SELFSAME_SEED={seed} SELFSAME_KILLS={kills} SELFSAME_SCENE={only:?}");
    let mut world = World::new(seed);
    world.read();
    world.meet();
    let mut cards: Vec<usize> = Vec::new();
    let mut rounds = 0;
    while rounds < kills {
        let card = cards.pop().unwrap_or_else(|| {
            cards = (0..SCENES.len()).filter(|card| SCENES[*card].0.contains(&only)).collect();
            cards.shuffle(&mut world.rng);
            cards.pop().expect("SELFSAME_SCENE is a part of the name of a scene")
        });
        let (name, scene) = SCENES[card];
        let (begun, hits) = (Instant::now(), world.hits());
        println!("round {rounds}: {name}");
        world.draw_durability();
        scene(&mut world);
        let acted = begun.elapsed();
        world.read();
        for node in 0..2 {
            world.operate(node);
        }
        world.meet();
        // one that came too late is no kill
        rounds += u64::from(world.hits() > hits);
        println!("  {acted:?}, then {:?}", begun.elapsed() - acted);
    }
    for (what, Aim { typical_ms, hits, misses }) in &world.aims {
        println!("{what}: {hits} killed, {misses} too late, within {typical_ms:.0} ms");
    }
    println!("{} puts acknowledged beside a listener", world.beside);
}
