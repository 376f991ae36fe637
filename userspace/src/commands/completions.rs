// SPDX-License-Identifier: GPL-2.0

//! `mapdrv completions`

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::json;

use crate::cli::{Cli, Completions};
use crate::failure::Failure;
use crate::output::Output;

pub fn run(args: &Completions, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mapdrv", &mut script);
    if out.json {
        let script = String::from_utf8_lossy(&script);
        out.object(&json!({"shell": args.shell.to_string(), "script": script}))?;
    } else {
        out.write_all(&script)?;
    }
    Ok(ExitCode::SUCCESS)
}
