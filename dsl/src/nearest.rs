//! The name that the user may have meant.

/// The candidate most like `name`, if there is one that a typing mistake or two would turn into it.
/// Case makes no difference.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
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
