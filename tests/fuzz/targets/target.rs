//! Request targets: paths, and a prefix to strip (the first line of the input).

#![no_main]

use flagside::key::Routing;
use flagside::metrics::Route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (prefix, path) = text.split_once('\n').unwrap_or(("", text));
    let prefix = if prefix.starts_with('/') && !prefix.ends_with('/') {
        prefix
    } else {
        ""
    };
    let routing = Routing {
        prefix: prefix.to_owned(),
        amplitude: true,
        featbit: true,
    };
    let target = routing.target(path);
    assert!(target.path.starts_with('/'));
    if prefix.is_empty() {
        let again = routing.target(&target.path);
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
