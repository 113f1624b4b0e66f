//! Figures for people: counts, sizes, stretches of time.

/// A count: 1,234,567.
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A count with its noun.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Bytes.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    indicatif::BinaryBytes(bytes).to_string()
}

/// A stretch of time: its largest unit, and the next one where that says more.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.50 KiB");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        for (millis, text) in [
            (0, "0 ms"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(millis), text);
        }
        assert_eq!(counted(1_234_567, "entry", "entries"), "1,234,567 entries");
    }
}
