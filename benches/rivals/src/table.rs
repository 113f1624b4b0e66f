//! Tables: markdown for people, CSV for programs.

use std::path::Path;

use crate::error::RivalsError;

/// A cell: what people read, and the exact figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    shown: String,
    exact: String,
}

impl Cell {
    /// Text that stands for itself.
    pub(crate) fn text(text: impl ToString) -> Self {
        Self { shown: text.to_string(), exact: text.to_string() }
    }

    /// Nothing to say, for a reason.
    pub(crate) fn none(why: &str) -> Self {
        Self { shown: why.to_owned(), exact: String::new() }
    }

    /// A whole number, with separators for people.
    pub(crate) fn count(number: u64) -> Self {
        let digits = number.to_string();
        let mut shown = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        Self { shown, exact: digits }
    }

    /// Nanoseconds, in the unit that suits people.
    pub(crate) fn nanos(nanos: f64) -> Self {
        let shown = match nanos {
            ..1e3 => format!("{nanos:.0} ns"),
            ..1e6 => format!("{:.3} µs", three_digits(nanos / 1e3)),
            ..1e9 => format!("{:.3} ms", three_digits(nanos / 1e6)),
            _ => format!("{:.3} s", three_digits(nanos / 1e9)),
        };
        Self { shown: trimmed(&shown), exact: format!("{nanos:.0}") }
    }

    /// How many times as much.
    pub(crate) fn ratio(ratio: f64) -> Self {
        if !ratio.is_finite() {
            return Self::none("-");
        }
        Self { shown: trimmed(&format!("{:.3} x", three_digits(ratio))), exact: ratio.to_string() }
    }
}

/// Rounded to three digits that matter.
fn three_digits(number: f64) -> f64 {
    if number <= 0.0 {
        return number;
    }
    let unit = 10f64.powi(2 - number.log10().floor() as i32);
    (number * unit).round() / unit
}

/// Without zeros at the end of the fraction.
fn trimmed(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number} {unit}")
}

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    heads: Vec<&'static str>,
    hidden: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(name: &'static str, heads: &[&'static str]) -> Self {
        Self { name, heads: heads.to_vec(), hidden: Vec::new(), rows: Vec::new() }
    }

    /// The same, with columns that only programs get to see.
    pub(crate) fn hiding(self, hidden: &[&'static str]) -> Self {
        Self { hidden: hidden.to_vec(), ..self }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.heads.len());
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let shown: Vec<bool> = self.heads.iter().map(|head| !self.hidden.contains(head)).collect();
        let pick = |cells: &mut dyn Iterator<Item = &'_ str>| -> String {
            line(cells.zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell).collect())
        };
        let mut text = pick(&mut self.heads.iter().copied());
        text.push_str(&pick(&mut self.heads.iter().map(|_| "---")).replace(' ', ""));
        for row in &self.rows {
            text.push_str(&pick(&mut row.iter().map(|cell| cell.shown.as_str())));
        }
        text
    }

    pub(crate) fn csv(&self) -> String {
        let quoted = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let mut text = String::new();
        text.push_str(&self.heads.iter().map(|head| quoted(head)).collect::<Vec<_>>().join(","));
        for row in &self.rows {
            text.push('\n');
            let row: Vec<_> = row.iter().map(|cell| quoted(&cell.exact)).collect();
            text.push_str(&row.join(","));
        }
        text.push('\n');
        text
    }

    /// Prints the table, and writes `NAME.csv` into the folder if there is one.
    pub(crate) fn give(&self, out: Option<&Path>) -> Result<(), RivalsError> {
        println!("{}", self.markdown());
        let Some(folder) = out else { return Ok(()) };
        let path = folder.join(format!("{}.csv", self.name));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, self.csv()))
            .map_err(RivalsError::io(format!("writing {}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_rounded_figures_and_programs_exact_ones() {
        let mut table = Table::new("t", &["who", "bytes", "time", "ratio"]);
        let row = [Cell::text("a, b"), Cell::count(1_234_567), Cell::nanos(1_234.6)];
        table.push(row.into_iter().chain([Cell::ratio(0.5)]).collect());
        let last = table.markdown().lines().last().map(str::to_owned);
        assert_eq!(last.as_deref(), Some("| a, b | 1,234,567 | 1.23 µs | 0.5 x |"));
        assert_eq!(table.csv(), "who,bytes,time,ratio\n\"a, b\",1234567,1235,0.5\n");
    }

    #[test]
    fn times_have_units_that_suit() {
        let shown = |nanos| Cell::nanos(nanos).shown;
        assert_eq!(shown(12.0), "12 ns");
        assert_eq!(shown(100_000.0), "100 µs");
        assert_eq!(shown(20_000_000.0), "20 ms");
        assert_eq!(shown(1_500_000_000.0), "1.5 s");
        assert_eq!(Cell::ratio(f64::NAN).shown, "-");
        assert_eq!(Cell::count(100).shown, "100");
    }
}
