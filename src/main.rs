//! The program: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

/// Takes half the time of the system's allocator and less memory per stored response.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    flagside::command::main(std::env::args_os())
}
