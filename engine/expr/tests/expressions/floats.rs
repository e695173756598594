//! Numbers that are too large for a float.

use crate::fixture::check;

#[test]
fn casts_of_numbers_that_are_too_large() {
    check(&[
        (
            "try_cast('1e400' as double)",
            "float64",
            ["NULL", "NULL", "NULL"],
        ),
        (
            "try_cast(small || 'e308' as double)",
            "float64",
            ["1e308", "NULL", "NULL"],
        ),
        (
            "try_cast(small * 1e38 as real)",
            "float32",
            ["1e38", "2e38", "3e38"],
        ),
        (
            "try_cast(small * 2e38 as real)",
            "float32",
            ["2e38", "NULL", "NULL"],
        ),
        (
            "try_cast(huge as double)",
            "float64",
            ["NULL", "1.0", "NULL"],
        ),
        ("huge > 5", "boolean", ["true", "false", "NULL"]),
        ("'inf'::double", "float64", ["inf", "inf", "inf"]),
        ("'-Infinity'::real", "float32", ["-inf", "-inf", "-inf"]),
        ("(1 / 0.0)::real", "float32", ["inf", "inf", "inf"]),
        (
            "(small || 'e-400')::double",
            "float64",
            ["0.0", "0.0", "0.0"],
        ),
    ]);
}
