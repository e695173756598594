//! Sets the commit and the features of the binary, for `pseidon --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=PSEIDON_COMMIT={commit}");
    let feature =
        |(name, _): (String, String)| name.strip_prefix("CARGO_FEATURE_").map(feature_name);
    let mut features: Vec<String> = std::env::vars().filter_map(feature).collect();
    features.sort();
    let features = if features.is_empty() {
        "none".to_owned()
    } else {
        features.join(" ")
    };
    println!("cargo::rustc-env=PSEIDON_FEATURES={features}");
    // The file that changes with each commit. Without git there is none, and nothing to watch.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    match log.filter(|log| Path::new(log).exists()) {
        Some(log) => println!("cargo::rerun-if-changed={log}"),
        None => println!("cargo::rerun-if-changed=build.rs"),
    }
}

/// The feature's name as in Cargo.toml.
fn feature_name(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
