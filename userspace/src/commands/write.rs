// SPDX-License-Identifier: GPL-2.0

//! `mapdrv write`

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

use mapdrv::{Device, Error};
use serde_json::json;

use crate::cli::Write;
use crate::failure::Failure;
use crate::output::{OfDevice, Output, count};

/// Bytes read at a time.
const BLOCK: usize = 64 << 10;

pub fn run(args: &Write, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open_rw(&args.device.path)?;
    let input_failed = |source| Failure::File {
        path: args.file.clone(),
        source,
    };
    let input = open(&args.file).map_err(input_failed)?;
    let written = copy(input, &device, args.offset, input_failed)?;

    if out.json {
        out.object(&OfDevice {
            device: device.path(),
            value: json!({"offset": args.offset, "written": written}),
        })?;
    } else {
        writeln!(
            out,
            "{}: {} written at {:#x}",
            device.path().display(),
            count(written, "byte"),
            args.offset
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    })
}

/// Copies all of `input` to the device; the number of bytes.
fn copy(
    mut input: impl Read,
    device: &Device,
    offset: u64,
    input_failed: impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    loop {
        let len = match input.read(&mut block) {
            Ok(0) => return Ok(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            len => len.map_err(&input_failed)?,
        };
        let mut rest = &block[..len];
        while !rest.is_empty() {
            match device.write_at(rest, offset.saturating_add(written)) {
                Ok(0) => return Err(full(device, written)),
                Ok(n) => {
                    rest = &rest[n..];
                    written += n as u64;
                }
                Err(error) if is_full(&error) => return Err(full(device, written)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn full(device: &Device, written: u64) -> Failure {
    Failure::Full {
        path: device.path().into(),
        written,
    }
}

fn is_full(error: &Error) -> bool {
    error
        .io_error()
        .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}
