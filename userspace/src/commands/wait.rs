// SPDX-License-Identifier: GPL-2.0

//! `mapdrv wait`

use std::io::Write;
use std::process::ExitCode;

use mapdrv::Device;

use crate::cli::Wait;
use crate::failure::{FAILED, Failure};
use crate::output::{OfDevice, Output};

pub fn run(args: &Wait, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let Some(info) = device.wait_for_change(args.timeout)? else {
        return Ok(FAILED.into());
    };
    if out.json {
        out.object(&OfDevice {
            device: device.path(),
            value: info,
        })?;
    } else {
        let path = device.path().display();
        writeln!(out, "{path}: changed, generation {}", info.generation)?;
    }
    Ok(ExitCode::SUCCESS)
}
