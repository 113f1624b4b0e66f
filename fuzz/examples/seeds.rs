//! Writes the corpus: `cargo run --example seeds`, in this folder.

use std::fs;
use std::path::Path;

use selfsame_fuzz::{buckets, filter, frame, iblt, patch, proof, record, session};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets = [
        ("buckets", buckets::seeds(), buckets::check as fn(&[u8])),
        ("filter", filter::seeds(), filter::check),
        ("frame", frame::seeds(), frame::check),
        ("iblt", iblt::seeds(), iblt::check),
        ("patch", patch::seeds(), patch::check),
        ("proof", proof::seeds(), proof::check),
        ("record", record::seeds(), record::check),
        ("session", session::seeds(), session::check),
    ];
    for (name, seeds, check) in targets {
        let folder = corpus.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            check(seed);
            fs::write(folder.join(format!("{number:02}")), seed)?;
        }
        let bytes: usize = seeds.iter().map(Vec::len).sum();
        println!("{name}: {} seeds, {bytes} bytes", seeds.len());
    }
    Ok(())
}
