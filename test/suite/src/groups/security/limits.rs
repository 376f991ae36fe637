// SPDX-License-Identifier: GPL-2.0

//! What an opener can use up is accounted to the control group it is in.

use crate::check::{Fail, Outcome, ensure, equal, wrong};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, check};
use std::fs;
use std::ptr;

tests! {
    "open files are paid for by whoever opens them": files,
    "a mapping costs whoever makes it page tables, and none of the device's pages": mappings,
    "writes cost nothing that stays": writes,
}

const TOP: &str = "/tmp/cgroup";

/// Runs `body` as nobody in a control group of its own; it is given a way to ask what that uses of
/// something.
fn grouped(body: impl FnOnce(&dyn Fn(&str) -> Outcome<u64>) -> Outcome) -> Outcome {
    fs::create_dir_all(TOP)?;
    // SAFETY: All are C strings.
    let mounted = check(unsafe {
        libc::mount(
            c"none".as_ptr(),
            c"/tmp/cgroup".as_ptr(),
            c"cgroup2".as_ptr(),
            0,
            ptr::null(),
        )
    });
    mounted.map_err(|error| Fail::Skip(format!("no cgroup2: {error}")))?;
    let result = fs::write(format!("{TOP}/cgroup.subtree_control"), "+memory")
        .map_err(|error| Fail::Skip(format!("no memory controller: {error}")))
        .and_then(|()| in_group(body));
    // SAFETY: A C string.
    unsafe { libc::umount2(c"/tmp/cgroup".as_ptr(), libc::MNT_DETACH) };
    result
}

fn in_group(body: impl FnOnce(&dyn Fn(&str) -> Outcome<u64>) -> Outcome) -> Outcome {
    let group = format!("{TOP}/openers");
    fs::create_dir(&group)?;
    let result = process::in_child(|| {
        fs::write(format!("{group}/cgroup.procs"), "0")?;
        let limit = libc::rlimit {
            rlim_cur: 5000,
            rlim_max: 5000,
        };
        // SAFETY: The limit is valid.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        process::become_nobody()?;
        body(&|name| {
            let text = fs::read_to_string(format!("{group}/memory.stat"))?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse().ok())
                .ok_or_else(|| wrong(format!("no `{name}` in memory.stat")))
        })
    });
    fs::remove_dir(group)?;
    result
}

fn files(_: &Setup) -> Outcome {
    const FILES: u64 = 2000;
    // What a file has of its own: three counters for each processor, and some words.
    const LEAST: u64 = 3 * 8;

    grouped(|used| {
        let before = used("percpu")?;
        let files = (0..FILES)
            .map(|_| device::open(O_RDONLY))
            .collect::<Result<Vec<_>, _>>()?;
        let after = used("percpu")?;
        ensure(
            format!("{FILES} files cost {before} to {after} bytes of per-CPU memory"),
            after >= before + FILES * LEAST,
        )?;
        drop(files);
        Ok(())
    })
}

fn mappings(setup: &Setup) -> Outcome {
    grouped(|used| {
        let fd = device::open(O_RDWR)?;
        let maps = (0..20)
            .map(|_| Map::new(&fd, 0, setup.span(), RW, MAP_SHARED))
            .collect::<Result<Vec<_>, _>>()?;
        let before = [used("pagetables")?, used("file")?, used("anon")?];
        for map in &maps {
            map.touch();
        }
        let after = [used("pagetables")?, used("file")?, used("anon")?];
        let pages = (maps.len() * setup.span()) as u64;
        // A table for each 512 pages, and those above it.
        let most = pages / 512 + (maps.len() * 4 * PAGE) as u64;
        let tables = after[0] - before[0];
        ensure(format!("{tables} bytes of page tables"), tables <= most)?;
        for (what, before, after) in [("file", before[1], after[1]), ("anon", before[2], after[2])]
        {
            let more = after.saturating_sub(before);
            ensure(format!("{more} bytes of {what} memory"), more <= pages / 16)?;
        }
        Ok(())
    })
}

fn writes(setup: &Setup) -> Outcome {
    grouped(|used| {
        let fd = device::open(O_RDWR)?;
        let before = used("kernel")?;
        for round in 0..200u64 {
            let bytes = vec![round as u8; 5000.min(setup.size as usize)];
            equal("written", crate::sys::pwrite(&fd, 0, &bytes)?, bytes.len())?;
            Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?.touch();
        }
        let more = used("kernel")?.saturating_sub(before);
        ensure(format!("{more} bytes more"), more <= 200 * PAGE as u64 / 4)
    })
}
