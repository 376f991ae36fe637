// SPDX-License-Identifier: GPL-2.0

//! Which code of the module runs, where the kernel can tell (`CONFIG_KCOV`).

use crate::sys;
use crate::world::{Board, MAP_LEN};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const INIT_TRACE: usize = 0x8008_6301;
const ENABLE: usize = 0x6364;
const WORDS: usize = 1 << 16;

/// One thread's trace at a time.
pub struct Kcov {
    fd: OwnedFd,
    area: &'static [AtomicU64],
}

impl Kcov {
    /// None if this kernel has it not.
    pub fn new() -> Option<Self> {
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        let path = c"/sys/kernel/debug/kcov";
        let at = libc::AT_FDCWD as usize;
        let fd = sys::call(
            libc::SYS_openat,
            &[at, path.as_ptr() as usize, flags as usize],
        )
        .ok()?;
        let fd = OwnedFd::from(sys::file(fd));
        let raw = fd.as_raw_fd() as usize;
        sys::call(libc::SYS_ioctl, &[raw, INIT_TRACE, WORDS]).ok()?;
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let shared = libc::MAP_SHARED as usize;
        let addr = sys::call_addr(libc::SYS_mmap, &[0, WORDS * 8, prot, shared, raw, 0]).ok()?;
        // SAFETY: It has just been mapped, that large, and stays mapped.
        let area = unsafe { std::slice::from_raw_parts(addr as *const AtomicU64, WORDS) };
        Some(Self { fd, area })
    }

    /// Traces the calling thread until it ends.
    pub fn enable(&self) {
        let _ = sys::call(libc::SYS_ioctl, &[self.fd.as_raw_fd() as usize, ENABLE, 0]);
        self.area[0].store(0, Relaxed);
    }

    /// Adds what has run since the last time.
    pub fn harvest(&self, base: u64, board: &Board) {
        let n = (self.area[0].load(Relaxed) as usize).min(WORDS - 1);
        let mut last = 0;
        for pc in &self.area[1..=n] {
            let pc = pc.load(Relaxed).wrapping_sub(base);
            let edge = (pc ^ (last >> 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
            board.edges[edge as usize % MAP_LEN].store(1, Relaxed);
            last = pc;
        }
        self.area[0].store(0, Relaxed);
    }
}

/// Where the module's code is; 0 if it does not matter.
pub fn base() -> u64 {
    let text = fs::read_to_string("/sys/module/map_driver/sections/.text").unwrap_or_default();
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0)
}
