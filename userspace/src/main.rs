// SPDX-License-Identifier: GPL-2.0

//! `mapdrv`: look at, read, verify and explain the devices of `map_driver`.

mod cli;
mod commands;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    // As every other program in a pipe: end quietly when the reader has left.
    sigpipe::reset();
    let cli = Cli::parse();
    let result = mapdrv::catch_sigbus()
        .map_err(Into::into)
        .and_then(|()| commands::run(&cli));
    result.unwrap_or_else(|failure| {
        anstream::eprintln!("mapdrv: {}", failure.describe());
        failure.exit_code()
    })
}
