// SPDX-License-Identifier: GPL-2.0

//! `mapdrv man`

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::json;

use crate::cli::{Cli, Man};
use crate::failure::Failure;
use crate::output::Output;

pub fn run(args: &Man, out: &mut Output) -> Result<ExitCode, Failure> {
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(Cli::command(), dir).map_err(|source| Failure::File {
            path: dir.clone(),
            source,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    if out.json {
        out.object(&json!({"man": String::from_utf8_lossy(&page)}))?;
    } else {
        out.write_all(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}
