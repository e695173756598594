//! The indexes of sources and sinks in a plan, and vectors with one value for each sink.

use std::ops::{Index, IndexMut};

/// The index of a source in [`Plan::sources`](crate::Plan::sources), for
/// [`Plan::source`](crate::Plan::source).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceIndex(pub(crate) usize);

/// The index of a sink in [`Plan::sinks`](crate::Plan::sinks), and in any other [`PerSink`] of the
/// same plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkIndex(usize);

/// A vector with one value for each sink of a plan, in their order. Only a [`SinkIndex`] is an
/// index of it.
#[derive(Clone, Debug)]
pub struct PerSink<T>(Vec<T>);

impl<T> PerSink<T> {
    /// Adds the value of the next sink, and returns the sink's index.
    pub fn push(&mut self, value: T) -> SinkIndex {
        self.0.push(value);
        SinkIndex(self.0.len() - 1)
    }

    /// The number of sinks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no sinks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The indexes of the sinks.
    pub fn indexes(&self) -> impl Iterator<Item = SinkIndex> + use<T> {
        (0..self.0.len()).map(SinkIndex)
    }

    /// The values, each with the index of its sink.
    pub fn enumerate(&self) -> impl Iterator<Item = (SinkIndex, &T)> {
        self.indexes().zip(&self.0)
    }
}

impl<T> Default for PerSink<T> {
    fn default() -> Self {
        PerSink(Vec::new())
    }
}

impl<T> Index<SinkIndex> for PerSink<T> {
    type Output = T;

    fn index(&self, sink: SinkIndex) -> &T {
        &self.0[sink.0]
    }
}

impl<T> IndexMut<SinkIndex> for PerSink<T> {
    fn index_mut(&mut self, sink: SinkIndex) -> &mut T {
        &mut self.0[sink.0]
    }
}

impl<T> FromIterator<T> for PerSink<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        PerSink(values.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a PerSink<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut PerSink<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}
