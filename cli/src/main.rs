//! `klp-farm`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    klp_farm::main()
}
