// SPDX-License-Identifier: GPL-2.0

//! Mappings that must not be.

use crate::check::{Outcome, equal, refused};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{
    MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_NONE, PROT_READ,
    PROT_WRITE, RW,
};
use libc::{EACCES, EFAULT, EINVAL, EOVERFLOW, EPERM};
use std::fs;

tests! {
    "an mmap past the end is EINVAL": past_end,
    "an mmap with an overflowing offset is refused": overflow,
    "an mmap of no bytes, or at an odd offset, is EINVAL": empty,
    "an mmap with PROT_EXEC is EPERM, shared or private": exec,
    "a later mprotect with PROT_EXEC is EACCES, shared or private": exec_later,
    "a program cannot be run from a device": execute,
    "a writable shared mapping of a read-only descriptor is EACCES, now and by mprotect later": read_only,
    "a write to a mapping that is only readable is SIGSEGV": write_to_read_only,
    "a write-only descriptor cannot be mapped: EACCES": write_only,
    "an mremap that grows is EFAULT, and the mapping stays": grow,
    "a mapping without protection can be made and its access is SIGSEGV": no_access,
}

/// Tries a mapping of device 0, which must fail and leave nothing.
#[track_caller]
fn try_map(open: i32, offset: u64, len: usize, prot: i32, flags: i32, errno: i32) -> Outcome {
    let fd = device::open(open)?;
    let what = format!("mmap of {len:#x} at {offset:#x}, prot {prot}, flags {flags}");
    refused(
        what,
        Map::new(&fd, offset, len, prot, flags).map(|map| map.addr),
        errno,
    )?;
    equal("mappings of the device in this process", ours()?, 0)?;
    equal(
        "mappings that the driver counts",
        device::info(&fd)?.mappings,
        0,
    )
}

/// The number of mappings of a device that this process has.
fn ours() -> Outcome<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps
        .lines()
        .filter(|line| line.contains("/dev/mapdrv"))
        .count())
}

fn past_end(setup: &Setup) -> Outcome {
    let span = setup.span();
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        try_map(O_RDONLY, 0, span + 1, PROT_READ, flags, EINVAL)?;
        try_map(O_RDONLY, 0, span + PAGE, PROT_READ, flags, EINVAL)?;
        try_map(O_RDONLY, PAGE as u64, span, PROT_READ, flags, EINVAL)?;
        try_map(O_RDONLY, span as u64, PAGE, PROT_READ, flags, EINVAL)?;
        try_map(O_RDONLY, 1 << 40, PAGE, PROT_READ, flags, EINVAL)?;
    }
    // The limit is there and not before.
    let map = Map::new(
        &device::open(O_RDONLY)?,
        span as u64 - PAGE as u64,
        1,
        PROT_READ,
        MAP_SHARED,
    )?;
    map.bytes(0, 1);
    equal("mappings in this process", ours()?, 1)
}

fn overflow(_: &Setup) -> Outcome {
    let last = u64::MAX - (PAGE as u64 - 1);
    // The kernel's core refuses these, before it asks the driver.
    try_map(O_RDONLY, last, PAGE, PROT_READ, MAP_SHARED, EOVERFLOW)?;
    try_map(O_RDONLY, last, 2 * PAGE, PROT_READ, MAP_SHARED, EOVERFLOW)?;
    // And the driver refuses these.
    try_map(
        O_RDONLY,
        last - PAGE as u64,
        PAGE,
        PROT_READ,
        MAP_SHARED,
        EINVAL,
    )?;
    try_map(O_RDONLY, 1 << 63, PAGE, PROT_READ, MAP_SHARED, EINVAL)?;
    try_map(
        O_RDONLY,
        (1 << 63) - PAGE as u64,
        2 * PAGE,
        PROT_READ,
        MAP_SHARED,
        EINVAL,
    )
}

fn empty(_: &Setup) -> Outcome {
    try_map(O_RDONLY, 0, 0, PROT_READ, MAP_SHARED, EINVAL)?;
    try_map(O_RDONLY, 1, PAGE, PROT_READ, MAP_SHARED, EINVAL)
}

fn exec(_: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        try_map(O_RDWR, 0, PAGE, PROT_EXEC, flags, EPERM)?;
        try_map(O_RDWR, 0, PAGE, PROT_EXEC | PROT_READ, flags, EPERM)?;
        try_map(O_RDONLY, 0, PAGE, PROT_EXEC | PROT_READ, flags, EPERM)?;
    }
    Ok(())
}

fn exec_later(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        let map = Map::new(&device::open(O_RDWR)?, 0, setup.span(), RW, flags)?;
        for prot in [PROT_EXEC, PROT_EXEC | PROT_READ, PROT_EXEC | RW] {
            refused(
                format!("mprotect {prot}"),
                map.protect(0, map.len, prot),
                EACCES,
            )?;
            refused(
                format!("mprotect {prot} of a page"),
                map.protect(0, PAGE, prot),
                EACCES,
            )?;
        }
        // SAFETY: The personality is this test's own. Readable then means executable.
        unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) };
        let implied = map.protect(0, PAGE, PROT_READ);
        // SAFETY: As above.
        unsafe { libc::personality(0) };
        implied?;
        let maps = fs::read_to_string("/proc/self/maps")?;
        let executable = maps
            .lines()
            .filter(|line| line.contains("/dev/mapdrv") && line.contains("x"));
        let executable = executable.filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|prot| prot.contains('x'))
        });
        equal("executable mappings", executable.count(), 0)?;
    }
    Ok(())
}

fn execute(_: &Setup) -> Outcome {
    let error = std::process::Command::new("/dev/mapdrv0").spawn().map(drop);
    refused("execve", error, EACCES)
}

fn read_only(setup: &Setup) -> Outcome {
    try_map(O_RDONLY, 0, PAGE, PROT_WRITE, MAP_SHARED, EACCES)?;
    try_map(O_RDONLY, 0, PAGE, RW, MAP_SHARED, EACCES)?;
    let map = device::mapped(setup)?;
    refused("mprotect", map.protect(0, map.len, RW), EACCES)?;
    refused(
        "mprotect of a page",
        map.protect(0, PAGE, PROT_WRITE),
        EACCES,
    )
}

fn write_to_read_only(setup: &Setup) -> Outcome {
    for fd in [device::open(O_RDONLY)?, device::open(O_RDWR)?] {
        let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
        equal(
            "untouched",
            process::signal_in(|| map.put(0, 1))?,
            Some(libc::SIGSEGV),
        )?;
        map.touch();
        equal(
            "touched",
            process::signal_in(|| map.put(0, 1))?,
            Some(libc::SIGSEGV),
        )?;
    }
    Ok(())
}

fn write_only(_: &Setup) -> Outcome {
    for (prot, flags) in [
        (PROT_WRITE, MAP_SHARED),
        (PROT_READ, MAP_SHARED),
        (RW, MAP_SHARED),
        (PROT_READ, MAP_PRIVATE),
    ] {
        try_map(O_WRONLY, 0, PAGE, prot, flags, EACCES)?;
    }
    Ok(())
}

fn grow(setup: &Setup) -> Outcome {
    for (len, flags) in [
        (setup.span(), MAP_SHARED),
        (PAGE, MAP_SHARED),
        (PAGE, MAP_PRIVATE),
    ] {
        let mut map = Map::new(&device::open(O_RDONLY)?, 0, len, PROT_READ, flags)?;
        let first = map.get(0);
        refused("mremap", map.remap(len + PAGE, 0, 0), EFAULT)?;
        refused(
            "mremap, free to move",
            map.remap(len + PAGE, libc::MREMAP_MAYMOVE, 0),
            EFAULT,
        )?;
        equal("first word after that", map.get(0), first)?;
        equal("mappings in this process", ours()?, 1)?;
    }
    Ok(())
}

fn no_access(setup: &Setup) -> Outcome {
    let map = Map::new(
        &device::open(O_RDWR)?,
        0,
        setup.span(),
        PROT_NONE,
        MAP_SHARED,
    )?;
    let signal = process::signal_in(|| drop(map.bytes(0, 1)))?;
    equal("signal", signal, Some(libc::SIGSEGV))?;
    map.protect(0, PAGE, RW)?;
    map.get(0);
    Ok(())
}
