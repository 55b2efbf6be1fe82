//! Charts as SVG text: bars with their spread, and lines. Colours are those of the page's style
//! sheet, by class.

use std::fmt::Write;

/// Width of every chart, in its own units.
const WIDTH: f64 = 720.0;

/// One bar, with the range that its value had.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Whose: a class of the style sheet, and a word of the tooltip.
    pub(super) series: &'static str,
    pub(super) value: f64,
    pub(super) range: Option<(f64, f64)>,
}

/// Bars that are compared with one another.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) label: String,
    pub(super) bars: Vec<Bar>,
}

/// Horizontal bars, with whiskers from the smallest to the largest value.
pub(super) fn bars(groups: &[Group], unit: &str) -> String {
    const BAR: f64 = 18.0;
    const GAP: f64 = 4.0;
    const LEFT: f64 = 8.0;
    const RIGHT: f64 = 150.0;
    const LABEL: f64 = 22.0;
    const BETWEEN: f64 = 16.0;
    let values = groups.iter().flat_map(|group| &group.bars);
    let most = values.map(|bar| bar.range.map_or(bar.value, |range| range.1)).fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / if most > 0.0 { most } else { 1.0 };
    let count: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = groups.len() as f64 * (LABEL + BETWEEN) + count as f64 * (BAR + GAP);
    let mut svg = open(height, "bar chart");
    let mut y = 0.0;
    for group in groups {
        y += LABEL;
        let _ = write!(
            svg,
            "<text class=\"group\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            y - 7.0,
            escape(&group.label)
        );
        for bar in &group.bars {
            let width = (bar.value * scale).max(1.0);
            let (series, value) = (bar.series, number(bar.value));
            let _ = write!(
                svg,
                "<rect class=\"fill {series}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{BAR}\" rx=\"3\"><title>{series}: {value} {unit}</title></rect>"
            );
            let mut end = LEFT + width;
            if let Some((low, high)) = bar.range.filter(|(low, high)| low < high) {
                let (from, to) = (LEFT + low * scale, LEFT + high * scale);
                let middle = y + BAR / 2.0;
                let _ = write!(
                    svg,
                    "<path class=\"whisker\" d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} \
                     {:.1}v8M{to:.1} {:.1}v8\"/>",
                    middle - 4.0,
                    middle - 4.0
                );
                end = end.max(to);
            }
            let _ = write!(
                svg,
                "<text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{value} <tspan class=\"dim\">{series}\
                 </tspan></text>",
                end + 8.0,
                y + BAR - 5.0
            );
            y += BAR + GAP;
        }
        y += BETWEEN;
    }
    svg.push_str("</svg>");
    svg
}

/// How a length on an axis follows from a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
    /// Of quantiles: each nine takes the same room.
    Nines,
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) scale: Scale,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Whose: a class of the style sheet.
    pub(super) series: &'static str,
    pub(super) name: String,
    pub(super) is_dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one another.
pub(super) fn lines(x: &Axis, y: &Axis, all: &[Line]) -> String {
    const LEFT: f64 = 78.0;
    const RIGHT: f64 = 130.0;
    const TOP: f64 = 14.0;
    const BOTTOM: f64 = 46.0;
    const HEIGHT: f64 = 340.0;
    const NAME_HEIGHT: f64 = 15.0;
    let points = || all.iter().flat_map(|line| &line.points);
    let Some(across) = Span::of(x.scale, points().map(|point| point.0)) else {
        return String::new();
    };
    let Some(up) = Span::of(y.scale, points().map(|point| point.1)) else { return String::new() };
    let place_x = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let place_y = |value: f64| TOP + (1.0 - up.place(value)) * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(HEIGHT, "line chart");
    for tick in up.ticks() {
        let at = place_y(tick);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"tick end\" x=\"{:.1}\" \
             y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            number(tick)
        );
    }
    for tick in across.ticks() {
        let at = place_x(tick);
        let text = if x.scale == Scale::Nines { percent(tick) } else { number(tick) };
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{:.1}\"/><text class=\"tick middle\" \
             x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text><text class=\"axis middle\" \
         transform=\"translate(14 {:.1}) rotate(-90)\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(&x.label),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(&y.label)
    );
    // Names stand at the ends of their lines, and no two on one another.
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for line in all {
        let drawn: Vec<(f64, f64)> =
            line.points.iter().map(|&(x, y)| (place_x(x), place_y(y))).collect();
        let Some(&(end_x, end_y)) = drawn.last() else { continue };
        let mut path = String::new();
        for (index, (x, y)) in drawn.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
        }
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let series = line.series;
        let _ = write!(svg, "<path class=\"line {series}{dashed}\" d=\"{path}\"/>");
        if drawn.len() <= 16 {
            for ((x, y), (at, value)) in drawn.iter().zip(&line.points) {
                let _ = write!(
                    svg,
                    "<circle class=\"fill {series}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\">\
                     <title>{}: {} at {}</title></circle>",
                    escape(&line.name),
                    number(*value),
                    number(*at)
                );
            }
        }
        let mut label_y = end_y;
        // A little less than a line's height: what was moved by one is away, however it rounds.
        let is_near = |at: &(f64, f64), y: f64| {
            (at.1 - y).abs() < NAME_HEIGHT - 0.1 && (at.0 - end_x).abs() < 90.0
        };
        while let Some(near) = taken.iter().find(|at| is_near(at, label_y)) {
            label_y = near.1 + NAME_HEIGHT;
        }
        taken.push((end_x, label_y));
        let _ = write!(
            svg,
            "<text class=\"name {series}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            end_x + 8.0,
            label_y + 4.0,
            escape(&line.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The values of an axis.
#[derive(Clone, Copy, Debug)]
struct Span {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Span {
    /// `None` without a value that the scale can show.
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Span> {
        let shown: Vec<f64> = values
            .filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0))
            .collect();
        let low = shown.iter().copied().reduce(f64::min)?;
        let high = shown.iter().copied().reduce(f64::max)?;
        Some(match scale {
            Scale::Linear => {
                let top = if high > 0.0 { high } else { 1.0 };
                Span { scale, low: 0.0, high: top * 1.04 }
            }
            Scale::Logarithmic => {
                let high = if high > low { high } else { low * 2.0 };
                Span { scale, low: low / 1.15, high: high * 1.15 }
            }
            Scale::Nines => Span { scale, low: 0.0, high: high.clamp(0.9, 0.999_99) },
        })
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let length = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(self.low).log10(),
            Scale::Nines => -(1.0 - value.min(self.high)).log10(),
        };
        let (low, high) = (length(self.low), length(self.high));
        ((length(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (self.high - self.low) / 5.0;
                let decade = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|step| step * decade)
                    .into_iter()
                    .find(|step| *step >= rough)
                    .unwrap_or(10.0 * decade);
                (0..=10)
                    .map(|index| f64::from(index) * step)
                    .filter(|at| *at <= self.high)
                    .collect()
            }
            Scale::Logarithmic => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let first = self.low.log10().floor() as i32;
                let last = self.high.log10().ceil() as i32;
                (first..=last)
                    .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
                    .filter(|at| (self.low..=self.high).contains(at))
                    .collect()
            }
            Scale::Nines => {
                let all = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
                all.into_iter().filter(|at| *at <= self.high).collect()
            }
        }
    }
}

fn open(height: f64, kind: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{kind}\" \
         xmlns=\"http://www.w3.org/2000/svg\">"
    )
}

/// Three digits or so, with thousands marked.
pub(super) fn number(value: f64) -> String {
    if value >= 100.0 {
        let whole = format!("{value:.0}");
        let mut text = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                // A narrow space that does not break.
                text.push('\u{202f}');
            }
            text.push(digit);
        }
        return text;
    }
    let digits = match value {
        _ if value >= 10.0 => 1,
        _ if value >= 1.0 || value == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

/// Two decimals, more where little is left, fewer where much is.
pub(super) fn ratio(value: f64) -> String {
    match value {
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn percent(quantile: f64) -> String {
    let text = format!("{:.3}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// For text and attributes of HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.0042, 1.5, 12.34, 99.0, 1234.6, 1_234_567.0].map(number);
        let space = '\u{202f}';
        assert_eq!(shown[..5], ["0", "0.004", "1.5", "12.3", "99"]);
        assert_eq!(shown[5..], [format!("1{space}235"), format!("1{space}234{space}567")]);
        assert_eq!([3.214, 0.456, 0.0012, 25.0].map(ratio), ["3.21", "0.46", "0.0012", "25.0"]);
        assert_eq!([0.5, 0.999].map(percent), ["50 %", "99.9 %"]);
    }

    #[test]
    fn scales_put_their_ends_at_the_ends() {
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::Nines] {
            let span = Span::of(scale, [0.5, 0.99].into_iter()).unwrap();
            assert!(
                span.place(span.low).abs() < 1e-9 && (span.place(span.high) - 1.0).abs() < 1e-9
            );
            assert!(span.ticks().len() > 1, "{scale:?}");
            assert!(span.place(0.5) < span.place(0.99));
        }
        assert!(Span::of(Scale::Logarithmic, [0.0, f64::NAN].into_iter()).is_none());
    }

    /// Each name moves down until it is free, and gets there wherever it began.
    #[test]
    fn names_of_lines_that_end_together_stand_below_one_another() {
        let axis = || Axis { label: String::new(), scale: Scale::Linear };
        for step in 1..500 {
            let end = 1.0 - f64::from(step) / 707.0;
            let line = |name: &str, value| Line {
                series: "kernel",
                name: name.to_owned(),
                is_dashed: false,
                points: vec![(0.0, 1.0), (1.0, value)],
            };
            let all = [line("a", end), line("b", end), line("c", end * 0.999)];
            let svg = lines(&axis(), &axis(), &all);
            let heights: Vec<&str> = svg
                .split("class=\"name kernel\"")
                .skip(1)
                .filter_map(|name| name.split("y=\"").nth(1)?.split('"').next())
                .collect();
            let [a, b, c] = heights[..] else { panic!("{svg}") };
            assert!(a != b && b != c && a != c, "{heights:?}");
        }
    }

    #[test]
    fn charts_without_values_are_nothing_or_empty() {
        let axis = |scale| Axis { label: "a<b".to_owned(), scale };
        assert_eq!(lines(&axis(Scale::Linear), &axis(Scale::Linear), &[]), "");
        assert!(bars(&[], "x").ends_with("</svg>"));
        let bar = Bar { series: "kernel", value: 0.0, range: Some((0.0, 0.0)) };
        let svg = bars(&[Group { label: "<&>".to_owned(), bars: vec![bar] }], "x");
        assert!(svg.contains("&lt;&amp;&gt;") && !svg.contains("NaN"), "{svg}");
    }
}
