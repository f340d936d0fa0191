//! `flagside version`.

/// The version, and the revision if the build knew it (`FLAGSIDE_REVISION`).
pub(super) fn text() -> String {
    match option_env!("FLAGSIDE_REVISION").filter(|revision| !revision.is_empty()) {
        Some(revision) => format!("flagside {} ({revision})\n", env!("CARGO_PKG_VERSION")),
        None => format!("flagside {}\n", env!("CARGO_PKG_VERSION")),
    }
}
