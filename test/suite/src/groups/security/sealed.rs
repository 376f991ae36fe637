// SPDX-License-Identifier: GPL-2.0

//! Kernels that do not take every module: lockdown, and enforced signatures.
//! Each list of tests is for machines that are booted in their own way.

use super::load;
use crate::check::{Outcome, ensure, equal, refused, wrong};
use crate::device::{self, Setup};
use crate::kmsg::Log;
use crate::module::{self, Loaded};
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, check};
use libc::{EKEYREJECTED, EPERM};
use std::fs::{self, File};

/// In a machine that takes every module.
pub mod open {
    tests! {
        "the module has no signature; an open kernel takes it, and says so: tainted O and E": super::unsigned,
        "lockdown of a kernel that has it loaded: the device works, debugfs is for reading only, and it cannot be loaded again": super::later,
    }
}

/// In a machine that is booted with `module.sig_enforce=1`.
pub mod enforced {
    tests! {
        "module.sig_enforce=1: the module is refused with EKEYREJECTED": super::enforced,
    }
}

/// In a machine that is booted with `lockdown=integrity` or `lockdown=confidentiality`.
pub mod locked {
    tests! {
        "lockdown: the module is refused with EPERM": super::locked,
    }
}

/// Bits of /proc/sys/kernel/tainted.
const OUT_OF_TREE: u64 = 1 << 12;
const UNSIGNED: u64 = 1 << 13;

/// Fails in a machine that is not for a test.
fn booted_with(word: &str) -> Outcome {
    let command = fs::read_to_string("/proc/cmdline")?;
    let words = command.split_whitespace();
    let given = words.filter(|given| given.starts_with(word)).count();
    ensure(format!("not booted with {word}"), given > 0)
}

fn taint() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/sys/kernel/tainted")?;
    text.trim().parse().map_err(|_| wrong(text))
}

/// Tries to load by both calls; both must be refused, and the log have a line with `said`.
fn refused_to_load(errno: i32, said: &str) -> Outcome {
    let log = Log::from_now()?;
    refused(
        "finit_module",
        load(&File::open("map_driver.ko")?, c""),
        errno,
    )?;
    let bytes = fs::read("map_driver.ko")?;
    // SAFETY: The image is as long as said.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_init_module,
            bytes.as_ptr(),
            bytes.len(),
            c"".as_ptr(),
        )
    });
    refused("init_module", result, errno)?;
    equal("traces", module::traces()?, Vec::new())?;
    let lines = log.lines()?;
    ensure(
        format!("the log says {lines:?}"),
        lines.iter().any(|line| line.contains(said)),
    )
}

fn unsigned(_: &Setup) -> Outcome {
    let bytes = fs::read("map_driver.ko")?;
    let signed = bytes.ends_with(b"~Module signature appended~\n");
    ensure("it is signed", !signed)?;
    equal("tainted before", taint()? & (OUT_OF_TREE | UNSIGNED), 0)?;
    let log = Log::from_now()?;
    let _loaded = Loaded::new("")?;
    let both = OUT_OF_TREE | UNSIGNED;
    equal("tainted after", taint()? & both, both)?;
    let flags = fs::read_to_string("/sys/module/map_driver/taint")?;
    equal("the module's own flags", flags.trim(), "OE")?;
    let lines = log.lines_of("map_driver")?;
    for said in [
        "out-of-tree module taints kernel",
        "module verification failed",
    ] {
        let there = lines.iter().any(|line| line.contains(said));
        ensure(format!("{said}: not in {lines:?}"), there)?;
    }
    Ok(())
}

fn enforced(_: &Setup) -> Outcome {
    booted_with("module.sig_enforce=1")?;
    refused_to_load(EKEYREJECTED, "unsigned module is rejected")
}

fn locked(_: &Setup) -> Outcome {
    booted_with("lockdown=")?;
    refused_to_load(EPERM, "unsigned module loading is restricted")
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Raises the lockdown; it cannot be lowered.
fn lock(level: &str) -> Outcome {
    if !fs::exists(LOCKDOWN)? {
        // SAFETY: All are C strings.
        check(unsafe {
            libc::mount(
                c"security".as_ptr(),
                c"/sys/kernel/security".as_ptr(),
                c"securityfs".as_ptr(),
                0,
                std::ptr::null(),
            )
        })?;
    }
    fs::write(LOCKDOWN, level)?;
    let text = fs::read_to_string(LOCKDOWN)?;
    ensure(text.clone(), text.contains(&format!("[{level}]")))
}

fn later(setup: &Setup) -> Outcome {
    let loaded = Loaded::new("")?;
    for level in ["integrity", "confidentiality"] {
        lock(level)?;
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
        map.put(4096, 0x1234);
        equal("the device", sys::pread(&fd, 4096, 2)?, vec![0x34, 0x12])?;
        drop(map);
        Map::new(&device::open(O_RDONLY)?, 0, 4096, PROT_READ, MAP_SHARED)?.touch();
        let dir = "/sys/kernel/debug/mapdrv/mapdrv0";
        let stats = fs::read_to_string(format!("{dir}/stats"))?;
        ensure(stats.clone(), stats.contains("faults: "))?;
        let trace = sys::open(&format!("{dir}/trace"), O_RDWR);
        refused(format!("opening trace, {level}"), trace, EPERM)?;
    }
    loaded.unload()?;
    refused("loading again", module::insert(module::NAME, ""), EPERM)
}
