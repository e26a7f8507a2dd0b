//! The table of the proxies, in Markdown.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::peers::Proxy;
use crate::table::median;

/// Where the table is in the page.
const BEGIN: &str = "<!-- bench gateway: begin -->";
const END: &str = "<!-- bench gateway: end -->";

/// One row: what is measured, and every value of each proxy.
#[derive(Debug)]
pub(super) struct Line {
    what: &'static str,
    digits: usize,
    values: Vec<(Proxy, Vec<f64>)>,
}

impl Line {
    pub(super) fn new(what: &'static str, digits: usize) -> Self {
        Self { what, digits, values: Vec::new() }
    }

    pub(super) fn add(&mut self, proxy: Proxy, value: f64) {
        match self.values.iter_mut().find(|(known, _)| *known == proxy) {
            Some((_, values)) => values.push(value),
            None => self.values.push((proxy, vec![value])),
        }
    }

    fn of(&self, proxy: Proxy) -> Option<&[f64]> {
        self.values.iter().find(|(known, _)| *known == proxy).map(|(_, values)| &**values)
    }

    /// The median, and between which values the others are.
    fn cell(&self, proxy: Proxy) -> String {
        let Some(values) = self.of(proxy) else { return "–".into() };
        let digits = self.digits;
        let median = median(values).unwrap_or_default();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        match values {
            [_] => format!("{median:.digits$}"),
            _ => format!("{median:.digits$} ({least:.digits$} to {most:.digits$})"),
        }
    }

    /// This gateway's median, divided by the best peer's.
    fn ratio(&self) -> Option<f64> {
        let median = |proxy| self.of(proxy).and_then(median);
        let peers = Proxy::ALL.into_iter().filter(|proxy| *proxy != Proxy::Ours);
        let best = peers.filter_map(median).fold(f64::INFINITY, f64::min);
        Some(median(Proxy::Ours)? / best).filter(|_| best.is_finite() && best > 0.0)
    }
}

/// The table with its heading lines.
pub(super) fn markdown(lines: &[Line], proxies: &[Proxy], note: &str) -> String {
    let mut text = format!("{note}\n\n| work |");
    for proxy in proxies {
        text += &format!(" {} |", proxy.name());
    }
    text += " this gateway ÷ best peer |\n|---|";
    text += &"---|".repeat(proxies.len() + 1);
    for line in lines {
        text += &format!("\n| {} |", line.what);
        for proxy in proxies {
            text += &format!(" {} |", line.cell(*proxy));
        }
        text += &line.ratio().map_or_else(|| " – |".into(), |ratio| format!(" {ratio:.2} |"));
    }
    text + "\n"
}

/// Puts the table into the page.
pub(super) fn write(page: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END}"))?;
    fs::write(page, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}

/// Day, kernel and processors.
pub(super) fn machine() -> String {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let day = said("date", &["--utc", "+%Y-%m-%d"]).unwrap_or_default();
    let kernel = said("uname", &["-r"]).unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    format!(
        "{day}, Linux {kernel}, {count} processors ({}), load of the machine at the end {load}",
        model.unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_medians_spread_and_the_ratio_to_the_best() {
        let mut line = Line::new("requests", 2);
        for value in [1.0, 3.0, 2.0] {
            line.add(Proxy::Ours, value);
        }
        assert_eq!(line.ratio(), None, "there is no peer");
        line.add(Proxy::HaProxy, 4.0);
        line.add(Proxy::Nginx, 8.0);
        let table = markdown(&[line], &[Proxy::Nginx, Proxy::HaProxy, Proxy::Ours], "Note.");
        assert_eq!(
            table,
            "Note.\n\n| work | nginx | HAProxy | this gateway | this gateway ÷ best peer |\n\
             |---|---|---|---|---|\n\
             | requests | 8.00 | 4.00 | 2.00 (1.00 to 3.00) | 0.50 |\n"
        );
    }

    #[test]
    fn a_table_takes_the_place_of_the_last_one() {
        let page = std::env::temp_dir().join(format!("bench-page-{}", std::process::id()));
        fs::write(&page, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        write(&page, "new\n").unwrap();
        let text = fs::read_to_string(&page).unwrap();
        fs::remove_file(&page).unwrap();
        assert_eq!(text, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
    }
}
