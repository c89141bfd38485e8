//! The command line; all of it is in the library, where it is tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    onset::cli::main(std::env::args_os())
}
