//! Integers in as few bytes as they need: seven bits a byte, least significant first, minimal.

use crate::codec::{CodecError, Reader};

pub(crate) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(crate) fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put(bytes, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Result<u64, CodecError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return match part {
                0 if shift > 0 => Err(CodecError::Invalid("an integer is longer than needed")),
                _ => Ok(value),
            };
        }
    }
    Err(CodecError::Invalid("an integer is over 64 bits"))
}

pub(crate) fn read_signed(reader: &mut Reader<'_>) -> Result<i64, CodecError> {
    let value = read(reader)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back_and_fill_their_bytes(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put_signed(&mut bytes, signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read(&mut reader).unwrap(), value);
            prop_assert_eq!(read_signed(&mut reader).unwrap(), signed);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn what_is_accepted_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = read(&mut reader) {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }
}
