// SPDX-License-Identifier: GPL-2.0

//! The chart: a bar for each kind of memory, on a logarithmic scale.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::record::Record;
use crate::report::{MIB, Results, short};

const WIDTH: u32 = 860;
const ROW: u32 = 26;
const OURS: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const THEIRS: RGBColor = RGBColor(0x80, 0x8c, 0x99);

/// Draws the chart, an SVG.
pub fn draw(results: &Results, path: &Path) -> Result<()> {
    let mut records: Vec<_> = results.at(MIB).collect();
    records.sort_by(|a, b| total(a).total_cmp(&total(b)));
    let height = ROW * records.len() as u32 + 110;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    bars(results, &records, &area).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn total(record: &Record) -> f64 {
    record.per_page(record.costs.total())
}

fn bars<B: DrawingBackend>(
    results: &Results,
    records: &[&Record],
    area: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    area.fill(&WHITE)?;
    let title =
        format!("mmap, one read of every page, munmap: instructions per 4 KiB page, {MIB} MiB");
    let machine = &results.machine;
    let subtitle = format!(
        "Linux {}, {}, one CPU; logarithmic; the loop that reads takes 5",
        machine.kernel, machine.cpu
    );
    let area = area.titled(&title, ("sans-serif", 17))?;
    let area = area.titled(&subtitle, ("sans-serif", 12))?;
    let rows = records.len();
    let mut chart = ChartBuilder::on(&area)
        .margin_right(70)
        .margin_bottom(6)
        .x_label_area_size(30)
        .y_label_area_size(210)
        .build_cartesian_2d(
            (1f64..10_000f64).log_scale(),
            (0..rows.saturating_sub(1)).into_segmented(),
        )?;
    let names = |row: &SegmentValue<usize>| match row {
        SegmentValue::CenterOf(row) => records
            .get(*row)
            .map_or_else(String::new, |record| record.peer.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(rows)
        .y_label_formatter(&names)
        .y_label_style(("sans-serif", 13))
        .x_label_formatter(&|cost| format!("{cost}"))
        .draw()?;
    for (row, record) in records.iter().enumerate() {
        let cost = total(record);
        let color = if record.ours { OURS } else { THEIRS };
        let (low, high) = (SegmentValue::Exact(row), SegmentValue::Exact(row + 1));
        let mut bar = Rectangle::new([(1.0, low), (cost, high)], color.filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        chart.draw_series([Text::new(
            short(cost),
            (cost * 1.05, SegmentValue::CenterOf(row)),
            ("sans-serif", 13)
                .into_font()
                .color(&BLACK)
                .into_text_style(&area)
                .pos(plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Left,
                    plotters::style::text_anchor::VPos::Center,
                )),
        )])?;
    }
    area.present()
}
