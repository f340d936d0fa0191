//! Which units are equal when case does not count.
//!
//! .NET calls units equal that have the same lower case; with the invariant culture the dotted and the
//! dotless i of Turkish are equal to nothing else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Units that are equal to others, each with all of its group.
static GROUPS: LazyLock<BTreeMap<u16, Box<[u16]>>> = LazyLock::new(|| {
    let mut of_lower: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for unit in 0..=u16::MAX {
        if let Some(lower) = lower(unit) {
            of_lower.entry(lower).or_insert_with(|| vec![lower]).push(unit);
        }
    }
    let groups = of_lower.into_values();
    groups
        .flat_map(|group| {
            group
                .clone()
                .into_iter()
                .map(move |unit| (unit, group.clone().into_boxed_slice()))
        })
        .collect()
});

/// The lower case of a unit that has another.
fn lower(unit: u16) -> Option<u16> {
    let c = char::from_u32(u32::from(unit))?;
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) if lower != c => u16::try_from(u32::from(lower)).ok(),
        _ => None,
    }
}

/// The units that are equal to one, perhaps itself among them.
pub(super) fn equivalents(unit: u16) -> impl Iterator<Item = u16> {
    GROUPS.get(&unit).into_iter().flatten().copied()
}

/// Adds what is equal to units of the ranges.
pub(super) fn add_equivalents(ranges: &mut Vec<(u16, u16)>) {
    let given = std::mem::take(ranges);
    for &(first, last) in &given {
        let inside = |unit: u16| first <= unit && unit <= last;
        for group in GROUPS.range(first..=last).map(|(_, group)| group) {
            ranges.extend(
                group
                    .iter()
                    .filter(|unit| !inside(**unit))
                    .map(|unit| (*unit, *unit)),
            );
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges.splice(0..0, given);
}
