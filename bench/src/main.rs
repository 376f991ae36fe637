// SPDX-License-Identifier: GPL-2.0

//! `mapdrv-bench`: what mapping a device of map_driver costs, beside other ways to give memory to a
//! process.
//!
//! `run`, `check`, `threads` and `trace` are for a virtual machine that has `map_driver.ko` in the
//! current directory; `report` and `symbols` make something readable of what they print.

mod chart;
mod limits;
mod peers;
mod record;
mod report;
mod symbols;
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Measure what mapping costs
#[derive(Parser)]
enum Command {
    /// Measure everything, in a virtual machine that counts instructions
    Run {
        /// Sizes in MiB
        #[arg(long, value_delimiter = ',', default_value = "256")]
        mib: Vec<usize>,
        /// Sizes in MiB that only our device is measured at
        #[arg(long, value_delimiter = ',')]
        ours: Vec<usize>,
        /// How often to do it all
        #[arg(long, default_value = "1")]
        rounds: u32,
        /// Only what has this in its name
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Test that no mode costs more than it may
    Check,
    /// Touch the pages of a device in 1, 2 and 4 threads, five times, for a tracer
    Threads {
        /// The device
        device: PathBuf,
        /// How many pages each thread touches
        #[arg(long, default_value = "1024")]
        pages: usize,
    },
    /// Map, touch and unmap a device once, for a tracer
    Trace {
        /// The device
        device: PathBuf,
        /// How much of it, in MiB
        #[arg(long, default_value = "16")]
        mib: usize,
    },
    /// Make tables and a chart of what `run` printed
    Report {
        /// What `run` printed
        input: PathBuf,
        /// Where to write all figures
        #[arg(long)]
        json: Option<PathBuf>,
        /// Where to write the chart
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    /// Sum up by symbol what the plugin counted
    Symbols(symbols::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Run {
            mib,
            ours,
            rounds,
            only,
        } => record::run(&mib, &ours, rounds, &only),
        Command::Check => limits::check(),
        Command::Threads { device, pages } => threads::run(&device, pages * 4096),
        Command::Trace { device, mib } => trace(&device, mib << 20),
        Command::Report { input, json, svg } => {
            report::run(&input, json.as_deref(), svg.as_deref())
        }
        Command::Symbols(args) => symbols::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mapdrv-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trace(device: &std::path::Path, len: usize) -> Result<()> {
    let device = mapdrv::Device::open_rw(device)?;
    device.memory(true).sequential(len)?;
    Ok(())
}
