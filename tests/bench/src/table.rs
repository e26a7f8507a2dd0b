//! What is printed.

use std::time::Duration;

/// A measured row: what, how much, and the aim beside it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) aim: String,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        measured: impl Into<String>,
        aim: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), measured: measured.into(), aim: aim.into() }
    }
}

/// A table in Markdown, which is as good in a terminal.
pub(crate) fn print(title: &str, rows: &[Row]) {
    let width = |cell: fn(&Row) -> &str, head: &str| {
        rows.iter().map(|row| cell(row).chars().count()).chain([head.len()]).max().unwrap_or(0)
    };
    let heads = ["what", "measured", "aim"];
    let cells: [fn(&Row) -> &str; 3] = [|row| &row.what, |row| &row.measured, |row| &row.aim];
    let widths = [0, 1, 2].map(|column| width(cells[column], heads[column]));
    let [a, b, c] = widths;
    println!("\n### {title}\n");
    println!("| {:<a$} | {:<b$} | {:<c$} |", heads[0], heads[1], heads[2]);
    println!("|{0:-<1$}|{0:-<2$}|{0:-<3$}|", "", a + 2, b + 2, c + 2);
    for row in rows {
        println!("| {:<a$} | {:<b$} | {:<c$} |", row.what, row.measured, row.aim);
    }
}

/// The middle one; of an even number the upper.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied()
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
