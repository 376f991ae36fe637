// SPDX-License-Identifier: GPL-2.0

//! Tests of `map_driver` from user space, as root, in the virtual machine.
//!
//! `suite` reads a plan from its standard input. Each line is a group of tests and the parameters
//! to load the module with. A group with a `-` before them loads it itself, or does without. The results are printed as KTAP; the exit status says whether all is well.

mod check;
mod device;
mod groups;
mod gup_test;
mod kmsg;
mod ktap;
mod module;
mod pattern;
mod process;
mod sys;
#[allow(dead_code)]
#[path = "../../../uapi/mapdrv.rs"]
mod uapi;

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let lines: Vec<String> = match io::stdin().lines().collect() {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("suite: cannot read the plan from standard input: {error}");
            return ExitCode::from(2);
        }
    };
    let plan: Vec<&str> = lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    match ktap::run(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::from(2)
        }
    }
}
