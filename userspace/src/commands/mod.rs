// SPDX-License-Identifier: GPL-2.0

//! The commands, one in each file.

mod bench;
mod completions;
mod info;
mod layout;
mod list;
mod man;
mod map;
mod read;
mod stat;
mod verify;
mod wait;
mod walk;
mod write;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Does what the command line asks for.
pub fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let mut out = Output::new(cli.json);
    let code = match &cli.command {
        Command::List => list::run(&mut out),
        Command::Info(args) => info::run(args, &mut out),
        Command::Read(args) => read::run(args, &mut out),
        Command::Verify(args) => verify::run(args, &mut out),
        Command::Write(args) => write::run(args, &mut out),
        Command::Walk(args) => walk::run(args, &mut out),
        Command::Map(args) => map::run(args, &mut out),
        Command::Layout(args) => layout::run(args, &mut out),
        Command::Stat(args) => stat::run(args, &mut out),
        Command::Wait(args) => wait::run(args, &mut out),
        Command::Bench(args) => bench::run(args, &mut out),
        Command::Completions(args) => completions::run(args, &mut out),
        Command::Man(args) => man::run(args, &mut out),
    }?;
    out.flush()?;
    Ok(code)
}
