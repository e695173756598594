//! The derive macros of `pseidon_plugin::options`: a struct is a group of options, and an enum is a
//! choice of names.
//!
//! What the macros generate, and how it is used, is documented in `pseidon_plugin::options`.

#![forbid(unsafe_code)]

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attribute;
mod choice;
mod group;

/// Makes a struct a group of options: each field is an option.
///
/// The field's name in kebab case is the option's name, its doc comment is the option's
/// documentation, and its type determines which values are valid. The attribute `#[option(…)]` of a
/// field takes
///
/// - `name = "…"`: another name for the option;
/// - `default = "…"`: the value of a missing option, written as in a string of a pipeline file;
/// - `positional`: the option that the first argument of a stage sets if it is not a map;
/// - `free`: the option affects neither lanes nor what is written, so it may change after a crash;
/// - `flatten`: the field is itself a group, and its options belong to this group;
/// - `span`: the field is not an option, but the position of the group in the file.
#[proc_macro_derive(Options, attributes(option))]
pub fn derive_options(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    group::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an enum of names the value of an option: `:name`, or the name as a string.
///
/// The name of a variant is its identifier in kebab case, or what `#[option(name = "…")]` says.
#[proc_macro_derive(Choice, attributes(option))]
pub fn derive_choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    choice::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// An identifier such as `MaxOpen` or `max_open` in kebab case: `max-open`.
fn kebab_case(identifier: &syn::Ident) -> String {
    let mut name = String::new();
    for c in identifier.to_string().chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        match c {
            '_' => name.push('-'),
            c => name.extend(c.to_lowercase()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;
    use syn::Ident;

    #[test]
    fn identifiers_become_kebab_case() {
        for (identifier, name) in [
            ("format", "format"),
            ("max_open_files", "max-open-files"),
            ("Earliest", "earliest"),
            ("ExactlyOnce", "exactly-once"),
        ] {
            let identifier = Ident::new(identifier, Span::call_site());
            assert_eq!(super::kebab_case(&identifier), name);
        }
    }
}
