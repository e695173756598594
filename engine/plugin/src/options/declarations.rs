//! Constant functions that the derive macro uses to build declarations.

use crate::options::OptionValue;
use crate::spec::{OptionDefault, OptionKind, OptionSpec};

/// The default of an option of this type whose declaration has none.
pub const fn default_of<T: OptionValue>() -> OptionDefault {
    if T::OPTIONAL {
        OptionDefault::None
    } else {
        OptionDefault::Required
    }
}

/// The number of options in all parts.
pub const fn total(parts: &[&[OptionSpec]]) -> usize {
    let (mut total, mut part) = (0, 0);
    while part < parts.len() {
        total += parts[part].len();
        part += 1;
    }
    total
}

/// The options of all parts, which are `N` in total.
pub const fn concat<const N: usize>(parts: &[&[OptionSpec]]) -> [OptionSpec; N] {
    const NONE: OptionSpec = OptionSpec {
        name: "",
        kind: OptionKind::Bool,
        default: OptionDefault::None,
        doc: "",
    };
    let mut all = [NONE; N];
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[count] = parts[part][index];
            count += 1;
            index += 1;
        }
        part += 1;
    }
    all
}
