//! Blocks: how a backup is cut into pieces that each are checked when they are read.
//!
//! A block is one byte of kind, one of coding, the length of what follows (u32) and the length of
//! what that stands for (u32), then the bytes, then BLAKE3 of everything from the first byte of the
//! backup up to here. So a block that was changed, lost, moved or repeated is found where it is.

use std::io::{self, ErrorKind, Read, Write};

use super::{BackupError, FORMAT_VERSION, MAGIC};
use crate::delta::compress::{compress, decompress};

/// A block of the body is written when it has this many bytes.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Most bytes that a block may stand for.
pub const MAX_BLOCK_BYTES: u32 = 1 << 20;
/// Bytes of the hash behind each block.
pub(super) const CHECK_BYTES: usize = 32;
/// Bytes before a block's own.
pub(super) const HEADER_BYTES: usize = 10;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum BlockKind {
    Head = 1,
    Body = 2,
    End = 3,
}

impl BlockKind {
    const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            1 => Self::Head,
            2 => Self::Body,
            3 => Self::End,
            _ => return None,
        })
    }
}

pub(super) struct BlockWriter<W> {
    output: W,
    hash: blake3::Hasher,
    compresses: bool,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn begin(output: W, compresses: bool) -> io::Result<Self> {
        let mut writer = Self { output, hash: blake3::Hasher::new(), compresses };
        writer.write(&MAGIC)?;
        writer.write(&[FORMAT_VERSION])?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.output.write_all(bytes)
    }

    /// Writes a block, and gives the hash behind it.
    pub(super) fn block(&mut self, kind: BlockKind, plain: &[u8]) -> io::Result<[u8; CHECK_BYTES]> {
        let wanted = self.compresses && kind == BlockKind::Body;
        let shorter = wanted.then(|| compress(plain, None)).flatten();
        let shorter = shorter.filter(|shorter| shorter.len() < plain.len());
        let (coding, bytes) = match &shorter {
            Some(shorter) => (ZSTD, &shorter[..]),
            None => (PLAIN, plain),
        };
        let mut header = [0; HEADER_BYTES];
        header[0] = kind as u8;
        header[1] = coding;
        header[2..6].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[6..].copy_from_slice(&(plain.len() as u32).to_le_bytes());
        self.write(&header)?;
        self.write(bytes)?;
        let check: [u8; CHECK_BYTES] = self.hash.finalize().into();
        self.write(&check)?;
        Ok(check)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

/// A block that was checked.
pub(super) struct Block {
    pub(super) kind: BlockKind,
    pub(super) bytes: Vec<u8>,
    pub(super) check: [u8; CHECK_BYTES],
}

pub(super) struct BlockReader<R> {
    input: R,
    hash: blake3::Hasher,
    /// Bytes read.
    at: u64,
}

impl<R: Read> BlockReader<R> {
    pub(super) fn begin(input: R) -> Result<Self, BackupError> {
        let mut reader = Self { input, hash: blake3::Hasher::new(), at: 0 };
        let mut magic = [0; MAGIC.len()];
        match reader.fill(&mut magic) {
            // too short to tell, unless it does not even begin so
            Err(BackupError::Cut(at)) if !MAGIC.starts_with(&magic[..at as usize]) => {
                return Err(BackupError::NotABackup);
            }
            other => other?,
        }
        if magic != MAGIC {
            return Err(BackupError::NotABackup);
        }
        let mut version = [0];
        reader.fill(&mut version)?;
        match version {
            [FORMAT_VERSION] => Ok(reader),
            [other] => Err(BackupError::Version(other)),
        }
    }

    /// As many bytes, or it is cut short.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(BackupError::Cut(self.at)),
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.hash.update(bytes);
        Ok(())
    }

    pub(super) fn next_block(&mut self) -> Result<Block, BackupError> {
        let from = self.at;
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let [kind, coding, s0, s1, s2, s3, p0, p1, p2, p3] = header;
        let stored = u32::from_le_bytes([s0, s1, s2, s3]);
        let plain = u32::from_le_bytes([p0, p1, p2, p3]);
        let damaged = |to| BackupError::Damaged { from, to };
        let fits = match coding {
            PLAIN => stored == plain,
            ZSTD => stored < plain,
            _ => false,
        };
        let kind = BlockKind::from_id(kind).filter(|_| fits && plain <= MAX_BLOCK_BYTES);
        let kind = kind.ok_or_else(|| damaged(self.at))?;
        let mut bytes = vec![0; stored as usize];
        self.fill(&mut bytes)?;
        let expected: [u8; CHECK_BYTES] = self.hash.finalize().into();
        let mut check = [0; CHECK_BYTES];
        self.fill(&mut check)?;
        if check != expected {
            return Err(damaged(self.at));
        }
        if coding == ZSTD {
            let whole = decompress(&bytes, None, plain as usize);
            bytes = whole.ok_or(BackupError::Malformed("a block does not decompress"))?;
        }
        Ok(Block { kind, bytes, check })
    }

    /// That nothing stands behind the last block.
    pub(super) fn end(&mut self) -> Result<(), BackupError> {
        match self.fill(&mut [0]) {
            Err(BackupError::Cut(_)) => Ok(()),
            Ok(()) => Err(BackupError::Trailing(self.at - 1)),
            Err(error) => Err(error),
        }
    }
}
