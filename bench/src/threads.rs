// SPDX-License-Identifier: GPL-2.0

//! Faults that several processors take at once, for a tracer.

use std::path::Path;

use anyhow::Result;
use mapdrv::Device;

/// How often each is measured.
pub const TIMES: usize = 5;

/// Touches the pages of a device in 1, 2 and 4 threads at once: all the same `len` bytes, and each its
/// own.
pub fn run(device: &Path, len: usize) -> Result<()> {
    let device = Device::open_rw(device)?;
    let memory = device.memory(true);
    for (threads, apart) in [(1, false), (2, false), (4, false), (2, true), (4, true)] {
        for _ in 0..TIMES {
            memory.concurrent(len, threads, apart)?;
        }
    }
    Ok(())
}
