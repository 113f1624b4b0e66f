//! A light client of a node that runs: it asks over the node's control socket, holds one root of 32
//! bytes and the id of one node, and checks everything else.
//!
//! Against `selfsame serve`, with nothing of this crate but its smallest feature (`SOCKET` is
//! `control.sock` in the node's data folder, `ROOT` what `selfsame digest` says, `ID` what
//! `selfsame id` says):
//!
//! ```text
//! cargo run --no-default-features --features tree --example remote_light_client -- \
//!     SOCKET COLLECTION ROOT ID KEY...
//! ```
//!
//! Without arguments, and with the default features, it makes a node of its own in a folder that
//! is gone afterwards, serves it, writes to it, and follows what it does.

#[cfg(unix)]
#[path = "remote_light_client/client.rs"]
mod client;

#[cfg(unix)]
fn main() -> client::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => demo::run(),
        [socket, collection, root, node, keys @ ..] if !keys.is_empty() => {
            let mut client = client::LightClient {
                socket: socket.into(),
                collection: collection.clone(),
                root: root.parse()?,
            };
            let mut id = [0; 32];
            hex::decode_to_slice(node, &mut id)?;
            let keys = keys.iter().map(|key| selfsame::types::Key::new(key.as_str()));
            let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
            look(&client, &keys)?;
            // whether the last change of the first key begins where this client stands
            match client.follow(&selfsame::types::NodeId(id), &keys[0]) {
                Ok(keys) => println!("followed a commit of {keys} keys to root {}", client.root),
                Err(error) => println!("stays at its root: {error}"),
            }
            Ok(())
        }
        _ => Err("give SOCKET COLLECTION ROOT ID KEY..., or nothing".into()),
    }
}

#[cfg(not(unix))]
fn main() {
    println!("this example asks over a socket of Unix");
}

/// Asks for one key, for many, and for all.
#[cfg(unix)]
fn look(client: &client::LightClient, keys: &[selfsame::types::Key]) -> client::Result<()> {
    for key in keys {
        match client.get(key)? {
            Some(value) => println!("{key} is there: {}", value.escape_ascii()),
            None => println!("{key} is not there, and that is proved"),
        }
    }
    println!("{} keys in one proof", client.get_many(keys)?.len());
    let beginning: String = keys[0].to_string().chars().take(1).collect();
    let all = client.all_beginning(&beginning)?;
    println!("{} keys begin with {beginning}, and there is no other", all.len());
    Ok(())
}

#[cfg(all(unix, not(feature = "node")))]
mod demo {
    pub(super) fn run() -> crate::client::Result<()> {
        println!("without the feature `node` there is no node to ask here: give");
        println!("SOCKET COLLECTION ROOT ID KEY... of one that `selfsame serve` runs");
        Ok(())
    }
}

/// The other side: a node in this process, as `selfsame serve` runs one.
#[cfg(all(unix, feature = "node"))]
mod demo {
    use std::sync::Arc;

    use selfsame::api::{ControlSocket, Host};
    use selfsame::node::Node;
    use selfsame::node::home::Home;
    use selfsame::store::EmbeddedStore;
    use selfsame::types::{CollectionName, CollectionSpec, Key, Policy};
    use tokio::runtime::Runtime;
    use tokio::sync::watch;

    use crate::client::{LightClient, Result};

    pub(super) fn run() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let id = Home::init(folder.path())?;
        let home = Home::open(folder.path())?;
        let now = Node::<EmbeddedStore>::now_ms;
        let players = home.replica.create_collection(CollectionSpec {
            name: CollectionName::new("players")?,
            algorithm: Default::default(),
            policy: Policy::Lww,
        })?;
        for number in 0..1_000 {
            let key = Key::new(format!("player:{number}"))?;
            players.put(&key, format!("level {}", number % 60).into_bytes(), now())?;
        }

        let runtime = Runtime::new()?;
        let socket = runtime.block_on(ControlSocket::bind(folder.path()))?;
        let (stop, stopped) = watch::channel(false);
        let serving = runtime.spawn(socket.serve(Arc::new(Host::new(&home)), stopped));

        // all that the client is given on a way that it trusts: a root and a node id
        let mut client = LightClient {
            socket: folder.path().join("control.sock"),
            collection: "players".into(),
            root: players.root()?,
        };
        crate::look(&client, &[Key::new("player:17")?, Key::new("player:x")?])?;

        // the node goes on: what it says now does not go with the root that the client holds
        let key = Key::new("player:17")?;
        players.put(&key, *b"level 99", now())?;
        match client.get(&key) {
            Err(error) => println!("after a write: {error}"),
            Ok(_) => return Err("an old root proves a new value".into()),
        }
        let changed = client.follow(&id, &key)?;
        println!("followed a commit that changed {changed} key, and nothing else");
        crate::look(&client, &[key])?;

        stop.send_replace(true);
        runtime.block_on(serving)?;
        // the store is free once nobody holds its collections
        drop((players, runtime));
        home.close()?;
        Ok(())
    }
}
