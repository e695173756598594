//! The attribute `#[option(…)]` and the doc comment of a field or a variant.

use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta};

/// The arguments of `#[option(…)]`, which the derive macro explains.
#[derive(Default)]
pub(crate) struct OptionAttribute {
    pub(crate) name: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) positional: bool,
    pub(crate) free: bool,
    pub(crate) flatten: bool,
    pub(crate) span: bool,
}

impl OptionAttribute {
    pub(crate) fn read(attributes: &[Attribute]) -> syn::Result<OptionAttribute> {
        let mut read = OptionAttribute::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("option")) {
            attribute.parse_nested_meta(|meta| {
                let Some(key) = meta.path.get_ident().map(ToString::to_string) else {
                    return Err(meta.error("expected a word"));
                };
                match key.as_str() {
                    "name" => read.name = Some(meta.value()?.parse::<LitStr>()?.value()),
                    "default" => read.default = Some(meta.value()?.parse::<LitStr>()?.value()),
                    "positional" => read.positional = true,
                    "free" => read.free = true,
                    "flatten" => read.flatten = true,
                    "span" => read.span = true,
                    _ => {
                        return Err(
                            meta.error("expected name, default, positional, free, flatten or span")
                        );
                    }
                }
                Ok(())
            })?;
        }
        Ok(read)
    }
}

/// The doc comment as one paragraph.
pub(crate) fn documentation(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes.iter().filter_map(doc_line).collect();
    lines.join(" ")
}

/// A line of a doc comment, which the compiler passes on as `#[doc = "…"]`.
fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    match &meta.value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) if meta.path.is_ident("doc") => Some(text.value().trim().to_owned()),
        _ => None,
    }
}
