//! Thrift's calls without generated code: arguments and results are trees of numbered fields.

use std::collections::BTreeMap;

use thrift::protocol::{
    TFieldIdentifier, TInputProtocol, TListIdentifier, TMessageIdentifier, TMessageType,
    TOutputProtocol, TStructIdentifier, TType, verify_expected_sequence_number,
};
use thrift::{Error, ProtocolError, ProtocolErrorKind};

/// How deep lists and structs may be in one another: reading them needs the stack.
const DEEPEST: usize = 32;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    /// Text or bytes, which Thrift does not tell apart.
    Bytes(Vec<u8>),
    Struct(Struct),
    List(Vec<Value>),
}

/// A struct's fields by their numbers. Maps, sets and the rarer numbers are left out when a struct
/// is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Struct(BTreeMap<i16, Value>);

impl Struct {
    /// With one more field.
    pub(crate) fn with(mut self, id: i16, value: Value) -> Struct {
        self.0.insert(id, value);
        self
    }

    /// With one more field that is a text.
    pub(crate) fn with_text(self, id: i16, text: &str) -> Struct {
        self.with(id, Value::Bytes(text.as_bytes().to_vec()))
    }

    pub(crate) fn get(&self, id: i16) -> Option<&Value> {
        self.0.get(&id)
    }

    pub(crate) fn text(&self, id: i16) -> Option<String> {
        self.get(id)?.text()
    }

    pub(crate) fn number(&self, id: i16) -> Option<i32> {
        match self.get(id)? {
            Value::I32(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn structure(&self, id: i16) -> Option<&Struct> {
        self.get(id)?.structure()
    }

    pub(crate) fn list(&self, id: i16) -> Option<&[Value]> {
        match self.get(id)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
}

impl Value {
    /// A text; what is not UTF-8 in it is replaced.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    pub(crate) fn structure(&self) -> Option<&Struct> {
        match self {
            Value::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    fn kind(&self) -> TType {
        match self {
            Value::Bool(_) => TType::Bool,
            Value::I16(_) => TType::I16,
            Value::I32(_) => TType::I32,
            Value::I64(_) => TType::I64,
            Value::Double(_) => TType::Double,
            Value::Bytes(_) => TType::String,
            Value::Struct(_) => TType::Struct,
            Value::List(_) => TType::List,
        }
    }
}

/// A connection over which calls are made.
pub(crate) struct Client {
    input: Box<dyn TInputProtocol>,
    output: Box<dyn TOutputProtocol>,
    sequence: i32,
}

impl Client {
    pub(crate) fn new(input: Box<dyn TInputProtocol>, output: Box<dyn TOutputProtocol>) -> Client {
        Client {
            input,
            output,
            sequence: 0,
        }
    }

    /// Makes one call and waits for its result: field 0 is what it returns, the others are the
    /// exceptions that it may throw.
    pub(crate) fn call(&mut self, name: &str, arguments: &Struct) -> thrift::Result<Struct> {
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

fn receive(input: &mut dyn TInputProtocol, sequence: i32) -> thrift::Result<Struct> {
    let message = input.read_message_begin()?;
    verify_expected_sequence_number(sequence, message.sequence_number)?;
    if message.message_type == TMessageType::Exception {
        return Err(Error::Application(
            Error::read_application_error_from_in_protocol(input)?,
        ));
    }
    let result = read_struct(input, DEEPEST)?;
    input.read_message_end()?;
    Ok(result)
}

fn write_struct(output: &mut dyn TOutputProtocol, fields: &Struct) -> thrift::Result<()> {
    output.write_struct_begin(&TStructIdentifier::new(""))?;
    for (id, value) in &fields.0 {
        output.write_field_begin(&TFieldIdentifier::new("", value.kind(), *id))?;
        write_value(output, value)?;
        output.write_field_end()?;
    }
    output.write_field_stop()?;
    output.write_struct_end()
}

fn write_value(output: &mut dyn TOutputProtocol, value: &Value) -> thrift::Result<()> {
    match value {
        Value::Bool(value) => output.write_bool(*value),
        Value::I16(value) => output.write_i16(*value),
        Value::I32(value) => output.write_i32(*value),
        Value::I64(value) => output.write_i64(*value),
        Value::Double(value) => output.write_double(*value),
        Value::Bytes(value) => output.write_bytes(value),
        Value::Struct(fields) => write_struct(output, fields),
        Value::List(items) => {
            let kind = items.first().map_or(TType::Struct, Value::kind);
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

fn read_struct(input: &mut dyn TInputProtocol, depth: usize) -> thrift::Result<Struct> {
    let mut fields = Struct::default();
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

/// `None` for a kind that is left out.
fn read_value(
    input: &mut dyn TInputProtocol,
    kind: TType,
    depth: usize,
) -> thrift::Result<Option<Value>> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::Protocol(ProtocolError::new(
            ProtocolErrorKind::DepthLimit,
            "the message is nested too deep",
        )));
    };
    let value = match kind {
        TType::Bool => Value::Bool(input.read_bool()?),
        TType::I16 => Value::I16(input.read_i16()?),
        TType::I32 => Value::I32(input.read_i32()?),
        TType::I64 => Value::I64(input.read_i64()?),
        TType::Double => Value::Double(input.read_double()?),
        TType::String => Value::Bytes(input.read_bytes()?),
        TType::Struct => Value::Struct(read_struct(input, depth)?),
        TType::List => {
            let list = input.read_list_begin()?;
            let mut items = Vec::new();
            for _ in 0..list.size {
                items.extend(read_value(input, list.element_type, depth)?);
            }
            input.read_list_end()?;
            Value::List(items)
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

    fn value() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i16>().prop_map(Value::I16),
            any::<i32>().prop_map(Value::I32),
            any::<i64>().prop_map(Value::I64),
            (-1e9..1e9).prop_map(Value::Double),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        plain.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::btree_map(any::<i16>(), inner.clone(), 0..5)
                    .prop_map(|fields| Value::Struct(Struct(fields))),
                (inner, 0..4_usize).prop_map(|(item, times)| Value::List(vec![item; times])),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(fields in proptest::collection::btree_map(any::<i16>(), value(), 0..5)) {
            let fields = Struct(fields);
            let mut bytes = Vec::new();
            write_struct(&mut TBinaryOutputProtocol::new(&mut bytes, true), &fields).unwrap();
            prop_assert_eq!(read_struct(&mut TBinaryInputProtocol::new(bytes.as_slice(), true), DEEPEST).unwrap(), fields);
        }

        // What anything that listens at the port may answer.
        #[test]
        fn no_answer_panics(head in any::<bool>(), body in proptest::collection::vec(prop_oneof![0..16_u8, any::<u8>()], 0..200)) {
            let reply: &[u8] = if head { b"\x80\x01\x00\x02\x00\x00\x00\x01f\x00\x00\x00\x01" } else { b"" };
            let bytes = [reply, &body].concat();
            let _ = receive(&mut TBinaryInputProtocol::new(bytes.as_slice(), true), 1);
        }
    }

    #[test]
    fn lists_in_lists_in_lists_are_refused() {
        // A field of a list of one list of one list …
        let bytes = [
            &b"\x0f\x00\x01"[..],
            &b"\x0f\x00\x00\x00\x01".repeat(1_000_000),
        ]
        .concat();
        let error = read_struct(
            &mut TBinaryInputProtocol::new(bytes.as_slice(), true),
            DEEPEST,
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
