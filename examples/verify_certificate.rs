//! Verifies a convergence certificate offline: two nodes signed that they hold the same.
//!
//! With a file from `selfsame certificate show --output FILE` and the ids of the two nodes it
//! verifies that one; without arguments one that it makes itself, as two nodes would. No node, no
//! store, no network, and no more than this crate's smallest feature:
//!
//! ```text
//! cargo run --no-default-features --features tree --example verify_certificate
//! cargo run --no-default-features --features tree --example verify_certificate -- FILE ID ID
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Read;

use selfsame::clock::Stamp;
use selfsame::entry::Totals;
use selfsame::hash::{HashAlgorithm, session_id};
use selfsame::merkle::log::{LogId, LogIdentity, LogKind, first_item};
use selfsame::merkle::{
    CertificateBundle, CertificateMessage, Envelope, HeadStatement, InclusionProof,
    MAX_CERTIFICATE_BUNDLE_BYTES, MerkleLog, NodeKey, check_node_id,
};
use selfsame::types::{CollectionName, CollectionSpec, NodeId, Policy};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (bytes, nodes) = match arguments.as_slice() {
        [] => sample()?,
        [file, one, other] => {
            let mut bytes = Vec::new();
            let most = MAX_CERTIFICATE_BUNDLE_BYTES as u64 + 1;
            File::open(file)?.take(most).read_to_end(&mut bytes)?;
            (bytes, [node_id(one)?, node_id(other)?])
        }
        _ => return Err("give a file and the ids of two nodes, or nothing".into()),
    };

    // form, signatures, and that all parts belong together
    let bundle = CertificateBundle::parse(&bytes)?;
    // that it is about the nodes that were meant
    bundle.check_nodes(&nodes)?;

    let message = bundle.certificate().message();
    println!("{} and {} hold the same {}", nodes[0], nodes[1], message.collection());
    println!("root {}", message.root());
    if let Some(envelope) = bundle.envelope() {
        println!("that is {} entries", envelope.totals().entries);
    }
    if let Some(place) = bundle.place() {
        let (node, size) = (place.head().node(), place.head().fields().size());
        println!("item {} of {size} in the signed log of {node}", place.proof().index());
    }
    Ok(())
}

fn node_id(text: &str) -> Result<NodeId, Box<dyn Error>> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id)?;
    check_node_id(&NodeId(id))?;
    Ok(NodeId(id))
}

/// What a node writes to a file, and the ids of the two that signed.
fn sample() -> Result<(Vec<u8>, [NodeId; 2]), Box<dyn Error>> {
    let keys = [NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32])];
    let nodes = [keys[0].node_id(), keys[1].node_id()];
    let (algorithm, name) = (HashAlgorithm::Blake3, CollectionName::new("players")?);
    let spec = CollectionSpec { name: name.clone(), algorithm, policy: Policy::Lww };
    let envelope = Envelope::new(spec, algorithm.empty(), Totals::default())?;
    let message = CertificateMessage::new(
        name.clone(),
        envelope.root(),
        algorithm.context(&[0; 8]),
        nodes,
        session_id(&[5; 32], &[6; 32]),
        Stamp::new(1_700_000_000_000, 0),
    )?;
    let signed = [(nodes[0], message.sign(&keys[0])), (nodes[1], message.sign(&keys[1]))];
    let certificate = message.certify(signed)?;

    // the certificate log of one of them, with its signed head
    let mut log = MerkleLog::new(algorithm);
    let leaves = [log.append(&first_item(None)), log.append(&certificate.to_bytes())];
    let identity = LogIdentity { algorithm, kind: LogKind::Certificates, id: LogId(7), name };
    let head = HeadStatement::sign(identity.at(&log), nodes[0], &|message| {
        keys[0].sign(message).to_bytes()
    })?;
    let proof = InclusionProof::of_leaves(algorithm, &leaves, 1).ok_or("two items")?;
    let bundle = CertificateBundle::new(certificate).with_envelope(envelope)?;
    Ok((bundle.with_place(head, proof)?.to_bytes(), nodes))
}
