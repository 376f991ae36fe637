// SPDX-License-Identifier: GPL-2.0

//! The kernel's own test of pins, where it is built in (`mm/gup_test.h`).

use crate::check::{Fail, Outcome};
use crate::sys;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

const FILE: &str = "/sys/kernel/debug/gup_test";
const PIN_LONGTERM_TEST_START: u32 = 0x4018_6707;
const PIN_LONGTERM_TEST_STOP: u32 = 0x6708;
const PIN_LONGTERM_TEST_READ: u32 = 0x4008_6709;
const PIN_LONGTERM_TEST_FLAG_USE_FAST: u64 = 2;

/// Skips the test where there is none.
pub fn there() -> Outcome {
    if fs::exists(FILE)? {
        return Ok(());
    }
    Err(Fail::Skip("this kernel has no gup_test".to_owned()))
}

/// Pages that are pinned for a device to read for long, as far as the kernel knows.
pub struct Pins(OwnedFd);

impl Pins {
    pub fn new() -> io::Result<Self> {
        Ok(Self(sys::open(FILE, libc::O_RDWR)?))
    }

    /// Pins pages of this process; `fast` is by way of its page tables, where that will do.
    pub fn pin(&self, addr: usize, len: usize, fast: bool) -> io::Result<()> {
        let flags = if fast {
            PIN_LONGTERM_TEST_FLAG_USE_FAST
        } else {
            0
        };
        let request = [addr as u64, len as u64, flags];
        sys::ioctl(&self.0, PIN_LONGTERM_TEST_START, request.as_ptr() as usize).map(drop)
    }

    /// Copies what is pinned to `to`.
    pub fn read(&self, to: usize) -> io::Result<()> {
        let to = to as u64;
        sys::ioctl(&self.0, PIN_LONGTERM_TEST_READ, (&raw const to) as usize).map(drop)
    }

    pub fn unpin(&self) -> io::Result<()> {
        sys::ioctl(&self.0, PIN_LONGTERM_TEST_STOP, 0).map(drop)
    }
}
