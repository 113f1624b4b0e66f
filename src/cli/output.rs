//! What is printed: results on standard output, all else on standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::error::CliError;
pub(super) use crate::node::figures::{count, counted, size, span};

/// Standard output, in large writes.
pub(super) struct Output(BufWriter<Stdout>);

impl Output {
    pub(super) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout()))
    }

    pub(super) fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.0, "{text}").map_err(CliError::Output)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).map_err(CliError::Output)
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        serde_json::to_writer(&mut self.0, value)
            .map_err(|error| CliError::Output(error.into()))?;
        self.bytes(b"\n")
    }

    /// Writes what is left; without it a failure would go unseen.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.0.flush().map_err(CliError::Output)
    }
}

/// Prints one text and a line end.
pub(super) fn print(text: impl Display) -> Result<(), CliError> {
    let mut output = Output::new();
    output.line(text)?;
    output.finish()
}

/// Prints one line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut output = Output::new();
    output.json(value)?;
    output.finish()
}

/// Says something beside the result.
pub(super) fn note(text: impl Display) {
    // nobody is left to tell if that fails
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table without lines; the columns with these numbers are flush right.
pub(super) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Milliseconds since 1970 as date and time in UTC (ISO 8601).
pub(super) fn date_time(millis: u64) -> String {
    let (days, of_day) = (millis / 86_400_000, millis % 86_400_000);
    // days since 0000-03-01, in eras of 400 years
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, rest) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{rest:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date_time(seconds * 1_000), text);
        }
        assert!(date_time(u64::MAX >> 16).starts_with("10889-08-02"));
        assert!(!date_time(u64::MAX).is_empty());
    }
}
