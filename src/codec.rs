//! Reading and writing of canonical bytes: everything that is hashed, signed or stored.
//!
//! Integers are little-endian. A reader refuses what is cut short and, at [`Reader::finish`],
//! what is left over; it allocates nothing that the input does not already hold.
//!
//! ```
//! use selfsame::codec::{Reader, Writing};
//!
//! let mut bytes = Vec::new();
//! bytes.put_u16(7);
//! let mut reader = Reader::new(&bytes);
//! assert_eq!(reader.u16()?, 7);
//! reader.finish()?;
//! # Ok::<(), selfsame::codec::CodecError>(())
//! ```

pub mod bits;

/// Bytes that are not the canonical form of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than announced.
    #[error("the bytes are cut short")]
    Truncated,
    /// More bytes than announced.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A cursor over canonical bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

macro_rules! read_integer {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Fewer bytes than that are left.
        pub fn $name(&mut self) -> Result<$ty, CodecError> {
            Ok(<$ty>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.0.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// Fewer bytes than that are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(CodecError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// Fewer bytes than that are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    read_integer! {
        /// One byte.
        u8: u8;
        /// Two bytes, little-endian.
        u16: u16;
        /// Four bytes, little-endian.
        u32: u32;
        /// Eight bytes, little-endian.
        u64: u64;
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Bytes are left over.
    pub const fn finish(self) -> Result<(), CodecError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

/// Appending of little-endian integers to a byte vector.
pub trait Writing {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends two bytes.
    fn put_u16(&mut self, value: u16);
    /// Appends four bytes.
    fn put_u32(&mut self, value: u32);
    /// Appends eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Appends bytes as they are.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Writing for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
