//! The binary: runs the command line of `cli` over the library.

mod cli;
mod load;
mod tls_args;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A call allocates some twenty times, on the core that frees them. The feature `no_thp` keeps it
/// from asking for huge pages: one touched byte makes 2 MB resident, 18 MB of an idle process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
