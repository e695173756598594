//! `#[derive(Options)]`: a struct whose fields are options.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Field, Fields, Ident};

use crate::attribute::{OptionAttribute, documentation};
use crate::kebab_case;

/// What a field contributes to the generated code.
#[derive(Default)]
struct Parts {
    /// The constant with the declaration of the option.
    declaration: TokenStream,
    /// An expression for the declarations of the field, a slice.
    declared: TokenStream,
    /// An expression that reads the value, an `Option`.
    read: TokenStream,
    /// A statement that adds the value to what identifies the stage.
    identity: TokenStream,
    /// A statement that adds the expressions of the value.
    exprs: TokenStream,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut identifiers = Vec::new();
    let mut parts = Vec::new();
    let mut positional = Vec::new();
    for field in named_fields(input)? {
        let identifier = field
            .ident
            .as_ref()
            .ok_or_else(|| Error::new_spanned(field, "an option has a name"))?;
        let attribute = OptionAttribute::read(&field.attrs)?;
        if attribute.positional {
            positional.push(name(identifier, &attribute));
        }
        parts.push(parts_of(field, identifier, &attribute));
        identifiers.push(identifier);
    }
    let declarations = parts.iter().map(|part| &part.declaration);
    let declared = parts.iter().map(|part| &part.declared);
    let reads = parts.iter().map(|part| &part.read);
    let identities = parts.iter().map(|part| &part.identity);
    let exprs = parts.iter().map(|part| &part.exprs);
    let group = &input.ident;
    Ok(quote! {
        const _: () = {
            use ::pseidon_plugin::{options as __options, spec as __spec};

            #(#declarations)*
            const __PARTS: &[&[__spec::OptionSpec]] = &[#(#declared),*];

            #[automatically_derived]
            #[allow(unused_variables)]
            impl __options::Options for #group {
                const DECLARED: &'static [__spec::OptionSpec] =
                    &__options::concat::<{ __options::total(__PARTS) }>(__PARTS);
                const POSITIONAL: &'static [&'static str] = &[#(#positional),*];

                fn read(reader: &mut __options::Reader<'_>) -> Option<Self> {
                    #(let #identifiers = #reads;)*
                    Some(Self { #(#identifiers: #identifiers?),* })
                }

                fn identity(&self, parts: &mut Vec<(&'static str, String)>) {
                    #(#identities)*
                }

                fn exprs<'a>(&'a self, found: &mut Vec<&'a __options::Expr>) {
                    #(#exprs)*
                }
            }

            #[automatically_derived]
            impl __options::OptionValue for #group {
                const KIND: __spec::OptionKind =
                    __spec::OptionKind::Map(<Self as __options::Options>::DECLARED);

                fn parse(argument: &__options::Argument<'_>) -> __options::ParseResult<Self> {
                    argument.map()
                }

                fn exprs<'a>(&'a self, found: &mut Vec<&'a __options::Expr>) {
                    __options::Options::exprs(self, found);
                }
            }
        };
    })
}

fn named_fields(input: &DeriveInput) -> syn::Result<impl Iterator<Item = &Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter()),
            fields => Err(Error::new_spanned(fields, "options have names")),
        },
        _ => Err(Error::new_spanned(
            input,
            "a group of options is a struct; see `Choice` for an enum",
        )),
    }
}

fn name(identifier: &Ident, attribute: &OptionAttribute) -> String {
    attribute
        .name
        .clone()
        .unwrap_or_else(|| kebab_case(identifier))
}

fn parts_of(field: &Field, identifier: &Ident, attribute: &OptionAttribute) -> Parts {
    if attribute.span {
        return Parts {
            declared: quote!(&[]),
            read: quote!(Some(reader.span())),
            ..Parts::default()
        };
    }
    let ty = &field.ty;
    if attribute.flatten {
        return Parts {
            declared: quote!(<#ty as __options::Options>::DECLARED),
            read: quote!(<#ty as __options::Options>::read(reader)),
            identity: quote!(__options::Options::identity(&self.#identifier, parts);),
            exprs: quote!(__options::Options::exprs(&self.#identifier, found);),
            ..Parts::default()
        };
    }
    let constant = format_ident!("__OPTION_{}", identifier.to_string().to_uppercase());
    let name = name(identifier, attribute);
    let doc = documentation(&field.attrs);
    let default = match &attribute.default {
        Some(text) => quote!(__spec::OptionDefault::Value(#text)),
        None => quote!(__options::default_of::<#ty>()),
    };
    let identity = if attribute.free {
        TokenStream::new()
    } else {
        quote! {
            let identity = __options::OptionValue::identity(&self.#identifier);
            parts.extend(identity.map(|identity| (#name, identity)));
        }
    };
    Parts {
        declaration: quote! {
            const #constant: __spec::OptionSpec = __spec::OptionSpec {
                name: #name,
                kind: <#ty as __options::OptionValue>::KIND,
                default: #default,
                doc: #doc,
            };
        },
        declared: quote!(&[#constant]),
        read: quote!(reader.value(&#constant)),
        identity,
        exprs: quote!(__options::OptionValue::exprs(&self.#identifier, found);),
    }
}
