//! Exactly once into Kafka, as a consumer of committed records sees it.
