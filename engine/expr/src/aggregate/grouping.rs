//! The plan of a `group by`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use pseidon_dsl::Diagnostic;

use super::AggregateCall;
use super::function::Function;
use crate::equality::with_equal_bits;

/// A group as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The values of the keys, as bytes that are ordered like the keys.
    pub key: Vec<u8>,
    /// What its functions have computed so far.
    pub state: Vec<u8>,
}

/// Keys and aggregate functions on columns of known types.
#[derive(Debug)]
pub struct Grouping {
    /// How many of the input's first columns are the keys.
    keys: usize,
    functions: Vec<Function>,
    /// The keys, and the results of the functions.
    output: SchemaRef,
    key_rows: RowConverter,
    state_rows: RowConverter,
}

impl Grouping {
    /// A grouping of rows with this schema, of which the first `keys` columns are the keys. The
    /// string beside each call is the name of its results.
    ///
    /// # Errors
    /// Functions that do not exist or do not accept their arguments.
    pub fn new(
        schema: &SchemaRef,
        keys: usize,
        calls: &[(String, AggregateCall)],
    ) -> Result<Grouping, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let functions: Vec<Function> = calls
            .iter()
            .filter_map(|(name, call)| {
                let function = Function::new(call, name, schema);
                function.map_err(|error| errors.push(error)).ok()
            })
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let key_fields = schema.fields()[..keys].to_vec();
        let results = functions.iter().map(|function| function.field.clone());
        let output: Vec<FieldRef> = key_fields.iter().cloned().chain(results).collect();
        let states = functions.iter().flat_map(|function| &function.state);
        let converters = converter(&key_fields).and_then(|keys| Ok((keys, converter(states)?)));
        let (key_rows, state_rows) = converters.map_err(|error| {
            let span = calls.first().map(|(_, call)| call.span).unwrap_or_default();
            let message = "these records cannot be grouped";
            vec![Diagnostic::new(span, message, error.to_string())]
        })?;
        Ok(Grouping {
            keys,
            functions,
            output: Arc::new(Schema::new(output)),
            key_rows,
            state_rows,
        })
    }

    /// The columns of the results: the keys, then one for each function.
    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    /// Whether a state has a sum of decimals in a wider type than theirs.
    pub fn widens_decimals(&self) -> bool {
        self.functions.iter().any(Function::widens_decimals)
    }

    /// Reads the results of groups from their stored states, in their order. If a result does not
    /// fit into its type, its column has a wider one.
    ///
    /// # Errors
    /// The bytes are of another grouping.
    pub fn results(&self, groups: &[Group]) -> Result<RecordBatch, ArrowError> {
        let mut columns = self.key_columns(groups)?;
        let states = self.state_columns(groups)?;
        let numbers: Vec<usize> = (0..groups.len()).collect();
        let mut accumulators = self.accumulators()?;
        self.merge(&mut accumulators, &states, &numbers, groups.len())?;
        for (function, accumulator) in self.functions.iter().zip(&mut accumulators) {
            columns.push(function.results(&accumulator.evaluate(EmitTo::All)?));
        }
        let fields = self.output.fields().iter().zip(&columns);
        let typed = |(field, column): (&FieldRef, &ArrayRef)| {
            let field = field.as_ref().clone();
            field.with_data_type(column.data_type().clone())
        };
        let schema = Schema::new(fields.map(typed).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
    }

    pub(super) fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>, ArrowError> {
        let functions = self.functions.iter();
        functions.map(Function::accumulator).collect()
    }

    /// The keys of rows, as bytes that are ordered like the keys.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<arrow::row::Rows, ArrowError> {
        let columns = &rows.columns()[..self.keys];
        if columns.is_empty() {
            return Ok(self.key_rows.empty_rows(0, 0));
        }
        let columns: Vec<ArrayRef> = columns.iter().map(with_equal_bits).collect();
        self.key_rows.convert_columns(&columns)
    }

    /// Whether all rows are one group.
    pub(super) fn has_keys(&self) -> bool {
        self.keys > 0
    }

    pub(super) fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The states of groups as bytes. `states` has the columns of all functions.
    pub(super) fn states(&self, states: &[ArrayRef]) -> Result<arrow::row::Rows, ArrowError> {
        self.state_rows.convert_columns(states)
    }

    /// Adds stored states to the groups with these numbers, of `total`.
    pub(super) fn merge(
        &self,
        accumulators: &mut [Box<dyn GroupsAccumulator>],
        states: &[ArrayRef],
        numbers: &[usize],
        total: usize,
    ) -> Result<(), ArrowError> {
        let mut rest = states;
        for (function, accumulator) in self.functions.iter().zip(accumulators) {
            let (own, others) = rest.split_at(function.state.len());
            accumulator.merge_batch(own, numbers, total)?;
            rest = others;
        }
        Ok(())
    }

    fn key_columns(&self, groups: &[Group]) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.keys == 0 {
            return Ok(Vec::new());
        }
        let parser = self.key_rows.parser();
        let keys = groups.iter().map(|group| parser.parse(&group.key));
        self.key_rows.convert_rows(keys)
    }

    pub(super) fn state_columns(&self, groups: &[Group]) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.state_rows.parser();
        let states = groups.iter().map(|group| parser.parse(&group.state));
        self.state_rows.convert_rows(states)
    }
}

fn converter<'f>(
    fields: impl IntoIterator<Item = &'f FieldRef>,
) -> Result<RowConverter, ArrowError> {
    let sorted = fields
        .into_iter()
        .map(|field| SortField::new(field.data_type().clone()));
    RowConverter::new(sorted.collect())
}
