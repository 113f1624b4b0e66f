//! How the demo speaks: sentences and tables to people, one JSON object a line to programs.

use std::cell::Cell as Flag;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::DemoError;
use crate::node::Watch;
use crate::session::Session;

const INDENT: &str = "  ";
const WIDTHS: (u16, u16) = (60, 96);
const STYLE: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .row_separator(LineStyle::none());

/// Prints.
pub(super) struct Voice {
    json: bool,
    bold: bool,
    width: usize,
    /// Whether the last line is empty.
    apart: Flag<bool>,
}

impl Voice {
    pub(super) fn new(json: bool) -> Self {
        let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = Table::new().width().unwrap_or(80).clamp(WIDTHS.0, WIDTHS.1);
        Self { json, bold, width: usize::from(width), apart: Flag::new(true) }
    }

    /// The title of an act.
    pub(super) fn title(&self, text: &str) -> Result<(), DemoError> {
        let text = if self.bold { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
        self.space()?;
        self.print(&format!("{text}\n\n"))?;
        self.apart.set(true);
        Ok(())
    }

    /// A paragraph.
    pub(super) fn say(&self, text: &str) -> Result<(), DemoError> {
        let mut lines = String::new();
        for line in wrapped(text, self.width - INDENT.len()) {
            lines.push_str(&format!("{INDENT}{line}\n"));
        }
        self.print(&lines)
    }

    /// Lines as they are: commands, lists.
    pub(super) fn lines(&self, lines: &[String]) -> Result<(), DemoError> {
        let text: String = lines.iter().map(|line| format!("{INDENT}{line}\n")).collect();
        self.print(&text)
    }

    /// A word at the left, and what there is to say of it.
    pub(super) fn fact(&self, label: &str, text: &str) -> Result<(), DemoError> {
        const LABEL: usize = 12;
        let mut lines = String::new();
        for (at, line) in wrapped(text, self.width - INDENT.len() - LABEL).iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            lines.push_str(&format!("{INDENT}{label:<LABEL$}{line}\n"));
        }
        self.print(&lines)
    }

    /// An empty line, unless there is one.
    pub(super) fn space(&self) -> Result<(), DemoError> {
        if !self.apart.get() {
            self.print("\n")?;
        }
        self.apart.set(true);
        Ok(())
    }

    pub(super) fn table(&self, table: &Table) -> Result<(), DemoError> {
        let lines: String = table.lines().map(|line| format!(" {}\n", line.trim_end())).collect();
        self.print(&lines)
    }

    fn print(&self, text: &str) -> Result<(), DemoError> {
        if self.json {
            return Ok(());
        }
        self.apart.set(false);
        std::io::stdout().write_all(text.as_bytes()).map_err(DemoError::Output)
    }

    /// One line of JSON, if that was asked for.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), DemoError> {
        if !self.json {
            return Ok(());
        }
        let mut line =
            serde_json::to_vec(value).map_err(|error| DemoError::Output(error.into()))?;
        line.push(b'\n');
        std::io::stdout().write_all(&line).map_err(DemoError::Output)
    }

    /// A line that moves while something takes its time: on a terminal only.
    pub(super) fn working(&self, what: String) -> Working {
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let style = ProgressStyle::with_template("  {spinner} {prefix} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Working(bar)
    }
}

/// Says what is going on, until it is dropped.
pub(super) struct Working(ProgressBar);

impl Working {
    pub(super) fn at(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Watch for Working {
    fn progress(&self, session: &Session) {
        let (sent, received) = session.stats().bytes();
        let phase = session.phase();
        self.at(format!("{phase}, {} out, {} in", size(sent), size(received)));
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A table with figures: all columns but the first are flush right.
pub(super) fn figures(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(header.iter().enumerate().map(|(at, name)| cell(at, name.clone())));
    table
}

/// A cell of such a table.
pub(super) fn cell(column: usize, text: String) -> Cell {
    let side = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
    Cell::new(text).set_alignment(side)
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    BinaryBytes(bytes).to_string()
}

/// A count for people.
pub(super) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A count with its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A time for people.
pub(super) fn time(elapsed: Duration) -> String {
    let millis = elapsed.as_secs_f64() * 1_000.0;
    if millis < 1_000.0 { format!("{millis:.0} ms") } else { format!("{:.2} s", millis / 1_000.0) }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
