//! Tests of expressions as users write them, through the public API.

mod arbitrary;
mod bits;
mod bounds;
mod compiled;
mod demand;
mod documented;
mod errors;
mod evaluate;
mod fixture;
mod floats;
mod functions;
mod group_matrix;
mod groups;
mod integers;
mod large;
mod lists;
mod matrix;
mod numbers;
mod ranges;
mod sets;
mod times;
