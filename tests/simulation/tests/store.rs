//! The simulated store does what every store does.

use std::collections::HashMap;

use parking_lot::Mutex;
use pseidon_delivery::conformance;
use pseidon_simulation::store::Direct;

#[test]
fn the_simulated_store_passes_the_conformance_tests() {
    let stores: Mutex<HashMap<String, Direct>> = Mutex::default();
    conformance::check(&|pipeline| Box::new(stores.lock().entry(pipeline.into()).or_default().clone()));
}
