//! Results as drawings.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use crate::{
    cost::Outcome,
    latency::{self, micros},
    report::Report,
    table::title,
};

/// Pixels.
const SIZE: (u32, u32) = (900, 480);
/// Points of a curve.
const POINTS: usize = 1000;

/// Draws what was measured into a directory, which is made if it is not there.
pub(crate) fn draw(report: &Report, directory: &Path) -> Result<()> {
    let made = fs::create_dir_all(directory);
    made.with_context(|| format!("cannot make the directory {}", directory.display()))?;
    for (number, (name, outcome)) in report.costs.iter().enumerate() {
        let file = directory.join(format!("{number:02}-{name}.svg"));
        costs(outcome, &file).map_err(|error| failed(&file, &*error))?;
    }
    for (number, (options, rows)) in report.latencies.iter().enumerate() {
        let file = directory.join(format!("{number:02}-delay.svg"));
        delays(options, rows, &file).map_err(|error| failed(&file, &*error))?;
    }
    Ok(())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn failed(file: &Path, error: &dyn std::error::Error) -> anyhow::Error {
    anyhow!("cannot draw {}: {error}", file.display())
}

/// A bar for each variant, from least to most with the median in between.
fn costs(outcome: &Outcome, file: &Path) -> Drawn {
    let measured = outcome.rows.iter();
    let bars: Vec<_> = measured
        .filter_map(|row| Some((row, row.cost().ok()?)))
        .collect();
    let Some((first, _)) = bars.first() else {
        return Ok(());
    };
    let most = bars.iter().map(|(_, cost)| cost.most).fold(0.0, f64::max);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let count = i32::try_from(bars.len())?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title(&first.entry.scene), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..most * 1.1, (0..count - 1).into_segmented())?;
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(place) => usize::try_from(count - 1 - place)
            .ok()
            .and_then(|place| bars.get(place))
            .map(|(row, _)| row.entry.variant.to_string())
            .unwrap_or_default(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .x_desc("µs a frame")
        .draw()?;
    for (place, (row, cost)) in (0..count).rev().zip(&bars) {
        let color = if row.lost() > 0 {
            RED.mix(0.4)
        } else {
            BLUE.mix(0.5)
        };
        let [bottom, top] = [place, place + 1].map(SegmentValue::Exact);
        let mut bar = Rectangle::new([(0.0, bottom), (cost.median, top)], color.filled());
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series([bar])?;
        let middle = SegmentValue::CenterOf(place);
        chart.draw_series(LineSeries::new(
            [(cost.least, middle.clone()), (cost.most, middle)],
            BLACK.stroke_width(2),
        ))?;
    }
    Ok(area.present()?)
}

/// For each variant, which part of frames arrived within which time.
fn delays(options: &latency::Options, rows: &[latency::Row], file: &Path) -> Drawn {
    let curves = rows.iter().filter_map(|row| {
        let delays = row
            .delays
            .as_ref()
            .ok()
            .filter(|delays| !delays.is_empty())?;
        Some((row.variant.to_string(), delays))
    });
    let curves: Vec<_> = curves.collect();
    let most = curves
        .iter()
        .map(|(_, delays)| micros(latency::at(delays, 999)));
    let most = most.fold(1.0, f64::max);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let caption = format!(
        "1 → {}, {} frames a second",
        options.fan_out(),
        options.rate()
    );
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(50)
        .build_cartesian_2d((0.5..most * 1.1).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("µs from the sender's call to the receiver's link")
        .y_desc("part of the copies")
        .draw()?;
    for (number, (name, delays)) in curves.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let points = (0..=POINTS).map(|part| {
            let share = f64::from(u32::try_from(part).unwrap_or_default()) / 1000.0;
            (micros(latency::at(delays, part)).max(0.5), share)
        });
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .position(SeriesLabelPosition::LowerRight)
        .draw()?;
    Ok(area.present()?)
}
