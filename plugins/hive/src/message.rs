//! Thrift calls without generated code: arguments and results are trees of numbered fields.

use std::collections::BTreeMap;

use thrift::protocol::{
    TFieldIdentifier, TInputProtocol, TListIdentifier, TMessageIdentifier, TMessageType,
    TOutputProtocol, TStructIdentifier, TType, verify_expected_sequence_number,
};
use thrift::{Error, ProtocolError, ProtocolErrorKind};

/// The maximum nesting of lists and structs. Reading them is recursive and uses the stack.
const MAX_DEPTH: usize = 32;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ThriftValue {
    Bool(bool),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    /// A string or binary, which Thrift does not distinguish.
    Bytes(Vec<u8>),
    Struct(ThriftStruct),
    List(Vec<ThriftValue>),
}

/// The fields of a struct by their IDs. Maps, sets and the rarer number types are skipped when a
/// struct is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ThriftStruct(BTreeMap<i16, ThriftValue>);

impl ThriftStruct {
    /// Adds a field, or replaces the one with this ID.
    pub(crate) fn with(mut self, id: i16, value: ThriftValue) -> ThriftStruct {
        self.0.insert(id, value);
        self
    }

    /// Adds a string field.
    pub(crate) fn with_text(self, id: i16, text: &str) -> ThriftStruct {
        self.with(id, ThriftValue::Bytes(text.as_bytes().to_vec()))
    }

    pub(crate) fn get(&self, id: i16) -> Option<&ThriftValue> {
        self.0.get(&id)
    }

    pub(crate) fn text(&self, id: i16) -> Option<String> {
        self.get(id)?.text()
    }

    pub(crate) fn number(&self, id: i16) -> Option<i32> {
        match self.get(id)? {
            ThriftValue::I32(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn structure(&self, id: i16) -> Option<&ThriftStruct> {
        self.get(id)?.structure()
    }

    pub(crate) fn list(&self, id: i16) -> Option<&[ThriftValue]> {
        match self.get(id)? {
            ThriftValue::List(items) => Some(items),
            _ => None,
        }
    }
}

impl ThriftValue {
    /// The value as a string. Invalid UTF-8 is replaced.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            ThriftValue::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    pub(crate) fn structure(&self) -> Option<&ThriftStruct> {
        match self {
            ThriftValue::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    fn kind(&self) -> TType {
        match self {
            ThriftValue::Bool(_) => TType::Bool,
            ThriftValue::I16(_) => TType::I16,
            ThriftValue::I32(_) => TType::I32,
            ThriftValue::I64(_) => TType::I64,
            ThriftValue::Double(_) => TType::Double,
            ThriftValue::Bytes(_) => TType::String,
            ThriftValue::Struct(_) => TType::Struct,
            ThriftValue::List(_) => TType::List,
        }
    }
}

/// A connection for calls.
pub(crate) struct ThriftClient {
    input: Box<dyn TInputProtocol>,
    output: Box<dyn TOutputProtocol>,
    sequence: i32,
}

impl ThriftClient {
    pub(crate) fn new(
        input: Box<dyn TInputProtocol>,
        output: Box<dyn TOutputProtocol>,
    ) -> ThriftClient {
        ThriftClient {
            input,
            output,
            sequence: 0,
        }
    }

    /// Sends one call and waits for its result. Field 0 of the result is the return value; the
    /// other fields are the exceptions that the call may throw.
    pub(crate) fn call(
        &mut self,
        name: &str,
        arguments: &ThriftStruct,
    ) -> thrift::Result<ThriftStruct> {
        self.sequence = self.sequence.wrapping_add(1);
        self.output.write_message_begin(&TMessageIdentifier::new(
            name,
            TMessageType::Call,
            self.sequence,
        ))?;
        write_struct(self.output.as_mut(), arguments)?;
        self.output.write_message_end()?;
        self.output.flush()?;
        receive(self.input.as_mut(), self.sequence)
    }
}

fn receive(input: &mut dyn TInputProtocol, sequence: i32) -> thrift::Result<ThriftStruct> {
    let message = input.read_message_begin()?;
    verify_expected_sequence_number(sequence, message.sequence_number)?;
    if message.message_type == TMessageType::Exception {
        return Err(Error::Application(
            Error::read_application_error_from_in_protocol(input)?,
        ));
    }
    let result = read_struct(input, MAX_DEPTH)?;
    input.read_message_end()?;
    Ok(result)
}

fn write_struct(output: &mut dyn TOutputProtocol, fields: &ThriftStruct) -> thrift::Result<()> {
    output.write_struct_begin(&TStructIdentifier::new(""))?;
    for (id, value) in &fields.0 {
        output.write_field_begin(&TFieldIdentifier::new("", value.kind(), *id))?;
        write_value(output, value)?;
        output.write_field_end()?;
    }
    output.write_field_stop()?;
    output.write_struct_end()
}

fn write_value(output: &mut dyn TOutputProtocol, value: &ThriftValue) -> thrift::Result<()> {
    match value {
        ThriftValue::Bool(value) => output.write_bool(*value),
        ThriftValue::I16(value) => output.write_i16(*value),
        ThriftValue::I32(value) => output.write_i32(*value),
        ThriftValue::I64(value) => output.write_i64(*value),
        ThriftValue::Double(value) => output.write_double(*value),
        ThriftValue::Bytes(value) => output.write_bytes(value),
        ThriftValue::Struct(fields) => write_struct(output, fields),
        ThriftValue::List(items) => {
            let kind = items.first().map_or(TType::Struct, ThriftValue::kind);
            output.write_list_begin(&TListIdentifier::new(
                kind,
                i32::try_from(items.len()).unwrap_or(i32::MAX),
            ))?;
            items
                .iter()
                .try_for_each(|item| write_value(output, item))?;
            output.write_list_end()
        }
    }
}

fn read_struct(input: &mut dyn TInputProtocol, depth: usize) -> thrift::Result<ThriftStruct> {
    let mut fields = ThriftStruct::default();
    input.read_struct_begin()?;
    loop {
        let field = input.read_field_begin()?;
        if field.field_type == TType::Stop {
            break;
        }
        if let Some(value) = read_value(input, field.field_type, depth)? {
            fields.0.insert(field.id.unwrap_or_default(), value);
        }
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    Ok(fields)
}

/// Returns `None` for a type that is skipped.
fn read_value(
    input: &mut dyn TInputProtocol,
    kind: TType,
    depth: usize,
) -> thrift::Result<Option<ThriftValue>> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::Protocol(ProtocolError::new(
            ProtocolErrorKind::DepthLimit,
            "the message is nested too deeply",
        )));
    };
    let value = match kind {
        TType::Bool => ThriftValue::Bool(input.read_bool()?),
        TType::I16 => ThriftValue::I16(input.read_i16()?),
        TType::I32 => ThriftValue::I32(input.read_i32()?),
        TType::I64 => ThriftValue::I64(input.read_i64()?),
        TType::Double => ThriftValue::Double(input.read_double()?),
        TType::String => ThriftValue::Bytes(input.read_bytes()?),
        TType::Struct => ThriftValue::Struct(read_struct(input, depth)?),
        TType::List => {
            let list = input.read_list_begin()?;
            let mut items = Vec::new();
            for _ in 0..list.size {
                items.extend(read_value(input, list.element_type, depth)?);
            }
            input.read_list_end()?;
            ThriftValue::List(items)
        }
        other => {
            input.skip(other)?;
            return Ok(None);
        }
    };
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thrift::protocol::{TBinaryInputProtocol, TBinaryOutputProtocol};

    use super::*;

    fn value() -> impl Strategy<Value = ThriftValue> {
        let plain = prop_oneof![
            any::<bool>().prop_map(ThriftValue::Bool),
            any::<i16>().prop_map(ThriftValue::I16),
            any::<i32>().prop_map(ThriftValue::I32),
            any::<i64>().prop_map(ThriftValue::I64),
            (-1e9..1e9).prop_map(ThriftValue::Double),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(ThriftValue::Bytes),
        ];
        plain.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::btree_map(any::<i16>(), inner.clone(), 0..5)
                    .prop_map(|fields| ThriftValue::Struct(ThriftStruct(fields))),
                (inner, 0..4_usize).prop_map(|(item, times)| ThriftValue::List(vec![item; times])),
            ]
        })
    }

    proptest! {
        #[test]
        fn structs_round_trip(fields in proptest::collection::btree_map(any::<i16>(), value(), 0..5)) {
            let fields = ThriftStruct(fields);
            let mut bytes = Vec::new();
            write_struct(&mut TBinaryOutputProtocol::new(&mut bytes, true), &fields).unwrap();
            prop_assert_eq!(read_struct(&mut TBinaryInputProtocol::new(bytes.as_slice(), true), MAX_DEPTH).unwrap(), fields);
        }

        // Any program that listens on the port may send arbitrary bytes.
        #[test]
        fn no_response_panics(head in any::<bool>(), body in proptest::collection::vec(prop_oneof![0..16_u8, any::<u8>()], 0..200)) {
            let reply: &[u8] = if head { b"\x80\x01\x00\x02\x00\x00\x00\x01f\x00\x00\x00\x01" } else { b"" };
            let bytes = [reply, &body].concat();
            let _ = receive(&mut TBinaryInputProtocol::new(bytes.as_slice(), true), 1);
        }
    }

    #[test]
    fn deeply_nested_lists_are_rejected() {
        // A field that is a list of one list of one list …
        let bytes = [
            &b"\x0f\x00\x01"[..],
            &b"\x0f\x00\x00\x00\x01".repeat(1_000_000),
        ]
        .concat();
        let error = read_struct(
            &mut TBinaryInputProtocol::new(bytes.as_slice(), true),
            MAX_DEPTH,
        )
        .unwrap_err();
        assert!(
            matches!(
                error,
                Error::Protocol(ProtocolError {
                    kind: ProtocolErrorKind::DepthLimit,
                    ..
                })
            ),
            "{error:?}"
        );
    }
}
