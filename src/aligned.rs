//! Rows of cells as lines.

use pseidon_dsl::printable;

/// The largest width of a column, in characters. A longer cell moves the rest of its line.
const MAX_WIDTH: usize = 100;

/// Rows of cells as lines with aligned columns, two spaces apart. Cells are printable, since the
/// names of files and answers of servers are among them.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .filter(|width| *width <= MAX_WIDTH)
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let rows = [vec!["a\n\u{1b}[2Jb".to_owned(), "é".to_owned()]];
        assert_eq!(aligned(&rows), "a\\n\\u{1b}[2Jb  é\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows = [row(&["a", "bcd", ""]), row(&["äöü", "e"])];
        assert_eq!(aligned(&rows), "a    bcd\näöü  e\n");
    }

    #[test]
    fn a_very_long_cell_does_not_widen_its_column() {
        let long = "x".repeat(70_000);
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec![long.clone(), "c".to_owned()],
        ];
        assert_eq!(aligned(&rows), format!("a  b\n{long}  c\n"));
    }
}
