//! Pictures of numbers as SVG: one figure is a title and panels below each other, each with its axes; `inspect --plot`,
//! `compare --plot` and `bench layerscale --plot` draw with it.
//!
//! ```text
//! let mut figure = Figure::new("Title", "what was measured, on what");
//! let mut panel = figure.panel("relative error", 240.0, &Axis::bands("block", names), &Axis::log("error", errors));
//! panel.line(Color::Blue, &points);                   // in the axes' own units; a band's middle is its index
//! panel.legend(&[(Color::Blue, "residual stream")]);
//! files::write(path, figure.finish().as_bytes())?;
//! ```
//!
//! Colours follow the reader's light or dark scheme by a media query; programs that do not know it show the light one.
//! Text is text, so that it can be searched and read aloud; every mark with a `title` shows its number under the mouse.

use std::fmt::{Display, Write as _};

use crate::output::shown;

/// Pixels across a figure; a viewer scales it.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
/// Above a panel's frame: its title and legend. Below: tick labels and the axis' label.
const ABOVE: f64 = 44.0;
const BELOW: f64 = 52.0;
const HEADER: f64 = 72.0;

/// Colours of marks, told apart by most colour-blind readers (after Okabe and Ito 2008), legible on white and on black.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Blue,
    Orange,
    Teal,
    Pink,
    Gray,
    /// For errors.
    Red,
}

impl Color {
    fn class(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Orange => "orange",
            Self::Teal => "teal",
            Self::Pink => "pink",
            Self::Gray => "gray",
            Self::Red => "red",
        }
    }
}

const STYLE: &str = "
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#57606a}
.page{fill:#ffffff}.frame{fill:#f6f8fa}.title{font-size:20px;font-weight:600;fill:#1f2328}.name{font-size:14px;font-weight:600;fill:#1f2328}
.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#8c959f;stroke-width:1}.label{font-size:12px;fill:#57606a}.value{font-size:11px;fill:#1f2328}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.blue{fill:#2f6fde}.orange{fill:#d9731a}.teal{fill:#128a76}.pink{fill:#b8478c}.gray{fill:#9aa4af}.red{fill:#cf222e}
.line.blue{fill:none;stroke:#2f6fde}.line.orange{fill:none;stroke:#d9731a}.line.teal{fill:none;stroke:#128a76}
.line.pink{fill:none;stroke:#b8478c}.line.gray{fill:none;stroke:#9aa4af}.line.red{fill:none;stroke:#cf222e}
@media (prefers-color-scheme:dark){
text{fill:#9ea7b3}.page{fill:#0d1117}.frame{fill:#161b22}.title,.name,.value{fill:#e6edf3}.label{fill:#9ea7b3}.grid{stroke:#2b323b}.axis{stroke:#6e7681}
.blue{fill:#6ca2ff}.orange{fill:#f0954a}.teal{fill:#3fbfa8}.pink{fill:#e07db8}.gray{fill:#7d8691}.red{fill:#ff7b72}
.line.blue{stroke:#6ca2ff}.line.orange{stroke:#f0954a}.line.teal{stroke:#3fbfa8}
.line.pink{stroke:#e07db8}.line.gray{stroke:#7d8691}.line.red{stroke:#ff7b72}
}
";

/// One side of a panel: its quantity, its unit, and its range.
#[derive(Clone, Debug)]
pub struct Axis {
    label: String,
    scale: Scale,
}

#[derive(Clone, Debug)]
enum Scale {
    Linear { from: f64, to: f64 },
    Log { from: f64, to: f64 },
    Bands(Vec<String>),
}

impl Axis {
    /// From 0 or below to `to`, widened to whole ticks.
    pub fn linear(label: &str, from: f64, to: f64) -> Self {
        let step = step(from, to);
        let (from, to) = ((from / step).floor() * step, (to / step).ceil() * step);
        Self { label: label.to_string(), scale: Scale::Linear { from, to: if to > from { to } else { from + 1.0 } } }
    }

    /// Whole powers of ten around the positive ones of `values`; 0.1 to 1 if there are none.
    pub fn log(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let positive = values.into_iter().filter(|v| v.is_finite() && *v > 0.0).map(f64::log10);
        let (low, high) = positive.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low > high { (-1.0, 0.0) } else { (low.floor(), high.ceil().max(low.floor() + 1.0)) };
        Self { label: label.to_string(), scale: Scale::Log { from: low, to: high } }
    }

    /// One band for each name; band i is centred on i and one unit wide.
    pub fn bands(label: &str, names: impl IntoIterator<Item = String>) -> Self {
        Self { label: label.to_string(), scale: Scale::Bands(names.into_iter().collect()) }
    }

    /// Where `value` lies between the ends, 0 to 1; what lies outside is put on the nearer end.
    fn place(&self, value: f64) -> f64 {
        let share = match &self.scale {
            Scale::Linear { from, to } => (value - from) / (to - from),
            Scale::Log { from, to } => (value.max(f64::MIN_POSITIVE).log10() - from) / (to - from),
            Scale::Bands(names) => (value + 0.5) / names.len().max(1) as f64,
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Values with a label, and whether a line is drawn there.
    fn ticks(&self) -> Vec<(f64, String)> {
        match &self.scale {
            Scale::Linear { from, to } => {
                let step = step(*from, *to);
                let count = ((to - from) / step).round() as usize;
                (0..=count).map(|i| from + step * i as f64).map(|v| (v, short(v, step))).collect()
            }
            Scale::Log { from, to } => {
                let (from, to) = (*from as i32, *to as i32);
                let every = ((to - from) as usize / 8 + 1).max(1);
                let powers = (from..=to).step_by(every).map(|e| (10f64.powi(e), power_of_ten(e)));
                // Within one power of ten the two ends alone would say little.
                let between = [2, 5].into_iter().filter(|_| to - from == 1).map(|m| times_power_of_ten(m, from));
                powers.chain(between).collect()
            }
            Scale::Bands(names) => {
                // Thinned where the names would touch: about 7 pixels a letter.
                let widest = names.iter().map(|n| n.chars().count()).max().unwrap_or(1) as f64 * 7.0 + 8.0;
                let room = (WIDTH - LEFT - RIGHT) / names.len().max(1) as f64;
                let every = (widest / room).ceil().max(1.0) as usize;
                names.iter().enumerate().step_by(every).map(|(i, n)| (i as f64, n.clone())).collect()
            }
        }
    }
}

/// The tick distance, 1, 2 or 5 times a power of ten, that gives four to eight of them.
pub fn step(from: f64, to: f64) -> f64 {
    let rough = ((to - from).abs() / 5.0).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let factor = rough / power;
    power
        * if factor < 1.5 {
            1.0
        } else if factor < 3.5 {
            2.0
        } else if factor < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// A multiple of `step` with as many decimals as the step has.
pub fn short(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
        text.trim_start_matches('-').to_string()
    } else {
        text
    }
}

/// 1, 10, 0.1, and from there on 10 with raised digits.
fn power_of_ten(e: i32) -> String {
    match e {
        -2..=3 => short(10f64.powi(e), 10f64.powi(e).min(1.0)),
        _ => {
            let raised = |c: char| {
                if c == '-' {
                    '⁻'
                } else {
                    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c as usize - '0' as usize]
                }
            };
            format!("10{}", e.to_string().chars().map(raised).collect::<String>())
        }
    }
}

fn times_power_of_ten(m: u8, e: i32) -> (f64, String) {
    let (power, value) = (10f64.powi(e), f64::from(m) * 10f64.powi(e));
    (value, if (-2..=3).contains(&e) { short(value, power.min(1.0)) } else { format!("{m}·{}", power_of_ten(e)) })
}

/// A picture in the making.
pub struct Figure {
    title: String,
    body: String,
    bottom: f64,
}

impl Figure {
    /// `subtitle` says what was measured, on what, in one line.
    pub fn new(title: &str, subtitle: &str) -> Self {
        let mut figure = Self { title: title.to_string(), body: String::new(), bottom: HEADER };
        figure.text(LEFT, 34.0, "title", "start", title);
        figure.text(LEFT, 56.0, "label", "start", subtitle);
        figure
    }

    /// Adds a panel below the others, `height` pixels between its axes, with grid and ticks.
    pub fn panel(&mut self, name: &str, height: f64, x: &Axis, y: &Axis) -> Panel<'_> {
        let top = self.bottom + ABOVE;
        self.bottom = top + height + BELOW;
        self.rect("frame", (LEFT, top), (WIDTH - LEFT - RIGHT, height), 1.0, "");
        self.text(LEFT, top - 14.0, "name", "start", name);
        let mut panel = Panel { figure: self, x: x.clone(), y: y.clone(), top, height };
        panel.axes();
        panel
    }

    /// The whole file.
    pub fn finish(self) -> String {
        let height = self.bottom + 4.0;
        let (title, body) = (escape(&self.title), self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
        )
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), opacity: f64, title: &str) {
        let ((x, y), (w, h)) = (at, size);
        let opacity = if opacity < 1.0 { format!(" fill-opacity=\"{opacity}\"") } else { String::new() };
        let rect =
            format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" class=\"{class}\"{opacity}");
        match title {
            "" => self.put(format_args!("{rect}/>")),
            _ => self.put(format_args!("{rect}><title>{}</title></rect>", escape(title))),
        }
    }

    fn segment(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" class=\"{class}\"/>"));
    }

    fn put(&mut self, element: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }
}

fn escape(text: &str) -> String {
    shown(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A panel of a figure; coordinates are in the units of its axes.
pub struct Panel<'f> {
    figure: &'f mut Figure,
    x: Axis,
    y: Axis,
    top: f64,
    height: f64,
}

impl Panel<'_> {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT), self.top + (1.0 - self.y.place(y)) * self.height)
    }

    fn axes(&mut self) {
        let (right, bottom) = (WIDTH - RIGHT, self.top + self.height);
        for (value, label) in self.y.ticks() {
            let y = self.top + (1.0 - self.y.place(value)) * self.height;
            self.figure.segment("grid", (LEFT, y), (right, y));
            self.figure.text(LEFT - 8.0, y + 4.0, "label", "end", &label);
        }
        let numbers = !matches!(self.x.scale, Scale::Bands(_));
        for (value, label) in self.x.ticks() {
            let x = LEFT + self.x.place(value) * (right - LEFT);
            if numbers {
                self.figure.segment("grid", (x, self.top), (x, bottom));
            }
            self.figure.text(x, bottom + 18.0, "label", "middle", &label);
        }
        self.figure.segment("axis", (LEFT, bottom), (right, bottom));
        self.figure.text((LEFT + right) / 2.0, bottom + 38.0, "label", "middle", &self.x.label.clone());
        let (x, y, label) = (20.0, self.top + self.height / 2.0, escape(&self.y.label));
        self.figure.put(format_args!(
            "<text x=\"{x}\" y=\"{y:.1}\" class=\"label\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y:.1})\">{label}</text>"
        ));
    }

    /// Names colours, at the right above the panel.
    pub fn legend(&mut self, entries: &[(Color, &str)]) {
        let width = |name: &str| name.chars().count() as f64 * 6.8 + 34.0;
        let mut x = WIDTH - RIGHT + 12.0 - entries.iter().map(|(_, name)| width(name)).sum::<f64>();
        for (color, name) in entries {
            self.figure.rect(color.class(), (x, self.top - 24.0), (11.0, 11.0), 1.0, "");
            self.figure.text(x + 16.0, self.top - 14.0, "label", "start", name);
            x += width(name);
        }
    }

    /// A line through `points` with a dot on each, which shows its `y` under the mouse.
    pub fn line(&mut self, color: Color, points: &[(f64, f64)]) {
        let places: Vec<_> = points.iter().map(|&p| self.at(p)).collect();
        let path: String = places
            .iter()
            .enumerate()
            .map(|(i, (x, y))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' }))
            .collect();
        self.figure.put(format_args!("<path d=\"{path}\" class=\"line {}\"/>", color.class()));
        points.iter().for_each(|&point| self.dot(color, point, &Significant(point.1).to_string()));
    }

    /// One dot; `title` shows under the mouse.
    pub fn dot(&mut self, color: Color, point: (f64, f64), title: &str) {
        let ((x, y), class, title) = (self.at(point), color.class(), escape(title));
        self.figure.put(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\" class=\"{class}\"><title>{title}</title></circle>"
        ));
    }

    /// A rectangle from corner to corner; `title` shows under the mouse.
    pub fn bar(&mut self, color: Color, from: (f64, f64), to: (f64, f64), title: &str) {
        let ((x1, y1), (x2, y2)) = (self.at(from), self.at(to));
        self.figure.rect(color.class(), (x1.min(x2), y1.min(y2)), ((x2 - x1).abs(), (y2 - y1).abs()), 1.0, title);
    }

    /// An area inside an outline, half transparent.
    pub fn area(&mut self, color: Color, outline: &[(f64, f64)], title: &str) {
        let path: String = outline
            .iter()
            .map(|&p| self.at(p))
            .enumerate()
            .map(|(i, (x, y))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' }))
            .collect();
        let (class, title) = (color.class(), escape(title));
        self.figure.put(format_args!(
            "<path d=\"{path}Z\" class=\"{class}\" fill-opacity=\"0.75\"><title>{title}</title></path>"
        ));
    }

    /// A thin line between two points.
    pub fn stroke(&mut self, color: Color, from: (f64, f64), to: (f64, f64)) {
        let (from, to) = (self.at(from), self.at(to));
        self.figure.segment(&format!("line {}", color.class()), from, to);
    }

    /// A small text centred on a point, `above` pixels over it.
    pub fn note(&mut self, color: Option<Color>, point: (f64, f64), above: f64, text: &str) {
        let (x, y) = self.at(point);
        self.figure.text(x, y - above, color.map_or("value", Color::class), "middle", text);
    }
}

/// A number in few characters, whatever its size.
struct Significant(f64);

impl Display for Significant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let x = self.0;
        if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
            write!(f, "{x:.2e}")
        } else {
            write!(f, "{}", (x * 1e4).round() / 1e4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_inside_the_axis() {
        let labels = |axis: &Axis| axis.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(labels(&Axis::linear("dB", 0.0, 43.0)), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(
            labels(&Axis::linear("MB", 0.0, 0.31)),
            ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30", "0.35"]
        );
        assert_eq!(labels(&Axis::log("", [3e-5, 0.02, 0.0, f64::NAN])), ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1"]);
        assert_eq!(labels(&Axis::log("", [])), ["0.1", "1", "0.2", "0.5"]);
        assert_eq!(labels(&Axis::log("", [3e-4, 9e-4])), ["10⁻⁴", "10⁻³", "2·10⁻⁴", "5·10⁻⁴"]);
        let many = Axis::bands("block", (0..200).map(|i| i.to_string()));
        assert!(many.ticks().len() < 60);
    }

    #[test]
    fn values_are_placed_and_never_leave_the_panel() {
        let log = Axis::log("", [1e-3, 1.0]);
        assert_eq!([1e-3, 1.0, 10.0, 0.0, -1.0, f64::NAN].map(|v| log.place(v)), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert!((log.place(1e-2) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(Axis::bands("", ["a".to_string(), "b".to_string()]).place(0.5), 0.5);
    }

    #[test]
    fn a_figure_is_well_formed_and_escapes_text() {
        let mut figure = Figure::new("a < b & \"c\"", "");
        let mut panel = figure.panel("p", 100.0, &Axis::linear("x", 0.0, 1.0), &Axis::log("y", [0.1, 1.0]));
        panel.line(Color::Blue, &[(0.0, 0.5), (1.0, 7.0)]);
        panel.bar(Color::Red, (0.0, 0.1), (0.5, 1.0), "<1>");
        panel.legend(&[(Color::Blue, "one"), (Color::Red, "two")]);
        let svg = figure.finish();
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("<title>&lt;1&gt;</title>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let (open, close) = (svg.matches("<text").count(), svg.matches("</text>").count());
        assert_eq!(open, close);
    }
}
