//! Rows of cells as lines.

/// Rows of cells as lines with aligned columns, two spaces apart. Control characters, which a
/// file's name may have, are escaped as in Rust: a cell neither ends a line nor moves the cursor.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escaped(cell)).collect())
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
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

/// Escapes control characters as in Rust.
pub(crate) fn escaped(cell: &str) -> String {
    let escaped = |char: char| match char.is_control() {
        true => char.escape_default().to_string(),
        false => char.to_string(),
    };
    cell.chars().map(escaped).collect()
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
}
