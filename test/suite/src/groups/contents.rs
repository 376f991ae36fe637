// SPDX-License-Identifier: GPL-2.0

//! What a freshly loaded device contains, by every way of reading it.

use crate::check::{Outcome, equal, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, PROT_READ};
use crate::uapi::{HEADER_LEN, seed};
use std::process::Command;

tests! {
    "the info ioctl tells what the module was loaded with": info,
    "read gives the published contents, in pieces of any length": read,
    "mmap gives the published contents": mmap,
    "a private mapping gives the published contents": mmap_private,
    "dd gives the published contents": dd,
    "from the end of the device to the end of its last page all bytes are zero": tail,
    "SEEK_END is the size": seek_end,
    "every page starts with two lines of text, the second `ok!`; without filling it is zero": text,
    "no two devices have the same seed": seeds,
}

fn info(setup: &Setup) -> Outcome {
    for minor in 0..setup.devices {
        let info = device::info(&sys::open(&device::path(minor), O_RDONLY)?)?;
        equal("size", info.size, setup.size)?;
        equal("pages", info.pages, setup.pages() as u64)?;
        equal("page size", info.page_size as usize, PAGE)?;
        equal("seed", info.seed, seed(minor))?;
        equal("fill", info.fill, setup.fill.into())?;
        equal("minor", info.minor, minor)?;
        equal("generation", info.generation, 0)?;
        equal("flags", info.flags, 0)?;
    }
    Ok(())
}

fn read(setup: &Setup) -> Outcome {
    for minor in 0..setup.devices {
        let expected = setup.pattern(minor).all();
        let steps: &[usize] = if setup.size > 1 << 16 {
            &[61_441, 1 << 20]
        } else {
            &[1, 511, 4096, 1 << 20]
        };
        for &step in steps {
            let fd = sys::open(&device::path(minor), O_RDONLY)?;
            let found = sys::read_all(&fd, step)?;
            same_bytes(
                format!("device {minor}, pieces of {step}"),
                &found,
                &expected,
            )?;
        }
    }
    Ok(())
}

/// Compares all pages of all devices with what they should be.
fn compare(setup: &Setup, flags: i32) -> Outcome {
    for minor in 0..setup.devices {
        let fd = sys::open(&device::path(minor), O_RDONLY)?;
        let map = Map::new(&fd, 0, setup.span(), PROT_READ, flags)?;
        drop(fd);
        let pattern = setup.pattern(minor);
        for page in 0..setup.pages() {
            let found = map.bytes(page * PAGE, PAGE);
            same_bytes(
                format!("device {minor}, page {page}"),
                &found,
                &pattern.page(page as u64),
            )?;
        }
    }
    Ok(())
}

pub fn mmap(setup: &Setup) -> Outcome {
    compare(setup, MAP_SHARED)
}

pub fn mmap_private(setup: &Setup) -> Outcome {
    compare(setup, MAP_PRIVATE)
}

fn dd(setup: &Setup) -> Outcome {
    for minor in 0..setup.devices {
        let mut command = Command::new("dd");
        command
            .arg(format!("if={}", device::path(minor)))
            .arg("bs=10000");
        let output = command.output()?;
        equal("exit status of dd", output.status.code(), Some(0))?;
        same_bytes("output of dd", &output.stdout, &setup.pattern(minor).all())?;
    }
    Ok(())
}

fn tail(setup: &Setup) -> Outcome {
    let map = device::mapped(setup)?;
    let size = setup.size as usize;
    let tail = map.bytes(size, map.len - size);
    equal(
        "length of the tail",
        tail.len(),
        (PAGE - size % PAGE) % PAGE,
    )?;
    same_bytes("tail", &tail, &vec![0; tail.len()])
}

fn seek_end(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    equal(
        "SEEK_END",
        sys::lseek(&fd, 0, libc::SEEK_END)?,
        setup.size as i64,
    )?;
    equal(
        "bytes left there",
        sys::pread(&fd, setup.size as i64, 1)?.len(),
        0,
    )
}

fn text(setup: &Setup) -> Outcome {
    let map = device::mapped(setup)?;
    // A page with less than its header has what fits.
    let whole = (setup.size as usize + PAGE - HEADER_LEN) / PAGE;
    for page in 0..whole {
        let start = map.bytes(page * PAGE, 88);
        let start = String::from_utf8_lossy(&start);
        let lines: Vec<&str> = start.trim_end_matches('\0').split('\n').collect();
        if setup.fill {
            equal("number of lines", lines.len(), 2)?;
            equal("a sentence starts with", lines[0].chars().next(), Some('H'))?;
            equal("and ends with", lines[0].chars().last(), Some('.'))?;
            equal("the second line", lines[1], "ok!")?;
        } else {
            equal("the text", lines, vec![""])?;
        }
    }
    Ok(())
}

fn seeds(setup: &Setup) -> Outcome {
    let mut seeds = Vec::new();
    for minor in 0..setup.devices {
        seeds.push(device::info(&sys::open(&device::path(minor), O_RDONLY)?)?.seed);
    }
    seeds.sort_unstable();
    seeds.dedup();
    equal("different seeds", seeds.len(), setup.devices as usize)
}
