//! Expressions as users write them, through the public face of the crate.

mod arbitrary;
mod demand;
mod evaluate;
mod fixture;
mod large;
mod mistakes;
