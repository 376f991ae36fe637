// SPDX-License-Identifier: GPL-2.0

//! Those who take references to pages of a device, to make the kernel believe that nobody else has.

use crate::check::{Fail, Outcome, equal, same_bytes};
use crate::device::{self, Setup};
use crate::groups::files::{contents, pipe};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, count};
use crate::uapi::MODE_HUGE;
use std::ffi::{c_int, c_void};
use std::fs;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};

tests! {
    "no number of references makes the kernel split a folio of a device": split,
    "no advice about a mapping or a file takes a page away": advice,
}

/// Most pages in a pipe that anybody may have.
const PIPE_PAGES: usize = 256;

/// Runs `body` as nobody, with `pins` references to the first page of `map` held by pipes.
fn with_pins(map: &Map, pins: usize, body: impl FnOnce() -> Outcome) -> Outcome {
    let mut pipes = Vec::new();
    for taken in 0..pins {
        if taken % PIPE_PAGES == 0 {
            pipes.push(pipe(PIPE_PAGES * PAGE)?);
        }
        let part = libc::iovec {
            iov_base: map.addr as *mut c_void,
            iov_len: PAGE,
        };
        let (_, writer) = pipes.last().expect("just made");
        // SAFETY: The mapping is that long.
        let moved = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const part, 1, 0) };
        equal("vmsplice", count(moved)?, PAGE)?;
    }
    body()
}

/// How often folios of a size have been split, and how often that has failed.
fn splits(bytes: usize) -> Outcome<(u64, u64)> {
    let dir = format!(
        "/sys/kernel/mm/transparent_hugepage/hugepages-{}kB/stats",
        bytes >> 10
    );
    let number = |name| {
        let text = fs::read_to_string(format!("{dir}/{name}"))
            .map_err(|error| Fail::Skip(format!("{dir}/{name}: {error}")))?;
        text.trim()
            .parse()
            .map_err(|_| crate::check::wrong("no number"))
    };
    Ok((number("split")?, number("split_failed")?))
}

fn split(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    process::become_nobody()?;
    let before = contents(&fd, setup)?;
    let span = setup.span();
    let start = splits(span)?;
    // What a folio lacks if its owner has one reference, and the kernel expects one for each page.
    let lacks = setup.pages() - 1;
    for pins in (0..4).chain(lacks - 4..lacks + 8) {
        let map = Map::new(&fd, 0, span, PROT_READ, MAP_SHARED)?;
        map.touch();
        with_pins(&map, pins, || {
            // The kernel would split a folio, to do as it is told with a part of it only.
            Ok(map.advise(0, PAGE, libc::MADV_COLD)?)
        })?;
        let (done, _) = splits(span)?;
        equal(format!("splits with {pins} references"), done, start.0)?;
        same_bytes("the device", &contents(&fd, setup)?, &before)?;
    }
    let (_, failed) = splits(span)?;
    let huge = device::info(&fd)?.mode == MODE_HUGE;
    equal("whether the kernel has tried", failed > start.1, huge)
}

/// Every advice there is about a mapping, known or not.
const ADVICE: [RangeInclusive<i32>; 2] = [0..=30, 100..=105];

/// What comes of `ADVICE`, for a mapping of `fd`. Some of it is refused; none may change the device.
fn advise(fd: &OwnedFd, setup: &Setup, prot: c_int, before: &[u8]) -> Outcome {
    for pins in [0, 1, 2] {
        for advice in ADVICE.into_iter().flatten() {
            let map = Map::new(fd, 0, setup.span(), prot, MAP_SHARED)?;
            map.touch();
            let page = setup.pages() / 2 * PAGE;
            with_pins(&map, pins, || {
                let _ = map.advise(0, map.len, advice);
                let _ = map.advise(page, PAGE, advice);
                Ok(())
            })?;
            let what = format!("after advice {advice} with {pins} references");
            same_bytes(what, &contents(fd, setup)?, before)?;
        }
    }
    Ok(())
}

fn advice(setup: &Setup) -> Outcome {
    for (flags, prot) in [(O_RDONLY, PROT_READ), (O_RDWR, RW)] {
        let fd = device::open(flags)?;
        let before = contents(&fd, setup)?;
        process::in_child(|| {
            process::become_nobody()?;
            advise(&fd, setup, prot, &before)
        })?;
        for pins in [0, 1, 2] {
            let map = Map::new(&fd, 0, setup.span(), prot, MAP_SHARED)?;
            map.touch();
            with_pins(&map, pins, || {
                map.unmap(0, map.len)?;
                for advice in 0..8 {
                    // SAFETY: No pointers.
                    unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, advice) };
                }
                // SAFETY: As above.
                unsafe {
                    libc::readahead(fd.as_raw_fd(), 0, map.len);
                    libc::sync_file_range(fd.as_raw_fd(), 0, 0, 7);
                    libc::fallocate(fd.as_raw_fd(), 3, 0, map.len as i64);
                    libc::ftruncate(fd.as_raw_fd(), 0);
                }
                fs::write("/proc/sys/vm/drop_caches", "3")?;
                Ok(fs::write("/proc/sys/vm/compact_memory", "1")?)
            })?;
            let what = format!("after advice about the file with {pins} references");
            same_bytes(what, &contents(&fd, setup)?, &before)?;
            let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
            same_bytes("by a mapping", &map.bytes(0, before.len()), &before)?;
        }
    }
    Ok(())
}
