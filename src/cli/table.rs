//! Tables, paragraphs and figures as a person reads them.

use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use textwrap::Options;

/// Stands where there is nothing that could be counted.
const NOT_THERE: &str = "–";
const LINE_WIDTH: usize = 96;

/// A table whose first column names what the others count. A heading may have several lines.
pub(super) fn table<const COLUMNS: usize>(
    headings: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    let under_the_headings = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(under_the_headings));
    table.set_header(headings);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A text in lines of a width that can be read.
pub(super) fn paragraph(text: &str) -> String {
    textwrap::fill(text, LINE_WIDTH)
}

/// One of several things to say.
pub(super) fn point(text: &str) -> String {
    let options = Options::new(LINE_WIDTH).initial_indent("- ");
    textwrap::fill(text, options.subsequent_indent("  "))
}

/// `12,345`
pub(super) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub(super) fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    if us < 1e3 {
        format!("{us:.0} µs")
    } else {
        format!("{:.2} ms", us / 1e3)
    }
}

/// The figure, or that there is none.
pub(super) fn or_not_there<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| NOT_THERE.to_owned(), show)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn figures_are_grouped_and_times_have_a_unit() {
        let counts = [0, 999, 1_000, 1_234_567].map(|number: u64| count(number));
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let times = [999, 1_000, 12_345].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["999 µs", "1.00 ms", "12.35 ms"]);
    }

    #[test]
    fn figures_end_where_their_headings_end() {
        let row = ["straight".to_owned(), count(5_u32)];
        let text = table(["way", "could not\nconnect"], [row]);
        let ends = ["could not", "connect", "5"].map(|word| {
            let line = text.lines().find(|line| line.ends_with(word));
            line.unwrap().len()
        });
        assert_eq!(ends, [ends[0]; 3], "{text}");
    }
}
