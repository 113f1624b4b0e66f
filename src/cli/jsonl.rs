//! JSON lines: `{"key" or "key_hex": ..., "value" or "value_hex": ...}`, an entry a line.

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};

use crate::api::types::KeyText;
use crate::types::Key;

/// An entry as it is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    key: KeyText,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

/// An entry as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_hex: Option<String>,
    value: Option<String>,
    value_hex: Option<String>,
}

/// The line of an entry: as text where it is text, else in hex.
pub(super) fn line(key: &Key, value: &[u8]) -> impl Serialize {
    let text = std::str::from_utf8(value).ok();
    let value_hex = if text.is_some() { None } else { Some(hex::encode(value)) };
    Written { key: KeyText::from(key), value: text, value_hex }
}

/// The entry of a line, or what is wrong with it.
pub(super) fn parse(line: &[u8]) -> Result<(Key, Vec<u8>), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        format!("column {}: {what}", error.column())
    })?;
    let key = one_of("key", line.key, line.key_hex)?;
    let key = Key::new(key).map_err(|error| error.to_string())?;
    Ok((key, one_of("value", line.value, line.value_hex)?))
}

fn one_of(name: &str, text: Option<String>, in_hex: Option<String>) -> Result<Vec<u8>, String> {
    match (text, in_hex) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(text)) => {
            hex::decode(text).map_err(|error| format!("{name}_hex is not hex: {error}"))
        }
        _ => Err(format!("it must have either {name} or {name}_hex")),
    }
}

/// A line of input: as long as is allowed, or longer.
pub(super) enum Taken {
    /// The whole line is in the buffer.
    Line,
    /// It was too long, and is passed over.
    TooLong,
    /// There is none left.
    End,
}

/// Reads a line of at most `limit` bytes.
pub(super) fn take_line(
    input: &mut impl BufRead,
    limit: u64,
    line: &mut Vec<u8>,
) -> io::Result<Taken> {
    line.clear();
    if input.by_ref().take(limit.saturating_add(1)).read_until(b'\n', line)? == 0 {
        return Ok(Taken::End);
    }
    if line.ends_with(b"\n") {
        line.pop();
        return Ok(Taken::Line);
    }
    if line.len() as u64 <= limit {
        return Ok(Taken::Line);
    }
    line.clear();
    loop {
        let buffer = input.fill_buf()?;
        let (used, ended) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if ended {
            return Ok(Taken::TooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            key in prop_oneof![any::<Vec<u8>>(), ".{0,40}".prop_map(String::into_bytes)],
            value in prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)],
        ) {
            let Ok(key) = Key::new(key) else { return Ok(()) };
            let line = serde_json::to_vec(&line(&key, &value)).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(parse(&line).unwrap(), (key, value));
        }

        #[test]
        fn no_line_makes_it_fall(line in any::<Vec<u8>>()) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |line: &str| parse(line.as_bytes()).unwrap_err();
        assert!(wrong("{\"key\":\"a\"}").contains("either value or value_hex"));
        assert!(wrong("{\"key\":\"a\",\"key_hex\":\"00\",\"value\":\"\"}").contains("either key"));
        assert!(wrong("{\"key\":\"a\",\"value_hex\":\"0g\"}").contains("value_hex is not hex"));
        assert!(wrong("{\"key\":\"\",\"value\":\"\"}").contains("the key is empty"));
        assert!(wrong("{\"key\":\"a\",\"vlaue\":\"\"}").contains("unknown field"));
        assert!(wrong("{\"key\":").starts_with("column 7: "));
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let mut input = io::BufReader::with_capacity(4, &b"ab\n0123456789\ncd"[..]);
        let mut line = Vec::new();
        assert!(matches!(take_line(&mut input, 4, &mut line).unwrap(), Taken::Line));
        assert_eq!(line, b"ab");
        assert!(matches!(take_line(&mut input, 4, &mut line).unwrap(), Taken::TooLong));
        assert!(matches!(take_line(&mut input, 4, &mut line).unwrap(), Taken::Line));
        assert_eq!(line, b"cd");
        assert!(matches!(take_line(&mut input, 4, &mut line).unwrap(), Taken::End));
    }
}
