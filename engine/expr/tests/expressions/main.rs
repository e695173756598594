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
mod groups;
mod integers;
mod large;
mod lists;
mod numbers;
mod ranges;
