//! What finding costs against what differs, drawn: one picture for each number of entries.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoLogRange as _, LineSeries,
    Palette as _, Palette99, PathElement, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::account::limit_bytes;
use crate::error::RivalsError;

const SIZE: (u32, u32) = (900, 600);
const FONT: (&str, u32) = ("sans-serif", 16);
/// A point is wide enough to be seen where lines cross.
const DOT: u32 = 3;

/// Points of one way: ids that differ, and bytes that finding them took.
type Points = Vec<(f64, f64)>;

/// Figures to draw, by number of entries and by way, in the order of the ways.
#[derive(Debug, Default)]
pub(super) struct Plots(BTreeMap<usize, Vec<(&'static str, Points)>>);

impl Plots {
    /// Takes note of a figure. That nothing differs has no place on a logarithmic axis.
    pub(super) fn add(&mut self, n: usize, way: &'static str, ids: u64, bytes: u64) {
        if ids == 0 || bytes == 0 {
            return;
        }
        let ways = self.0.entry(n).or_default();
        let at = ways.iter().position(|(label, _)| *label == way).unwrap_or_else(|| {
            ways.push((way, Points::new()));
            ways.len() - 1
        });
        ways[at].1.push((ids as f64, bytes as f64));
    }

    /// Writes `find-N.svg` for each number of entries into a folder.
    pub(super) fn give(&self, folder: &Path) -> Result<(), RivalsError> {
        for (n, ways) in &self.0 {
            let mut svg = String::new();
            draw(*n, ways, &mut svg)
                .map_err(|error| RivalsError::wrong("plotters", format!("{error}")))?;
            let path = folder.join(format!("find-{n}.svg"));
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, svg))
                .map_err(RivalsError::io(format!("writing {}", path.display())))?;
        }
        Ok(())
    }
}

/// Both axes logarithmic; the limit as a dark line.
fn draw(
    n: usize,
    ways: &[(&'static str, Points)],
    svg: &mut String,
) -> Result<(), impl Display + use<>> {
    let all = || ways.iter().flat_map(|(_, points)| points.iter().copied());
    let most_ids = all().map(|(ids, _)| ids).fold(10.0, f64::max);
    let most_bytes = all().map(|(_, bytes)| bytes).fold(100.0, f64::max);
    let mut limit = Points::new();
    let mut ids = 1.0;
    while ids < most_ids {
        limit.push((ids, limit_bytes(ids as u64)));
        ids *= 2.0;
    }
    limit.push((most_ids, limit_bytes(most_ids as u64)));

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{n} entries: bytes to find what differs"), FONT)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d((1.0..most_ids).log_scale(), (8.0..most_bytes * 1.5).log_scale())?;
    chart.configure_mesh().x_desc("ids that differ").y_desc("bytes, both ways").draw()?;
    chart
        .draw_series(LineSeries::new(limit, BLACK.stroke_width(2)))?
        .label("limit for ids of 64 bits")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK));
    for (at, (label, points)) in ways.iter().enumerate() {
        let colour = Palette99::pick(at).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour))?
            .label(*label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        chart.draw_series(points.iter().map(|at| Circle::new(*at, DOT, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_every_way_and_both_axes() -> Result<(), RivalsError> {
        let folder = tempfile::tempdir().map_err(RivalsError::io("a folder"))?;
        let mut plots = Plots::default();
        for (ids, bytes) in [(0, 130), (2, 400), (200, 40_000)] {
            plots.add(1_000, "one way", ids, bytes);
            plots.add(1_000, "another", ids, 2 * bytes);
        }
        plots.add(77, "one way", 5, 70);
        plots.give(folder.path())?;
        let read =
            |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let svg = read("find-1000.svg");
        for words in ["1000 entries", "one way", "another", "ids that differ", "limit for ids"] {
            assert!(svg.contains(words), "{words}");
        }
        assert_eq!(svg.matches("<circle").count(), 4, "nothing differs: no point");
        assert!(read("find-77.svg").starts_with("<svg"));
        Ok(())
    }
}
