//! Memory use of Arrow columns.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData};

/// Adds up the memory of columns. Memory that several columns share counts once.
#[derive(Debug, Default)]
pub struct ArrayMemory {
    /// The start addresses of the buffers that have been counted.
    seen: HashSet<usize>,
    bytes: usize,
}

impl ArrayMemory {
    /// The bytes of all added columns.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a column: all of its buffers, even if the column uses only a part of them.
    pub fn add(&mut self, column: &dyn Array) {
        self.add_data(&column.to_data());
    }

    /// Adds memory that is not a column, which is identified by its address.
    pub(crate) fn add_shared(&mut self, address: usize, bytes: usize) {
        if self.seen.insert(address) {
            self.bytes += bytes;
        }
    }

    fn add_data(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            // Slices of a buffer are identified by the allocation that they keep alive.
            if self.seen.insert(buffer.data_ptr().as_ptr() as usize) {
                self.bytes += buffer.capacity();
            }
        }
        data.child_data()
            .iter()
            .for_each(|child| self.add_data(child));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn shared_buffers_count_once() {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..1000).map(|n| format!("value {n}")),
        ));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let mut memory = ArrayMemory::default();
        memory.add(&text);
        let alone = memory.bytes();
        assert!((8000 + 4000..64 << 10).contains(&alone), "{alone}");
        memory.add(&text.slice(10, 10));
        memory.add(&text.clone());
        assert_eq!(memory.bytes(), alone);
        memory.add(&numbers);
        assert!(memory.bytes() >= alone + 8000, "{}", memory.bytes());
    }

    #[test]
    fn nested_values_count() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..100).map(|n| Some(vec![Some(n), None, Some(n)])),
        );
        let mut memory = ArrayMemory::default();
        memory.add(&lists);
        assert!(memory.bytes() >= 100 * 3 * 8, "{}", memory.bytes());
    }
}
