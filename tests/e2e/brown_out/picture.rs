//! The picture of a run in docs/adaptive.md.

use std::path::Path;

use super::{AFTER, BEFORE, CAPACITY, OFFERED, Second, UNWELL};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 28.0;
const BASE: f64 = HEIGHT - 36.0;

/// The places of the names of lines.
const NAMES: [f64; 4] = [0.0, 165.0, 325.0, 470.0];

/// Seconds to the right, requests upwards.
struct Canvas {
    seconds: f64,
    svg: Vec<String>,
}

impl Canvas {
    fn x(&self, second: f64) -> f64 {
        LEFT + second / self.seconds * (RIGHT - LEFT)
    }

    fn y(count: f64) -> f64 {
        BASE - count / f64::from(CAPACITY + 20) * (BASE - TOP)
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        self.svg.push(format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn axes(&mut self) {
        for count in (0..=CAPACITY).step_by(100) {
            let y = Self::y(f64::from(count));
            self.svg.push(format!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>"));
            self.text((LEFT - 6.0, y + 4.0), "end", "#333", &count.to_string());
        }
        for second in (0..=self.seconds as usize).step_by(10) {
            let at = (self.x(second as f64), BASE + 18.0);
            self.text(at, "middle", "#333", &format!("{second} s"));
        }
    }

    fn line(
        &mut self,
        number: usize,
        (name, colour, dashes): (&str, &str, &str),
        points: &[(f64, f64)],
    ) {
        let points = points.iter().map(|(at, count)| (self.x(*at), Self::y(*count)));
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.svg.push(format!(
            "<polyline points=\"{points}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>"
        ));
        self.text((LEFT + NAMES[number], 16.0), "start", colour, name);
    }
}

/// One point in the middle of each second.
fn by_second(run: &[Second], value: impl Fn(&Second) -> f64) -> Vec<(f64, f64)> {
    run.iter().enumerate().map(|(at, second)| (at as f64 + 0.5, value(second))).collect()
}

/// Draws answered requests in a second, and the scale.
pub fn write(adaptive: &[Second], fixed: &[Second]) {
    let mut canvas = Canvas { seconds: adaptive.len() as f64, svg: Vec::new() };
    let (begin, end) = (BEFORE as f64, (adaptive.len() - AFTER) as f64);
    let (well, unwell) = (f64::from(CAPACITY), f64::from(UNWELL));
    let able = [
        (0.0, well),
        (begin, well),
        (begin, unwell),
        (end, unwell),
        (end, well),
        (canvas.seconds, well),
    ];
    let good = |second: &Second| f64::from(second.good);
    let scale = |second: &Second| second.scale / 100.0 * well;
    canvas.axes();
    canvas.line(0, ("what the backends can do", "#999", "6 4"), &able);
    canvas.line(1, ("answered, adaptive limit", "#0a7", ""), &by_second(adaptive, good));
    canvas.line(2, ("answered, fixed limit", "#c33", ""), &by_second(fixed, good));
    canvas.line(3, ("its scale (top: 100 %)", "#27c", "2 3"), &by_second(adaptive, scale));
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"none\">\n\
         <title>{OFFERED} requests a second are asked, and the backends are slowed to half</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n{}\n</svg>\n",
        canvas.svg.join("\n")
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images/brown-out.svg");
    std::fs::write(path, svg).unwrap();
}
