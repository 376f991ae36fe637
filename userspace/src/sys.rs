// SPDX-License-Identifier: GPL-2.0

//! System calls that `rustix` has no typed form of: the ioctls of [`uapi`] and of pagemap.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::AsFd;

use linux_raw_sys::general::{PAGE_IS_HUGE, PAGE_IS_PRESENT, page_region, pm_scan_arg};
use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};

use crate::uapi;

/// Asks a device what it is.
pub(crate) fn info(fd: impl AsFd) -> io::Result<uapi::Info> {
    let mut arg = uapi::Info::default();
    // SAFETY: The call's number carries the size of `uapi::Info`, and a driver that answers to it
    // reads and writes no more than that; every bit pattern is a valid `uapi::Info`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IOC_INFO as Opcode }, _>::new(&mut arg),
        )
    }?;
    Ok(arg)
}

/// Asks a device where the kernel's page tables lead for the byte at `offset`.
pub(crate) fn walk(fd: impl AsFd, offset: u64) -> io::Result<uapi::Walk> {
    let mut arg = uapi::Walk {
        offset,
        ..uapi::Walk::default()
    };
    // SAFETY: As in `info`, for `uapi::Walk`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IOC_WALK as Opcode }, _>::new(&mut arg),
        )
    }?;
    Ok(arg)
}

/// Asks a device for its counters.
pub(crate) fn stats(fd: impl AsFd) -> io::Result<uapi::Stats> {
    let mut arg = uapi::Stats::default();
    // SAFETY: As in `info`, for `uapi::Stats`.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IOC_STATS as Opcode }, _>::new(&mut arg),
        )
    }?;
    Ok(arg)
}

/// Asks an open `/proc/PID/pagemap` for the present pages among `addresses`.
///
/// Gives the number of `regions` filled in, and the address up to which the answer is complete.
pub(crate) fn present_pages(
    pagemap: impl AsFd,
    addresses: Range<u64>,
    regions: &mut [page_region],
) -> io::Result<(usize, u64)> {
    let scan = PresentPages {
        arg: pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: 0,
            start: addresses.start,
            end: addresses.end,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_PRESENT.into(),
            category_anyof_mask: 0,
            return_mask: (PAGE_IS_PRESENT | PAGE_IS_HUGE).into(),
        },
        regions: PhantomData,
    };
    // SAFETY: See `PresentPages`; other files than a pagemap answer `ENOTTY`.
    unsafe { ioctl(pagemap, scan) }
}

/// The `PAGEMAP_SCAN` call.
struct PresentPages<'a> {
    arg: pm_scan_arg,
    /// `arg` points to these.
    regions: PhantomData<&'a mut [page_region]>,
}

// SAFETY:
// - The number is that of `PAGEMAP_SCAN`, whose argument `pm_scan_arg` is.
// - The kernel writes to `arg`, which `as_ptr` borrows mutably, and at most `arg.vec_len` regions
//   to `arg.vec`, which are borrowed mutably for the life of this value; any bits are valid ones.
unsafe impl Ioctl for PresentPages<'_> {
    type Output = (usize, u64);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        const { opcode::read_write::<pm_scan_arg>(b'f', 16) }
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.arg).cast()
    }

    unsafe fn output_from_ptr(result: IoctlOutput, arg: *mut c_void) -> io::Result<Self::Output> {
        // SAFETY: The caller gives back what `as_ptr` gave.
        let arg = unsafe { &*arg.cast::<pm_scan_arg>() };
        Ok((result as usize, arg.walk_end))
    }
}
