//! The binary: runs the command line of `cli` over the library.

mod cli;
mod load;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
