//! What was measured, as a picture: one panel of bars for each number of accounts and way of drawing them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::page::{self, Measured, NAMES, count, drawn};

/// Told apart on white, one for each system of [`NAMES`].
const COLOURS: [&str; 4] = ["#0068b0", "#c8480a", "#00805c", "#7a5c00"];

const BAR: f64 = 34.0;
const GAP: f64 = 26.0;
/// The height of the highest bar.
const HEIGHT: f64 = 150.0;
const MARGIN: f64 = 20.0;
/// From one panel to the next: bars, numbers above them, names below, a title.
const PANEL: f64 = HEIGHT + 80.0;
/// Where the first panel begins, below title and legend.
const TOP: f64 = 66.0;

const STYLE: &str = "\
text { font-family: sans-serif; font-size: 11px; fill: #222222 }
.title { font-size: 15px; font-weight: bold }
.panel { font-size: 12px; font-weight: bold }
.mid { text-anchor: middle }
.small { font-size: 9px; text-anchor: middle; fill: #555555 }
.axis { stroke: #999999; stroke-width: 1 }
";

/// The picture.
pub(super) fn svg(results: &Value) -> String {
    let measured = Measured::of(results);
    let mut text = String::new();
    // Writing to a text does not fail.
    _ = draw(&mut text, &measured, page::work(results));
    text
}

fn draw(out: &mut String, measured: &Measured<'_>, work: &str) -> std::fmt::Result {
    let there = |name: &str| measured.cells.values().any(|systems| systems.contains_key(name));
    let systems: Vec<_> = NAMES
        .iter()
        .zip(COLOURS)
        .filter(|((name, _), _)| there(name))
        .map(|((name, called), colour)| (*name, *called, colour))
        .collect();
    let panels: BTreeSet<(u64, u64)> = measured.cells.keys().map(|load| (load.0, load.1)).collect();
    let clients: BTreeSet<u64> = measured.cells.keys().map(|load| load.2).collect();
    let rate = |load, name: &str| measured.figure(load, name, "calls_per_second");
    let highest = measured.cells.keys().flat_map(|load| systems.iter().filter_map(|(name, _, _)| rate(*load, name)));
    let highest = highest.fold(1.0, f64::max);

    let group = BAR * systems.len() as f64 + GAP;
    let width = (MARGIN * 2.0 + group * clients.len() as f64).max(560.0);
    let height = TOP + PANEL * panels.len() as f64;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    )?;
    writeln!(out, "<title>{work} a second</title>\n<style>\n{STYLE}</style>")?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
    writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"26\">{work} a second, by the number of clients</text>")?;
    for (place, (_, called, colour)) in systems.iter().enumerate() {
        let x = MARGIN + 110.0 * place as f64;
        writeln!(out, "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{colour}\"/>")?;
        writeln!(out, "<text x=\"{}\" y=\"48\">{called}</text>", x + 17.0)?;
    }
    for (place, (accounts, zipf)) in panels.iter().enumerate() {
        let top = TOP + PANEL * place as f64;
        let bottom = top + 36.0 + HEIGHT;
        let title = format!(
            "{} accounts, drawn {}",
            count(Some(*accounts as f64)),
            drawn(*zipf).replace("Zipf", "by Zipf's law,")
        );
        writeln!(out, "<text class=\"panel\" x=\"{MARGIN}\" y=\"{}\">{title}</text>", top + 14.0)?;
        writeln!(
            out,
            "<line class=\"axis\" x1=\"{MARGIN}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\"/>",
            width - MARGIN
        )?;
        for (column, clients) in clients.iter().enumerate() {
            let left = MARGIN + GAP / 2.0 + group * column as f64;
            let middle = left + (group - GAP) / 2.0;
            let unit = if *clients == 1 { "client" } else { "clients" };
            writeln!(out, "<text class=\"mid\" x=\"{middle:.1}\" y=\"{:.1}\">{clients} {unit}</text>", bottom + 16.0)?;
            for (bar, (name, _, colour)) in systems.iter().enumerate() {
                let Some(rate) = rate((*accounts, *zipf, *clients), name) else { continue };
                let (x, high) = (left + BAR * bar as f64, HEIGHT * rate / highest);
                let y = bottom - high;
                writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{high:.1}\" fill=\"{colour}\"/>",
                    BAR - 3.0
                )?;
                let middle = x + (BAR - 3.0) / 2.0;
                writeln!(
                    out,
                    "<text class=\"small\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
                    y - 3.0,
                    count(Some(rate))
                )?;
            }
        }
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Catches bars that are not in proportion, and one of a floor, beside which all others would vanish.
    #[test]
    fn bars_are_in_proportion() {
        let cell = |system: &str, rate: f64| json!({"system": system, "accounts": 10, "zipf": 0.0, "clients": 1, "median": {"calls_per_second": rate}});
        let svg = svg(&json!({"cells": [cell("quorate", 200.0), cell("etcd", 50.0), cell("echo", 9000.0)]}));
        assert!(svg.contains("height=\"150.0\" fill=\"#0068b0\""), "{svg}");
        assert!(svg.contains("height=\"37.5\" fill=\"#c8480a\""), "{svg}");
        assert!(!svg.contains("9,000") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
