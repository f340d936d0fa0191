//! Request targets: paths, and a prefix to strip (the first line of the input).

#![no_main]

use flagside::key::Target;
use flagside::metrics::Route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (prefix, path) = text.split_once('\n').unwrap_or(("", text));
    let prefix = if prefix.starts_with('/') && !prefix.ends_with('/') {
        prefix
    } else {
        ""
    };
    let target = Target::of(path, prefix);
    assert!(target.path.starts_with('/'));
    if prefix.is_empty() {
        let again = Target::of(&target.path, "");
        assert_eq!(
            (again.route, &again.path),
            (target.route, &target.path),
            "cleaned twice, it is another path"
        );
    }
    let climbs = target.path.split('/').any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == "." || part == ".."
    });
    assert!(
        !climbs || target.route == Route::Other,
        "a path with dot segments is routed"
    );
});
