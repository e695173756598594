//! Suggestions for misspelled names.

/// The candidate that is most similar to `name`, ignoring case. `None` if every candidate differs
/// in more than a third of the characters of `name`, at least 1 and at most 3. A single character is
/// similar to itself only.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let allowed = match name.chars().count() {
        0 | 1 => 0,
        count => (count / 3).clamp(1, 3),
    };
    let distances = candidates.into_iter().map(|candidate| {
        (
            strsim::osa_distance(&name, &candidate.to_lowercase()),
            candidate,
        )
    });
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
