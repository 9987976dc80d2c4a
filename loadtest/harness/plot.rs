//! Renders line charts as SVG text.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 26.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df"];

/// One line of a chart: its name, and points of seconds and values.
pub type Line = (String, Vec<(f64, f64)>);

/// A marked moment: seconds and a label.
pub type Mark = (f64, String);

/// Renders a chart from the time `from` to the time `to`, in seconds of the same clock as the points.
pub fn chart(title: &str, (from, to): (f64, f64), lines: &[Line], marks: &[Mark]) -> String {
    let span = (to - from).max(1.0);
    let highest = lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(0.0, f64::max);
    let (step, top) = scale(highest);
    let x = |t: f64| LEFT + ((t - from) / span).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escaped(title));
    let _ = write!(svg, r#"<text x="{LEFT}" y="14" class="title">{}</text>"#, escaped(title));
    let mut value = 0.0;
    while value <= top * 1.001 {
        let at = y(value);
        let _ = write!(svg, r#"<line x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}" class="grid"/>"#, WIDTH - RIGHT);
        let _ = write!(svg, r#"<text x="{}" y="{:.1}" class="y">{}</text>"#, LEFT - 6.0, at + 4.0, figure(value));
        value += step;
    }
    let (time_step, _) = scale(span);
    let mut seconds = 0.0;
    while seconds <= span {
        let at = x(from + seconds);
        let _ = write!(svg, r#"<text x="{at:.1}" y="{}" class="x">{} s</text>"#, HEIGHT - 8.0, figure(seconds));
        seconds += time_step;
    }
    for (t, what) in marks {
        let at = x(*t);
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(svg, r#"<line x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{bottom}" class="mark"/>"#);
        let _ = write!(svg, r#"<text x="{:.1}" y="{}" class="marked">{}</text>"#, at + 3.0, TOP + 9.0, escaped(what));
    }
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> = points.iter().map(|(t, value)| format!("{:.1},{:.1}", x(*t), y(*value))).collect();
        let _ = write!(svg, r#"<polyline points="{}" style="stroke:{colour}"/>"#, path.join(" "));
        let at = WIDTH - RIGHT - 110.0 * (lines.len() - index) as f64;
        let _ = write!(svg, r#"<rect x="{at}" y="6" width="10" height="10" style="fill:{colour}"/>"#);
        let _ = write!(svg, r#"<text x="{}" y="15" class="name">{}</text>"#, at + 14.0, escaped(name));
    }
    svg.push_str("</svg>");
    svg
}

/// Returns a round step between grid lines and the value of the top line.
fn scale(highest: f64) -> (f64, f64) {
    if highest <= 0.0 {
        return (0.25, 1.0);
    }
    let rough = highest / 5.0;
    let ten = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|by| by * ten).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * ten);
    (step, (highest / step).ceil() * step)
}

/// Formats a number as short as possible.
pub fn figure(value: f64) -> String {
    let text = if value.abs() >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Escapes text for HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_the_highest_value() {
        for (highest, step, top) in [(0.0, 0.25, 1.0), (1.0, 0.2, 1.0), (7.3, 2.0, 8.0), (430.0, 100.0, 500.0)] {
            assert_eq!(scale(highest), (step, top), "{highest}");
        }
        assert_eq!([figure(0.5), figure(12.345), figure(431.7), figure(2000.0)], ["0.5", "12.35", "432", "2000"]);
    }

    #[test]
    fn names_are_escaped() {
        let svg = chart("a < b", (0.0, 10.0), &[("<script>".to_owned(), vec![(1.0, 2.0)])], &[(3.0, "\"&".to_owned())]);
        assert!(!svg.contains("<script>") && svg.contains("a &lt; b") && svg.contains("&quot;&amp;"));
    }
}
