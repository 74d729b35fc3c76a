//! The shapes as SVG text.
//!
//! Plain shapes and a style sheet, no scripts, generic fonts, a background of its own. All that
//! comes from a run goes through [`clean`].

use std::fmt::Write as _;

use protocol::Ballot;

use super::layout::{Arrow, Client, Drawing, End, Mark, Segment, Sign, Span, Text};
use crate::words::Device;

/// Colours that are told apart on white, for ballots in order.
const COLOURS: [&str; 8] = ["#0068b0", "#c8480a", "#00805c", "#a8327f", "#7a5c00", "#5b3fb0", "#00738a", "#8c2d04"];
/// The colour of what belongs to no ballot.
const PLAIN: &str = "#444444";

/// How wide a character is, in thousandths of a pixel, about.
const CHARACTER: i64 = 6_000;
/// The widest column of text beside the lanes, in characters.
const COLUMN_MAX: usize = 64;
/// The longest remark, in characters.
const REMARK_MAX: usize = 40;
/// The longest title of a shape, in characters.
const TITLE_MAX: usize = 600;
/// Of an arrow longer than this, in pixels downwards, only the ends are drawn.
const LONG: i64 = 400;
/// Names of the lanes are repeated after so many pixels.
const NAMES_AGAIN: i64 = 1_000;
/// Where the first row is.
const TOP: i64 = 96;
const MARGIN: i64 = 16;

const STYLE: &str = "\
text { font-family: sans-serif; font-size: 11px; fill: #222222; paint-order: stroke; stroke: #ffffff; \
stroke-width: 4px; stroke-linejoin: round }
.title { font-size: 16px; font-weight: bold }
.name { font-size: 15px; font-weight: bold; text-anchor: middle }
.end { text-anchor: end }
.small { font-size: 10px; fill: #555555 }
.bad { fill: #b00020 }
.lane { stroke: #999999; stroke-width: 1.2 }
.down { stroke-dasharray: 2 5 }
.leads { stroke-width: 6; stroke-linecap: butt }
.arrow { fill: none; stroke-width: 1.3 }
.way { stroke-dasharray: 3 3 }
.cross { stroke: #b00020; stroke-width: 2; fill: none }
.ask { stroke: #999999; stroke-width: 1; stroke-dasharray: 1 3; fill: none }
.span { fill: #b00020; fill-opacity: 0.07 }
";

/// A drawing with the measures of its columns.
struct Sheet<'a> {
    drawing: &'a Drawing,
    /// Where remarks end.
    remarks: i64,
    /// Where the first lane is.
    left: i64,
    /// From one lane to the next.
    gap: i64,
    width: i64,
    height: i64,
}

pub(super) fn svg(drawing: &Drawing) -> String {
    let sheet = Sheet::new(drawing);
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = sheet.write(&mut text);
    text
}

impl<'a> Sheet<'a> {
    fn new(drawing: &'a Drawing) -> Self {
        let column = |texts: &mut dyn Iterator<Item = &String>, most: usize| {
            wide(texts.map(|text| text.chars().count()).max().unwrap_or(0).min(most))
        };
        let gap = match drawing.lanes.len() {
            0..=3 => 270,
            4 | 5 => 210,
            _ => 180,
        };
        let times = column(&mut drawing.times.iter().map(|time| &time.text), COLUMN_MAX);
        let remarks = column(&mut drawing.remarks.iter().map(|remark| &remark.text), REMARK_MAX);
        let clients = column(&mut drawing.clients.iter().map(|client| &client.text), COLUMN_MAX);
        let remarks = MARGIN + remarks;
        let left = remarks + times + 50;
        let last = left + gap * count(drawing.lanes.len().saturating_sub(1));
        let width = (last + 50 + clients + MARGIN).max(560);
        Self { drawing, remarks, left, gap, width, height: TOP + drawing.bottom + 40 }
    }

    fn x(&self, lane: usize) -> i64 {
        self.left + self.gap * count(lane)
    }

    fn last_lane(&self) -> usize {
        self.drawing.lanes.len().saturating_sub(1)
    }

    fn colour(&self, ballot: Option<Ballot>) -> usize {
        let place = ballot.and_then(|ballot| self.drawing.ballots.iter().position(|other| *other == ballot));
        place.map_or(COLOURS.len(), |place| place % COLOURS.len())
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { drawing, width, height, .. } = self;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">"
        )?;
        writeln!(out, "<title>{}</title>", clean(&drawing.title, TITLE_MAX))?;
        writeln!(out, "<style>\n{STYLE}</style>")?;
        self.heads(out)?;
        writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
        drawing.spans.iter().try_for_each(|span| self.span(out, span))?;
        drawing.segments.iter().try_for_each(|segment| self.segment(out, segment))?;
        drawing.clients.iter().try_for_each(|client| self.client(out, client))?;
        drawing.arrows.iter().try_for_each(|arrow| self.arrow(out, arrow))?;
        drawing.marks.iter().try_for_each(|mark| self.mark(out, mark))?;
        // Labels last: nothing is drawn over them.
        drawing.arrows.iter().try_for_each(|arrow| self.label(out, arrow))?;
        let end = self.left - 40;
        for Text { y, text } in &drawing.times {
            writeln!(out, "<text class=\"small end\" x=\"{end}\" y=\"{}\">{}</text>", TOP + y + 3, clean(text, 20))?;
        }
        for Text { y, text } in &drawing.remarks {
            let (end, y) = (self.remarks, TOP + y + 3);
            let (text, title) = (clean(text, REMARK_MAX), clean(text, TITLE_MAX));
            writeln!(out, "<text class=\"end\" x=\"{end}\" y=\"{y}\">{text}<title>{title}</title></text>")?;
        }
        self.header(out)?;
        self.names(out)?;
        out.write_str("</svg>\n")
    }

    /// The heads of arrows: one of each colour.
    #[expect(clippy::unused_self, reason = "a part of the sheet like all others")]
    fn heads(&self, out: &mut String) -> std::fmt::Result {
        out.write_str("<defs>\n")?;
        for (index, colour) in COLOURS.iter().chain([&PLAIN]).enumerate() {
            writeln!(
                out,
                "<marker id=\"head{index}\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"9\" \
                 markerHeight=\"7\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
                 <path d=\"M0 1L10 5L0 9z\" fill=\"{colour}\"/></marker>"
            )?;
        }
        out.write_str("</defs>\n")
    }

    fn header(&self, out: &mut String) -> std::fmt::Result {
        let drawing = self.drawing;
        let title = clean(&drawing.title, 120);
        writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"24\">{title}</text>")?;
        let legend = "Thick lane: leads. Dashed lane: down. Dot: command applied. Cross: message lost. \
                      Time runs down.";
        writeln!(out, "<text class=\"small\" x=\"{MARGIN}\" y=\"42\">{legend}</text>")?;
        let mut x = MARGIN;
        for ballot in drawing.ballots.iter().take(12) {
            let (colour, text) = (shade(self.colour(Some(*ballot))), format!("ballot {ballot}"));
            writeln!(out, "<text x=\"{x}\" y=\"60\" style=\"fill: {colour}; font-weight: bold\">{text}</text>")?;
            x += wide(text.len()) + 16;
        }
        if drawing.dropped > 0 {
            let text = format!("Cut: {} earlier events are not shown.", drawing.dropped);
            writeln!(out, "<text class=\"bad\" x=\"{}\" y=\"60\">{text}</text>", x)?;
        }
        Ok(())
    }

    fn names(&self, out: &mut String) -> std::fmt::Result {
        for (lane, node) in self.drawing.lanes.iter().enumerate() {
            let x = self.x(lane);
            let again = (1..self.drawing.bottom / NAMES_AGAIN).map(|time| TOP + time * NAMES_AGAIN);
            for y in [TOP - 12].into_iter().chain(again).chain([TOP + self.drawing.bottom + 22]) {
                writeln!(out, "<text class=\"name\" x=\"{x}\" y=\"{y}\">{}</text>", Device(*node))?;
            }
        }
        Ok(())
    }

    fn span(&self, out: &mut String, span: &Span) -> std::fmt::Result {
        let until = span.until.unwrap_or(self.drawing.bottom);
        let (x, width) = (self.left - 24, self.gap * count(self.last_lane()) + 48);
        let (y, height, title) = (TOP + span.from, until - span.from, clean(&span.title, TITLE_MAX));
        writeln!(
            out,
            "<rect class=\"span\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{title}</title></rect>"
        )
    }

    fn segment(&self, out: &mut String, segment: &Segment) -> std::fmt::Result {
        let (x, from, until) = (self.x(segment.lane), TOP + segment.from, TOP + segment.until);
        let class = if segment.look.up { "lane" } else { "lane down" };
        writeln!(out, "<line class=\"{class}\" x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{until}\"/>")?;
        let Some(ballot) = segment.look.leads else { return Ok(()) };
        let colour = shade(self.colour(Some(ballot)));
        writeln!(
            out,
            "<line class=\"leads\" style=\"stroke: {colour}\" x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{until}\">\
             <title>leads {ballot}</title></line>"
        )
    }

    fn client(&self, out: &mut String, client: &Client) -> std::fmt::Result {
        let (x, y) = (self.x(self.last_lane()) + 40, TOP + client.y);
        if let Some(lane) = client.lane {
            let (from, to) = (x - 4, self.x(lane));
            writeln!(out, "<path class=\"ask\" d=\"M{from} {y}H{to}\"/>")?;
            let fill = if client.asks { "#ffffff" } else { PLAIN };
            writeln!(out, "<circle cx=\"{to}\" cy=\"{y}\" r=\"3\" fill=\"{fill}\" stroke=\"{PLAIN}\"/>")?;
        }
        let (y, text, title) = (y + 4, clean(&client.text, COLUMN_MAX), clean(&client.title, TITLE_MAX));
        writeln!(out, "<text x=\"{x}\" y=\"{y}\">{text}<title>{title}</title></text>")
    }

    fn arrow(&self, out: &mut String, arrow: &Arrow) -> std::fmt::Result {
        let (from, to) = (self.x(arrow.from), self.x(arrow.to));
        let (stub, lost) = ((to - from) / 8, (to - from) * 7 / 10);
        let leaves = arrow.left.map(|y| (from, y));
        let ends = match arrow.end {
            End::Arrives(y) => Some((to, y)),
            End::Lost(y) => Some((from + lost, y)),
            End::UnderWay => None,
        };
        match (leaves, ends) {
            (Some(begin), Some(end)) if end.1 - begin.1 <= LONG => self.line(out, arrow, begin, end, true)?,
            (leaves, ends) => {
                if let Some((x, y)) = leaves {
                    self.line(out, arrow, (x, y), (x + stub, y + 4), false)?;
                }
                if let Some((x, y)) = ends {
                    self.line(out, arrow, (x - stub, y - 6), (x, y), false)?;
                }
            }
        }
        if let (End::Lost(_), Some((x, y))) = (arrow.end, ends) {
            let (left, right, above, below) = (x - 4, x + 4, TOP + y - 4, TOP + y + 4);
            let title = clean(&arrow.title, TITLE_MAX);
            writeln!(
                out,
                "<path class=\"cross\" d=\"M{left} {above}L{right} {below}M{right} {above}L{left} {below}\">\
                 <title>lost: {title}</title></path>"
            )?;
        }
        Ok(())
    }

    /// All of an arrow, or one of its ends.
    fn line(
        &self,
        out: &mut String,
        arrow: &Arrow,
        begin: (i64, i64),
        end: (i64, i64),
        is_whole: bool,
    ) -> std::fmt::Result {
        let colour = self.colour(arrow.ballot);
        let class = if is_whole { "arrow" } else { "arrow way" };
        let head = match arrow.end {
            End::Lost(_) => String::new(),
            End::Arrives(_) | End::UnderWay => format!(" marker-end=\"url(#head{colour})\""),
        };
        let ((x1, y1), (x2, y2)) = (begin, end);
        let (y1, y2, stroke, title) = (TOP + y1, TOP + y2, shade(colour), clean(&arrow.title, TITLE_MAX));
        writeln!(
            out,
            "<path class=\"{class}\" style=\"stroke: {stroke}\" d=\"M{x1} {y1}L{x2} {y2}\"{head}><title>{title}</title></path>"
        )
    }

    fn label(&self, out: &mut String, arrow: &Arrow) -> std::fmt::Result {
        let Some(y) = arrow.left.filter(|_| !arrow.label.is_empty()) else { return Ok(()) };
        let mut text = arrow.label.clone();
        if arrow.copies > 1 {
            let _ = write!(text, " ({} times)", arrow.copies);
        }
        let (x, y) = (self.x(arrow.from), TOP + y - 3);
        let (x, class, room) = if arrow.to > arrow.from {
            (x + 7, "", self.x(self.last_lane()) - x)
        } else {
            (x - 7, " class=\"end\"", x - self.x(0))
        };
        let fits = usize::try_from((room - 14) * 1000 / CHARACTER).unwrap_or(0);
        let (colour, title) = (shade(self.colour(arrow.ballot)), clean(&arrow.title, TITLE_MAX));
        let text = clean(&text, fits);
        writeln!(out, "<text{class} x=\"{x}\" y=\"{y}\" style=\"fill: {colour}\">{text}<title>{title}</title></text>")
    }

    fn mark(&self, out: &mut String, mark: &Mark) -> std::fmt::Result {
        let (x, y) = (self.x(mark.lane), TOP + mark.y);
        let (text, title) = (clean(&mark.text, COLUMN_MAX), clean(&mark.title, TITLE_MAX));
        let shape = match mark.sign {
            Sign::Applied => format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"4.5\" fill=\"#222222\"/>"),
            Sign::Leads(_) => String::new(),
            Sign::Down => format!("<path class=\"cross\" d=\"M{} {}l14 14m0 -14l-14 14\"/>", x - 7, y - 7),
            Sign::Up => format!("<path d=\"M{} {y}h16l-8 9z\" fill=\"#00805c\"/>", x - 8),
            Sign::Fault => format!("<path d=\"M{x} {}l6 6l-6 6l-6 -6z\" fill=\"#e08a00\"/>", y - 6),
        };
        let (class, style) = match mark.sign {
            Sign::Applied => ("", "font-weight: bold".to_owned()),
            Sign::Leads(ballot) => ("", format!("font-weight: bold; fill: {}", shade(self.colour(ballot)))),
            Sign::Down | Sign::Fault => ("bad", String::new()),
            Sign::Up => ("", String::new()),
        };
        let (x, y) = (x + 11, y + 4);
        writeln!(
            out,
            "<g>{shape}<text class=\"{class}\" style=\"{style}\" x=\"{x}\" y=\"{y}\">{text}</text><title>{title}</title></g>"
        )
    }
}

fn shade(colour: usize) -> &'static str {
    COLOURS.get(colour).unwrap_or(&PLAIN)
}

fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX / 1_000)
}

/// How wide so many characters are.
fn wide(characters: usize) -> i64 {
    count(characters) * CHARACTER / 1_000
}

/// A text of at most so many characters that stands for nothing but itself in SVG.
fn clean(text: &str, length: usize) -> String {
    let mut clean = String::new();
    let mut characters = text.chars();
    for character in characters.by_ref().take(length) {
        match character {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            // XML allows no other control characters, and these two would break a line.
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => clean.push(' '),
            character => clean.push(character),
        }
    }
    if characters.next().is_some() {
        clean.push('…');
    }
    clean
}
