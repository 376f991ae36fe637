// SPDX-License-Identifier: GPL-2.0

//! The system calls of a 32-bit process: `int 0x80`, with everything below 4 GiB.

use super::files::noise;
use crate::check::{Fail, Outcome, ensure, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::sys::{MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, RW, pread, pwrite};
use crate::uapi::{IOC_INFO, IOC_STATS, IOC_WALK, Info, iowr};
use libc::{E2BIG, EACCES, EFAULT, EINVAL, ENOSPC, ENOTTY, EPERM};
use std::arch::asm;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

tests! {
    "the ioctls answer a 32-bit process as they do a 64-bit one": ioctls,
    "they refuse it what they refuse others": ioctl_errors,
    "a 32-bit process maps a device, at any page offset, and is refused the same": mmap,
    "a 32-bit process reads and writes, at 64-bit positions": read_write,
}

/// Numbers of system calls, as 32-bit processes know them.
mod nr {
    pub const OPEN: u32 = 5;
    pub const IOCTL: u32 = 54;
    pub const LLSEEK: u32 = 140;
    pub const PREAD64: u32 = 180;
    pub const PWRITE64: u32 = 181;
    pub const MMAP2: u32 = 192;
    pub const MPROTECT: u32 = 125;
}

/// A system call of a 32-bit process.
fn call(nr: u32, args: [u32; 6]) -> io::Result<u32> {
    let result: i32;
    // SAFETY: What the kernel does with the addresses is the caller's affair. The base registers,
    // which the compiler keeps to itself, are saved around the call.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov ebx, [rdi]",
            "mov ecx, [rdi + 4]",
            "mov edx, [rdi + 8]",
            "mov esi, [rdi + 12]",
            "mov ebp, [rdi + 20]",
            "mov edi, [rdi + 16]",
            "int 0x80",
            "pop rbp",
            "pop rbx",
            inlateout("eax") nr => result,
            inout("rdi") args.as_ptr() => _,
            out("rcx") _,
            out("rdx") _,
            out("rsi") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    // Addresses may look negative; errors are the last 4095 of them.
    if (-4095..0).contains(&result) {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(result as u32)
    }
}

/// Memory that a 32-bit process can name.
fn low(len: usize) -> Outcome<Map> {
    let flags = MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let map = Map::at(0, -1, 0, len, RW, flags)?;
    ensure("memory is not below 4 GiB", map.addr + len < 1 << 32)?;
    Ok(map)
}

/// The device, opened by a 32-bit call; without those the kernel is of another kind.
fn open() -> Outcome<(OwnedFd, i32)> {
    use std::os::fd::FromRawFd;

    let name = low(PAGE)?;
    name.write(0, b"/dev/mapdrv0\0");
    const O_RDWR: u32 = 2;
    let fd = match call(nr::OPEN, [name.addr as u32, O_RDWR, 0, 0, 0, 0]) {
        Ok(fd) => fd as i32,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            return Err(Fail::Skip("no system calls of 32-bit processes".into()));
        }
        Err(error) => return Err(error.into()),
    };
    // SAFETY: The descriptor is new and nobody else's.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, fd))
}

fn ioctl(fd: i32, cmd: u32, arg: u32) -> io::Result<u32> {
    call(nr::IOCTL, [fd as u32, cmd, arg, 0, 0, 0])
}

fn ioctls(_: &Setup) -> Outcome {
    let (owned, fd) = open()?;
    let memory = low(PAGE)?;
    for cmd in [IOC_INFO, IOC_WALK, IOC_STATS] {
        let size = ((cmd >> 16) & 0x3fff) as usize;
        let mut expected = vec![0u8; size];
        expected[8..16].copy_from_slice(&5000u64.to_ne_bytes());
        memory.write(0, &expected);
        crate::sys::ioctl(&owned, cmd, expected.as_mut_ptr() as usize)?;
        ioctl(fd, cmd, memory.addr as u32)?;
        same_bytes(
            format!("answer to {cmd:#x}"),
            &memory.bytes(0, size),
            &expected,
        )?;
    }
    Ok(())
}

fn ioctl_errors(_: &Setup) -> Outcome {
    let (_owned, fd) = open()?;
    let memory = low(PAGE)?;
    let at = memory.addr as u32;
    let size = size_of::<Info>();
    refused("nowhere", ioctl(fd, IOC_INFO, 0), EFAULT)?;
    refused(
        "in the upper half",
        ioctl(fd, IOC_INFO, 0xffff_f000),
        EFAULT,
    )?;
    refused("unknown number", ioctl(fd, iowr(99, size), at), ENOTTY)?;
    refused("too short", ioctl(fd, iowr(1, 8), at), EINVAL)?;
    memory.put(size, 1);
    refused("too long", ioctl(fd, iowr(1, size + 8), at), E2BIG)?;
    memory.put(0, 1);
    refused("flags", ioctl(fd, IOC_INFO, at), EINVAL)
}

fn mmap(setup: &Setup) -> Outcome {
    let (fd, raw) = open()?;
    pwrite(&fd, 0, &noise(50, setup.size as usize))?;
    let map2 = |first: u32, len: usize, prot: i32, flags: i32| {
        call(
            nr::MMAP2,
            [0, len as u32, prot as u32, flags as u32, raw as u32, first],
        )
    };
    for first in [0, 1, 7, setup.pages() - 1] {
        let len = setup.span() - first * PAGE;
        let addr = map2(first as u32, len, RW, MAP_SHARED)? as usize;
        let map = Map { addr, len };
        let expected = pread(&fd, (first * PAGE) as i64, len)?;
        same_bytes(
            format!("from page {first}"),
            &map.bytes(0, expected.len()),
            &expected,
        )?;
        map.put(8, 88);
        equal(
            "a write",
            pread(&fd, (first * PAGE + 8) as i64, 1)?,
            vec![88],
        )?;
        refused(
            "mprotect",
            call(nr::MPROTECT, [addr as u32, PAGE as u32, 4, 0, 0, 0]),
            EACCES,
        )?;
    }
    let pages = setup.pages() as u32;
    refused(
        "past the end",
        map2(0, setup.span() + PAGE, RW, MAP_SHARED),
        EINVAL,
    )?;
    refused("behind the end", map2(pages, PAGE, RW, MAP_SHARED), EINVAL)?;
    refused(
        "far behind the end",
        map2(u32::MAX, PAGE, RW, MAP_SHARED),
        EINVAL,
    )?;
    refused("executable", map2(0, PAGE, RW | 4, MAP_SHARED), EPERM)
}

fn read_write(setup: &Setup) -> Outcome {
    let (fd, raw) = open()?;
    let all = noise(51, setup.size as usize);
    pwrite(&device::open(O_RDWR)?, 0, &all)?;
    let memory = low(PAGE)?;
    let (file, at) = (fd.as_raw_fd() as u32, memory.addr as u32);
    equal("descriptor", file, raw as u32)?;
    equal(
        "pread64",
        call(nr::PREAD64, [file, at, 1000, 4000, 0, 0])?,
        1000,
    )?;
    same_bytes("pread64", &memory.bytes(0, 1000), &all[4000..5000])?;
    equal(
        "pread64 behind 4 GiB",
        call(nr::PREAD64, [file, at, 1000, 4000, 1, 0])?,
        0,
    )?;
    memory.write(0, b"thirty-two bit");
    equal(
        "pwrite64",
        call(nr::PWRITE64, [file, at, 14, 9000, 0, 0])?,
        14,
    )?;
    same_bytes("pwrite64", &pread(&fd, 9000, 14)?, b"thirty-two bit")?;
    refused(
        "pwrite64 behind 4 GiB",
        call(nr::PWRITE64, [file, at, 14, 9000, 1, 0]),
        ENOSPC,
    )?;
    const SEEK_END: u32 = 2;
    equal(
        "_llseek",
        call(nr::LLSEEK, [file, 0, 0, at, SEEK_END, 0])?,
        0,
    )?;
    equal("position", memory.get(0), setup.size)
}
