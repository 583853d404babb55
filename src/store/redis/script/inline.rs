//! The script as Redis runs it: constants in their places, comments left out.
//!
//! A constant that is a local of the chunk costs at every call: each function that names it
//! captures it. Line numbers stay.

use std::collections::HashMap;

/// `body` with the value of each constant where it is named. A constant is a local of one line, in
/// capitals, whose value is a number or a string.
pub(super) fn constants(body: &str) -> String {
    let mut values = HashMap::new();
    let mut text = String::with_capacity(body.len());
    for line in body.lines() {
        // No string of the script has two hyphens.
        let code = line.split_once("--").map_or(line, |(code, _)| code).trim_end();
        if let Some((name, value)) = constant(code) {
            values.insert(name, value);
        } else {
            replace(code, &values, &mut text);
        }
        text.push('\n');
    }
    text
}

fn constant(code: &str) -> Option<(&str, &str)> {
    let (name, value) = code.strip_prefix("local ")?.split_once(" = ")?;
    let is_name = name.chars().all(|c| is_of_word(c) && !c.is_ascii_lowercase());
    let is_number = value.chars().all(|c| c.is_ascii_digit());
    let is_string = value.starts_with('\'') && value.ends_with('\'');
    (is_name && (is_number || is_string)).then_some((name, value))
}

fn replace(code: &str, values: &HashMap<&str, &str>, text: &mut String) {
    let mut left = code;
    while !left.is_empty() {
        let end = left.find(|c| !is_of_word(c)).unwrap_or(left.len());
        let (word, rest) = left.split_at(end);
        text.push_str(values.get(word).copied().unwrap_or(word));
        let end = rest.find(is_of_word).unwrap_or(rest.len());
        let (between, rest) = rest.split_at(end);
        text.push_str(between);
        left = rest;
    }
}

const fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_take_their_places_and_lines_keep_their_numbers() {
        let body = "-- A size.\nlocal A_SIZE = 22\nlocal F = '<BH'\nlocal a = { [0] = A_SIZE } -- F\n\
                    local B, C = 1, A_SIZE + 1 --@mark\nreturn pack(F, A_SIZES, a.F2, B)\n";
        let inlined = "\n\n\nlocal a = { [0] = 22 }\nlocal B, C = 1, 22 + 1\n\
                       return pack('<BH', A_SIZES, a.F2, B)\n";
        assert_eq!(constants(body), inlined);
    }
}
