//! The text format of Prometheus 0.0.4, made of OpenMetrics text.
//!
//! | OpenMetrics | here |
//! |---|---|
//! | counter `x`, series `x_total` | counter `x_total` |
//! | info `x`, series `x_info` | gauge `x_info` |
//! | unknown | untyped |
//! | `# UNIT`, `# EOF` | left out |
//!
//! There are no exemplars.
//!
//! Source: Prometheus, "Exposition formats"; OpenMetrics 1.0.

/// The formats of metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus.
    Prometheus,
}

impl TextFormat {
    /// The type of the content.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format that a client with this `Accept` header likes best; without one, OpenMetrics.
    pub fn accepted(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::OpenMetrics };
        let (mut open, mut plain) = (None, None);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(Some(1.0), |text| text.parse::<f32>().ok());
            let Some(quality) = quality.filter(|quality| *quality > 0.0) else { continue };
            let best = |known: Option<f32>| Some(known.unwrap_or(0.0).max(quality));
            match kind.as_str() {
                "application/openmetrics-text" | "application/*" => open = best(open),
                "text/plain" | "text/*" => plain = best(plain),
                "*/*" => open = open.or(Some(quality)),
                _ => {}
            }
        }
        match (open, plain) {
            (Some(open), Some(plain)) if plain > open => Self::Prometheus,
            (None, Some(_)) => Self::Prometheus,
            _ => Self::OpenMetrics,
        }
    }
}

/// The text of Prometheus for `text`, which is OpenMetrics.
pub(super) fn prometheus(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), Some(text)) => help = text,
            (Some("#"), Some("TYPE"), Some(of), Some(kind)) => {
                let (name, kind) = match kind {
                    "counter" => (format!("{of}_total"), kind),
                    "info" => (format!("{of}_info"), "gauge"),
                    "unknown" => (of.to_owned(), "untyped"),
                    _ => (of.to_owned(), kind),
                };
                plain.extend(["# HELP ", &name, " ", help, "\n"]);
                plain.extend(["# TYPE ", &name, " ", kind, "\n"]);
            }
            (Some("#"), ..) => {}
            _ => plain.extend([line, "\n"]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_client_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, format) in [
            (None, TextFormat::OpenMetrics),
            (Some("*/*"), TextFormat::OpenMetrics),
            (Some(prometheus), TextFormat::OpenMetrics),
            (Some("text/plain"), TextFormat::Prometheus),
            (Some("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), TextFormat::Prometheus),
            (
                Some("application/openmetrics-text; q=0.2, text/plain; q=0.9"),
                TextFormat::Prometheus,
            ),
            (Some("application/openmetrics-text; q=0, TEXT/PLAIN"), TextFormat::Prometheus),
            (Some("text/html"), TextFormat::OpenMetrics),
            (Some("text/plain;q=nonsense"), TextFormat::OpenMetrics),
            (Some(""), TextFormat::OpenMetrics),
        ] {
            assert_eq!(TextFormat::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn families_have_the_names_and_types_of_prometheus() {
        let open = "# HELP a_b Sum of # all.\n# TYPE a_b counter\na_b_total{x=\"1 # 2\"} 3\n\
                    # HELP v The version.\n# TYPE v info\nv_info{version=\"1\"} 1\n\
                    # HELP t_seconds Time.\n# TYPE t_seconds gauge\n# UNIT t_seconds seconds\n\
                    t_seconds 4.5\n# HELP u Odd.\n# TYPE u unknown\nu 1\n# EOF\n";
        let plain = "# HELP a_b_total Sum of # all.\n# TYPE a_b_total counter\n\
                     a_b_total{x=\"1 # 2\"} 3\n\
                     # HELP v_info The version.\n# TYPE v_info gauge\nv_info{version=\"1\"} 1\n\
                     # HELP t_seconds Time.\n# TYPE t_seconds gauge\nt_seconds 4.5\n\
                     # HELP u Odd.\n# TYPE u untyped\nu 1\n";
        assert_eq!(prometheus(open), plain);
    }
}
