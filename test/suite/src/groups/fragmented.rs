// SPDX-License-Identifier: GPL-2.0

//! Large folios when memory is in small pieces.

use super::{contents, walk};
use crate::check::{Outcome, ensure, equal, wrong};
use crate::device::Setup;
use crate::kmsg::Log;
use crate::module::{self, Loaded};
use crate::pattern::PAGE;
use crate::sys;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

tests! {
    "with huge=1 a device is made of huge folios, and the log says so": whole,
    "in fragmented memory it is made of smaller ones, the log says so, and it is right": pieces,
}

/// More than the kernel could make room for by moving what can be moved.
const SIZE: u64 = 128 << 20;
const HUGE: u64 = 2 << 20;

/// A size of folios, and how many there are of it.
type Folios = (u64, u64);

/// Loads the module; returns what the one line of the log says of its folios.
fn load() -> Outcome<(Setup, Loaded, Vec<Folios>)> {
    let setup = Setup::new(&format!("huge=1 size={SIZE}"));
    let log = Log::from_now()?;
    let loaded = Loaded::new(&setup.params)?;
    let lines = log.lines_of(module::NAME)?;
    let told: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("mapdrv0: made of "))
        .collect();
    equal(
        format!("lines that tell of folios, of {lines:?}"),
        told.len(),
        1,
    )?;
    let folios: Vec<Folios> = told[0]
        .split(", ")
        .filter_map(|part| {
            let (count, size) = part.strip_suffix(" bytes")?.split_once(" folios of ")?;
            Some((size.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    let total: u64 = folios.iter().map(|(size, count)| size * count).sum();
    equal(format!("bytes in the folios of {lines:?}"), total, SIZE)?;
    Ok((setup, loaded, folios))
}

fn whole(_: &Setup) -> Outcome {
    let (_, loaded, folios) = load()?;
    equal("folios", folios, vec![(HUGE, SIZE / HUGE)])?;
    Ok(loaded.unload()?)
}

/// Fills memory with pages of two sorts in turn, and frees one sort. Memory is in pieces as long
/// as the result lives.
fn fragment() -> Outcome<Vec<(OwnedFd, OwnedFd)>> {
    const ROOM: usize = 16 << 20;
    const LEFT: u64 = 24 << 10;

    let free = || -> Outcome<u64> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        value.ok_or_else(|| wrong("no MemFree"))
    };
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    // Pages in pipes cannot be moved together again.
    let (mut kept, mut freed) = (Vec::new(), Vec::new());
    while free()? > LEFT {
        let (keep, lose) = (super::files::pipe(ROOM)?, super::files::pipe(ROOM)?);
        for _ in 0..ROOM / PAGE {
            for (_, writer) in [&keep, &lose] {
                let page = [0u8; PAGE];
                // SAFETY: The buffer is as long as said.
                let put = unsafe { libc::write(writer.as_raw_fd(), page.as_ptr().cast(), PAGE) };
                equal("written", sys::count(put)?, PAGE)?;
            }
            if free()? <= LEFT {
                break;
            }
        }
        kept.push(keep);
        freed.push(lose);
    }
    Ok(kept)
}

fn pieces(_: &Setup) -> Outcome {
    let _pieces = fragment()?;
    let (setup, loaded, folios) = load()?;
    let small = folios.iter().any(|&(size, _)| size < HUGE);
    ensure(format!("memory was not in pieces: {folios:?}"), small)?;
    contents::mmap(&setup)?;
    contents::mmap_private(&setup)?;
    walk::pfns(&setup)?;
    Ok(loaded.unload()?)
}
