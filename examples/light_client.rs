//! A light client: it holds one root of 32 bytes and two node ids, and believes nobody.
//!
//! What it is told of a key comes with a bundle of about 200 bytes, from whoever sends it; what
//! two nodes agreed on comes with a certificate. Both are checked with no store, no network and
//! no more than this crate's smallest feature:
//!
//! ```text
//! cargo run --no-default-features --features tree --example light_client
//! ```

use std::error::Error;

use selfsame::hash::{HashAlgorithm, Root};
use selfsame::merkle::{Answer, Bundle, Certificate};
use selfsame::types::Key;

/// What the client trusts: pinned, or taken from a certificate.
const ROOT: &str = "fe88f343931ceb0c2cd81fe30d36c76ac8fd55eea9c875068133357ee61c0750";

/// The first of two nodes that the client knows.
const NODE_A: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

/// The other one, the greater id.
const NODE_B: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

/// Sent by anyone: `player:17` is there.
const PRESENT: &str = "\
    014c0001010700706c617965727301449ff274537852f2f50454f33d17177e5a7e04467525d605d6\
    2958c0d073fcc6020000000000000002000000000000000e00000000000000000000c02cc8990143\
    00000001010097b5e4d1c2003a8f0100000000000000000000c02cc899010700000000000000d61f\
    04cae1cd8c0d8a23bce8462dbbbd91906e00922ed86125400b897619d0ac0001000180662c68ab81\
    86656c5122436169b189b4b68ed6959aa5bac3bfa3ba134595c74e";

/// Sent by anyone: `player:99` is not.
const ABSENT: &str = "\
    014c0001010700706c617965727301449ff274537852f2f50454f33d17177e5a7e04467525d605d6\
    2958c0d073fcc6020000000000000002000000000000000e00000000000000000000c02cc8990100\
    000000010100018031ef18656194039abe47b80c44697985cd7b6f4c7f004f8c8642dd66157cab43\
    5826cdb7d3e8b7cb6fa96735cbc62467a8972396e9613cf65fe1f92374982834e9adfe216eec2b1d\
    96ca30e5cd2364ac13092492cdc3a072da1aee1103beb6ee";

/// Sent by anyone: both nodes agreed on the root.
const CERTIFICATE: &str = "\
    73656c6673616d65207631206365727469666963617465010700706c6179657273fe88f343931ceb\
    0c2cd81fe30d36c76ac8fd55eea9c875068133357ee61c0750aa7b065c0e6b883ebe3ef32d4bf0b5\
    a4ad11e068bce0d2fe49823ddd5984143b8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37\
    a25df60f5b8fc9b3948a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f\
    5c0d271787d9bd6a201d4fd2efc6e4ecf08431def00cbdcdb4a0b9a322f56e6160010000c02cc899\
    014e9c0dd75fb199a0466bd5590ca583e8f2af08eb6ae6efa039cbec579a40d56547e0c183aa6300\
    9cd89660ed3766e70a1b4c37530f7bdbcfc85db1862f9a2009c2882103b143aa09b2cd35a9deb1d8\
    e3cb4e29a57cf9f8417041103579f3684fe7b6d9c68c6d040560b53aa3e768b90d3c3fc84e6afe79\
    bcbd20284a64127c0b";

fn main() -> Result<(), Box<dyn Error>> {
    let root: Root = ROOT.parse()?;

    let player = Key::new("player:17")?;
    let bundle = Bundle::parse(&hex::decode(PRESENT)?)?;
    match bundle.verify(&root, &player)? {
        Answer::Present(record) => {
            // the value itself may come from anywhere too: its hash is under the root
            let value = b"level 5";
            let expected = record.latest().value_hash;
            assert_eq!(HashAlgorithm::Blake3.value_hash(value), expected);
            println!("{player} is there: {}", value.escape_ascii());
        }
        Answer::Absent => println!("{player} is not there"),
    }

    let nobody = Key::new("player:99")?;
    let answer = Bundle::parse(&hex::decode(ABSENT)?)?.verify(&root, &nobody)?;
    assert_eq!(answer, Answer::Absent);
    println!("{nobody} is not there, and that is proved");

    // a bundle proves nothing of another key, and nothing once a bit of it has changed
    println!("for another key: {}", refusal(bundle.verify(&root, &nobody)));
    let mut forged = hex::decode(PRESENT)?;
    forged[100] ^= 1;
    let verdict = Bundle::parse(&forged).and_then(|forged| forged.verify(&root, &player));
    println!("with a bit changed: {}", refusal(verdict));

    let certificate = Certificate::parse(&hex::decode(CERTIFICATE)?)?;
    certificate.check_envelope(bundle.envelope())?;
    let nodes = certificate.message().nodes().map(|node| node.to_string());
    assert_eq!(nodes, [NODE_A, NODE_B]);
    let entries = bundle.envelope().totals().entries;
    println!("{} and {} agreed on these {entries} entries", &nodes[0][..8], &nodes[1][..8]);
    Ok(())
}

fn refusal<T, E: Error>(verdict: Result<T, E>) -> String {
    verdict.err().map_or_else(|| "accepted!".into(), |error| format!("refused: {error}"))
}
