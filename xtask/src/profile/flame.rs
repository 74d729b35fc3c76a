//! Folded stacks as a flame graph: a box for each function, as wide as its share of all samples, under the one that
//! called it. The full name and the share stand in its title.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1400.0;
const ROW: f64 = 17.0;
/// Narrower boxes are left out: nobody could see them.
const NARROWEST: f64 = 0.6;
/// How wide a letter is, about.
const LETTER: f64 = 6.2;
/// Told apart from those beside them, no more.
const COLOURS: [&str; 4] = ["#e8a33d", "#e3b75f", "#dd8f3a", "#e6c27f"];

#[derive(Default)]
struct Frame {
    samples: u64,
    callees: BTreeMap<String, Frame>,
}

impl Frame {
    fn depth(&self) -> usize {
        1 + self.callees.values().map(Self::depth).max().unwrap_or(0)
    }
}

/// The picture of lines `thread;outermost;…;innermost COUNT`.
pub(super) fn svg(folded: &str) -> String {
    let mut all = Frame::default();
    for line in folded.lines() {
        let parts = line.rsplit_once(' ').map(|(stack, count)| (stack, count.parse::<u64>()));
        let Some((stack, Ok(samples))) = parts else { continue };
        let mut frame = &mut all;
        frame.samples += samples;
        for function in stack.split(';') {
            frame = frame.callees.entry(function.to_owned()).or_default();
            frame.samples += samples;
        }
    }
    let height = ROW * all.depth() as f64 + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>text {{ font-family: monospace; font-size: 10px; fill: #222222 }} rect {{ stroke: #ffffff }}</style>\n"
    );
    draw(&mut out, "all", &all, (0.0, 0), all.samples.max(1));
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, name: &str, frame: &Frame, (x, row): (f64, usize), all: u64) {
    let share = frame.samples as f64 / all as f64;
    let (width, y) = (WIDTH * share, 5.0 + ROW * row as f64);
    if width < NARROWEST {
        return;
    }
    let colour = COLOURS[name.bytes().map(usize::from).sum::<usize>() % COLOURS.len()];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
    let letters = (width / LETTER) as usize;
    let shown = if letters < 3 { String::new() } else { clean(&name.chars().take(letters).collect::<String>()) };
    // Writing to a text does not fail.
    _ = writeln!(
        out,
        "<g><title>{} ({:.2} %)</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{ROW}\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{}\">{shown}</text></g>",
        clean(name),
        100.0 * share,
        x + 2.0,
        y + 12.0,
    );
    let mut left = x;
    for (callee, frame) in &frame.callees {
        draw(out, callee, frame, (left, row + 1), all);
        left += WIDTH * frame.samples as f64 / all as f64;
    }
}

fn clean(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches boxes that are not as wide as their share, or lie under another caller; names that break the picture.
    #[test]
    fn a_box_is_as_wide_as_its_share() {
        let svg = svg("a;b<T> 3\na;c 1\nd 4\n");
        assert!(svg.contains("<title>all (100.00 %)</title><rect x=\"0.0\" y=\"5\" width=\"1400.0\""), "{svg}");
        assert!(svg.contains("<title>a (50.00 %)</title><rect x=\"0.0\" y=\"22\" width=\"700.0\""), "{svg}");
        assert!(svg.contains("<title>b&lt;T&gt; (37.50 %)</title><rect x=\"0.0\" y=\"39\" width=\"525.0\""), "{svg}");
        assert!(svg.contains("<title>c (12.50 %)</title><rect x=\"525.0\" y=\"39\" width=\"175.0\""), "{svg}");
        assert!(svg.contains("<title>d (50.00 %)</title><rect x=\"700.0\" y=\"22\" width=\"700.0\""), "{svg}");
    }
}
