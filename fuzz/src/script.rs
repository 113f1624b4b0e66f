//! What an input of the session target says: two collections, how the session is set up, and what
//! happens to its frames.
//!
//! Fixed fields first, then steps until the bytes are used up; so a script can be written as well
//! as read, and most changes of a script are scripts.

use arbitrary::{Result, Unstructured};
use selfsame::session::{Lane, Mode, Strategy};

/// Most writes before the session.
pub const MAX_WRITES: usize = 31;

/// Which ends are real.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// Both: the attacker stands between them.
    Both,
    /// Only the initiator: the attacker is the other.
    Initiator,
    /// Only the responder.
    Responder,
}

/// How a session is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which ends are real.
    pub cast: Cast,
    /// Which way entries move.
    pub mode: Mode,
    /// How differences are found.
    pub strategy: Strategy,
    /// Whether the collections use SHA-256.
    pub sha256: bool,
    /// Whether limits are so small that they are reached.
    pub tight: bool,
    /// Most keys or values in a message.
    pub batch: u8,
    /// Depth at which a descent lists leaves.
    pub depth: u8,
}

/// A write before the session.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// At which node; both write the same keys.
    pub second: bool,
    /// A delete instead of a put.
    pub delete: bool,
    /// Whether the other node takes the state of this one over afterwards.
    pub sync: bool,
    /// Which key.
    pub key: u8,
    /// Size of the value, in steps of 24 bytes.
    pub size: u8,
}

/// What happens next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// So many honest moves: frames sent and delivered, batches applied.
    Run(u8),
    /// The oldest frame on its way is lost.
    Drop(usize, Lane),
    /// It is delivered, and once more.
    Repeat(usize, Lane),
    /// One byte of it is changed.
    Flip(usize, Lane, u16, u8),
    /// The attacker sends these bytes.
    Inject(usize, Lane, Vec<u8>),
    /// The attacker sends a well-formed message of this kind, made of what follows.
    Forge(usize, u8, [u8; 12]),
}

/// A whole input.
#[derive(Clone, Debug)]
pub struct Script {
    /// How the session is set up.
    pub settings: Settings,
    /// Writes before it.
    pub writes: Vec<Write>,
    /// What happens.
    pub steps: Vec<Step>,
}

const CASTS: [Cast; 4] = [Cast::Both, Cast::Both, Cast::Initiator, Cast::Responder];
const MODES: [Mode; 8] = [
    Mode::Both,
    Mode::Both,
    Mode::Both,
    Mode::Both,
    Mode::Both,
    Mode::Pull,
    Mode::Push,
    Mode::Compare,
];
const STRATEGIES: [Strategy; 8] = [
    Strategy::Auto,
    Strategy::Auto,
    Strategy::Bloom,
    Strategy::Merkle,
    Strategy::Sketch,
    Strategy::Iblt,
    Strategy::Auto,
    Strategy::Sketch,
];

impl Script {
    /// Reads an input.
    ///
    /// # Errors
    /// It ends within the fixed fields.
    pub fn read(input: &[u8]) -> Result<Self> {
        let mut input = Unstructured::new(input);
        let [cast, flow, flags, batch, depth, writes]: [u8; 6] = input.arbitrary()?;
        let settings = Settings {
            cast: CASTS[usize::from(cast) % CASTS.len()],
            mode: MODES[usize::from(flow & 7)],
            strategy: STRATEGIES[usize::from((flow >> 3) & 7)],
            sha256: flags & 1 != 0,
            tight: flags & 2 != 0,
            batch,
            depth,
        };
        let writes = (0..usize::from(writes) % (MAX_WRITES + 1)).map(|_| {
            let [how, key, size]: [u8; 3] = input.arbitrary()?;
            let (second, delete, sync) = (how & 1 != 0, how & 6 == 6, how & 56 == 56);
            Ok(Write { second, delete, sync, key: key % 16, size })
        });
        let writes = writes.collect::<Result<_>>()?;
        let mut steps = Vec::new();
        while let Ok(step) = Step::read(&mut input) {
            steps.push(step);
        }
        Ok(Self { settings, writes, steps })
    }
}

impl Step {
    fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        if input.is_empty() {
            return Err(arbitrary::Error::NotEnoughData);
        }
        let what: u8 = input.arbitrary()?;
        let end = usize::from((what >> 6) & 1);
        let lane = if what >> 7 == 0 { Lane::Control } else { Lane::Bulk };
        Ok(match what & 7 {
            0 | 1 => Self::Run(input.arbitrary()?),
            2 => Self::Drop(end, lane),
            3 => Self::Repeat(end, lane),
            4 => Self::Flip(end, lane, input.arbitrary()?, input.arbitrary()?),
            5 => {
                let length = usize::from(input.arbitrary::<u16>()?).min(input.len());
                Self::Inject(end, lane, input.bytes(length)?.to_vec())
            }
            _ => Self::Forge(end, input.arbitrary()?, input.arbitrary()?),
        })
    }

    /// The bytes that read as this step.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let place =
            |end: usize, lane: Lane| ((end as u8) << 6) | (u8::from(lane == Lane::Bulk) << 7);
        match self {
            Self::Run(moves) => bytes.extend([0, *moves]),
            Self::Drop(end, lane) => bytes.push(2 | place(*end, *lane)),
            Self::Repeat(end, lane) => bytes.push(3 | place(*end, *lane)),
            Self::Flip(end, lane, at, with) => {
                let [low, high] = at.to_le_bytes();
                bytes.extend([4 | place(*end, *lane), low, high, *with]);
            }
            Self::Inject(end, lane, frame) => {
                bytes.push(5 | place(*end, *lane));
                bytes.extend((frame.len() as u16).to_le_bytes());
                bytes.extend(frame);
            }
            Self::Forge(end, kind, made_of) => {
                bytes.extend([6 | place(*end, Lane::Control), *kind]);
                bytes.extend(made_of);
            }
        }
    }
}
