//! The lines of the table, and how they are written down.

use std::fmt;

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Below this many, in a unit.
    Below(f64, &'static str),
    /// Told for the sake of the others.
    None,
}

impl Target {
    fn is_met_by(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::Below(most, _) => Some(figure < most),
            Self::None => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Below(most, unit) => write!(f, "below {most} {unit}"),
            Self::None => f.write_str("-"),
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub what: String,
    /// The figure, or why there is none.
    pub figure: Result<f64, String>,
    pub target: Target,
    pub absolute: String,
}

impl Line {
    fn verdict(&self) -> &'static str {
        match &self.figure {
            Err(_) => "-",
            Ok(figure) => match self.target.is_met_by(*figure) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            },
        }
    }

    /// The line in Markdown; `others`: its figure beside the other ceilings.
    fn markdown(&self, others: &str) -> String {
        let Self { name, what, target, absolute, .. } = self;
        let figure = match &self.figure {
            Ok(figure) if figure.abs() >= 10.0 => format!("{figure:.1}"),
            Ok(figure) => format!("{figure:.3}"),
            Err(why) => why.clone(),
        };
        let met = self.verdict();
        format!("| {name} | {what} | {figure} | {others} | {target} | {met} | {absolute} |")
    }
}

/// Prints the table in Markdown; `others` says what a line is beside the other ceilings.
pub fn print(lines: &[Line], others: impl Fn(&Line) -> String) {
    println!("| row | measured | figure | / bare tonic; / bare h2 | target | met | medians |");
    println!("|---|---|---|---|---|---|---|");
    for line in lines {
        println!("{}", line.markdown(&others(line)));
    }
}

/// A number with three digits or so: 187k, 1.21M.
pub fn short(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{:.2}M", number / 1e6),
        number if number >= 1e4 => format!("{:.0}k", number / 1e3),
        number if number >= 1e3 => format!("{:.1}k", number / 1e3),
        number => format!("{number:.0}"),
    }
}
