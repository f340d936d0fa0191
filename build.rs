//! Writes the program's relocations in the packed form where that can be loaded: 8 KB instead of 400 KB, all of which
//! a process reads at its start and keeps in memory.

use std::env;
use std::process::Command;

/// The first glibc that loads them, minor version of 2.
const GLIBC_MINOR_MIN: u32 = 36;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    // Where the program is built for another system nobody knows what that one can load.
    let here = env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    let glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if here && glibc && glibc_minor().is_some_and(|minor| minor >= GLIBC_MINOR_MIN) {
        // A linker that does not know it warns and goes on.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// 36 on a system with glibc 2.36.
fn glibc_minor() -> Option<u32> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.trim()
        .strip_prefix("glibc 2.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}
