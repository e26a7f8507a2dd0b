//! The one syntax of durations: Go's, without sign.

use std::{ops::RangeInclusive, time::Duration};

/// The longest that is read: ten years.
const MOST: f64 = 10.0 * 366.0 * 86_400.0;

/// `1h30m`, `1.5s`, `500ms`, `2d`, `0`; `None` where it is none of these, or longer than ten years.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "d" => 86_400.0,
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && seconds <= MOST).then(|| Duration::from_secs_f64(seconds))
}

/// A duration of an option, from the least to the most that it takes.
///
/// # Errors
/// What was found and what was expected.
pub fn duration_within(
    text: &str,
    range: RangeInclusive<Duration>,
    named: &str,
) -> Result<Duration, String> {
    parse_duration(text).filter(|duration| range.contains(duration)).ok_or_else(|| {
        format!("found `{text}`, expected a duration such as 500ms, 10s or 1h30m, {named}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("2m", 120_000),
            ("1d12h", 129_600_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        let wrong = [
            "",
            "10",
            "s",
            "-1s",
            "1x",
            "1s2",
            "1e3s",
            "99999999h",
            "1..s",
            " 1s",
            "1 s",
            "é",
            "NaNs",
        ];
        for text in wrong {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_option_has_bounds() {
        let range = Duration::from_secs(1)..=Duration::from_secs(60);
        let read = |text| duration_within(text, range.clone(), "from 1s to 1m");
        assert_eq!(read("30s"), Ok(Duration::from_secs(30)));
        for wrong in ["61s", "0", "30"] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains("1h30m, from 1s to 1m"), "{error}");
        }
    }
}
