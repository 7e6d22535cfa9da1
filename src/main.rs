//! The `pilus` command.
use std::process::ExitCode;

use pilus::api::config::Config;

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    match words {
        Ok(words) => pilus::cli::main(&words, run),
        Err(word) => {
            eprintln!("{}: the command line must be UTF-8", word.display());
            ExitCode::from(2)
        }
    }
}

/// Runs the agent until it is told to end.
fn run(_config: Config) -> ExitCode {
    eprintln!("pilus run: the agent is not wired up in this build");
    ExitCode::FAILURE
}
