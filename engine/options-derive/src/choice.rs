//! `#[derive(Choice)]`: an enum of names.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields};

use crate::attribute::OptionAttribute;
use crate::kebab_case;

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(input, "a choice is an enum"));
    };
    let mut variants = Vec::new();
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a choice has no fields"));
        }
        let attribute = OptionAttribute::read(&variant.attrs)?;
        names.push(attribute.name.unwrap_or_else(|| kebab_case(&variant.ident)));
        variants.push(&variant.ident);
    }
    let choice = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::pseidon_plugin::options::Choice for #choice {
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn named(name: &str) -> ::core::option::Option<Self> {
                match name {
                    #(#names => ::core::option::Option::Some(Self::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    #(Self::#variants => #names,)*
                }
            }
        }

        #[automatically_derived]
        impl ::pseidon_plugin::options::OptionValue for #choice {
            const KIND: ::pseidon_plugin::spec::OptionKind =
                ::pseidon_plugin::spec::OptionKind::Choice(
                    <Self as ::pseidon_plugin::options::Choice>::NAMES,
                );

            fn parse(
                argument: &::pseidon_plugin::options::Argument<'_>,
            ) -> ::pseidon_plugin::options::ParseResult<Self> {
                argument.choice()
            }

            fn identity(&self) -> ::core::option::Option<String> {
                ::core::option::Option::Some(::pseidon_plugin::options::Choice::name(self).to_owned())
            }
        }
    })
}
