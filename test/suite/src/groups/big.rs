// SPDX-License-Identifier: GPL-2.0

//! A device of more than 4 GiB.

use crate::check::{Outcome, ensure, equal, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, lseek, pread, pwrite};
use crate::uapi::{self, HEADER_LEN, PageHeader};
use libc::{SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_SET};
use std::process::Command;

tests! {
    "info, SEEK_END and seeking know positions behind 4 GiB": positions,
    "pread and pwrite reach bytes behind 4 GiB, and none 4 GiB before them": read_write,
    "an mmap at an offset behind 4 GiB shows the pages there, and a write reaches them": mmap,
    "one mapping of it all shows the right page everywhere, by its header": headers,
    "a walk behind 4 GiB finds the page that a mapping shows": walk,
    "a read over 4 GiB is cut short by the kernel, not wrapped": long_read,
    "`mapdrv verify` finds every byte as published": verify,
}

const FOUR: u64 = 1 << 32;

fn positions(setup: &Setup) -> Outcome {
    ensure(
        "the device is too small for this group",
        setup.size > FOUR + (64 << 20),
    )?;
    let fd = device::open(O_RDONLY)?;
    equal("size", device::info(&fd)?.size, setup.size)?;
    equal("SEEK_END", lseek(&fd, 0, SEEK_END)?, setup.size as i64)?;
    equal(
        "SEEK_SET",
        lseek(&fd, FOUR as i64 + 5, SEEK_SET)?,
        FOUR as i64 + 5,
    )?;
    equal("SEEK_CUR", lseek(&fd, -6, SEEK_CUR)?, FOUR as i64 - 1)?;
    equal(
        "SEEK_DATA",
        lseek(&fd, FOUR as i64 + 9, SEEK_DATA)?,
        FOUR as i64 + 9,
    )
}

fn read_write(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let pattern = setup.pattern(0);
    for start in [
        FOUR - 5000,
        FOUR - 1,
        FOUR,
        FOUR + 12_345,
        setup.size - 10_000,
    ] {
        let found = pread(&fd, start as i64, 10_000)?;
        same_bytes(
            format!("at {start:#x}"),
            &found,
            &pattern.bytes(start, 10_000),
        )?;
    }
    let at = FOUR + 777;
    let was = pread(&fd, at as i64, 100)?;
    pwrite(&fd, at as i64, &[0xaa; 100])?;
    same_bytes("written", &pread(&fd, at as i64, 100)?, &[0xaa; 100])?;
    same_bytes(
        "4 GiB before",
        &pread(&fd, 777, 100)?,
        &pattern.bytes(777, 100),
    )?;
    equal("put back", pwrite(&fd, at as i64, &was)?, 100)
}

fn mmap(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let pattern = setup.pattern(0);
    for start in [
        FOUR - PAGE as u64,
        FOUR,
        FOUR + 17 * PAGE as u64,
        setup.span() as u64 - 3 * PAGE as u64,
    ] {
        let map = Map::new(&fd, start, 3 * PAGE, RW, MAP_SHARED)?;
        for page in 0..3 {
            let expected = pattern.page(start / PAGE as u64 + page);
            same_bytes(
                format!("page {page} at {start:#x}"),
                &map.bytes(page as usize * PAGE, PAGE),
                &expected,
            )?;
        }
        let was = map.get(4000);
        map.put(4000, 0x55);
        let found = pread(&fd, start as i64 + 4000, 1)?;
        map.put(4000, was);
        equal("a write", found, vec![0x55])?;
    }
    Ok(())
}

fn headers(setup: &Setup) -> Outcome {
    let map = device::mapped(setup)?;
    let pages = setup.pages() as u64;
    // The last page may not hold all of its header.
    same_bytes(
        "last page",
        &map.bytes(map.len - PAGE, PAGE),
        &setup.pattern(0).page(pages - 1),
    )?;
    for page in 0..pages - 1 {
        let expected = PageHeader::new(page, pages, PAGE as u32, uapi::seed(0)).to_words();
        for (i, word) in expected.into_iter().enumerate() {
            if map.get(page as usize * PAGE + 8 * i) != word {
                return Err(crate::check::wrong(format!(
                    "page {page}: word {i} of {} is wrong",
                    HEADER_LEN / 8
                )));
            }
        }
    }
    Ok(())
}

fn walk(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for start in [FOUR - PAGE as u64, FOUR, setup.span() as u64 - PAGE as u64] {
        let map = Map::new(&fd, start, PAGE, PROT_READ, MAP_SHARED)?;
        map.touch();
        let walk = device::walk(&fd, start + 9)?;
        equal("offset", walk.offset, start + 9)?;
        equal("frame", map.pfn(0)?, Some(walk.pfn))?;
    }
    Ok(())
}

fn long_read(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    // Room in the address space only: the first page is there, the next one is not.
    let room = Map::anonymous(PAGE, RW)?;
    room.protect(0, PAGE, RW)?;
    let behind = Map::at(
        room.addr + PAGE,
        -1,
        0,
        PAGE,
        sys::PROT_NONE,
        sys::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
    )?;
    use std::os::fd::AsRawFd;
    // SAFETY: The kernel checks the address; what it can write is ours.
    let got = unsafe { libc::pread(fd.as_raw_fd(), room.addr as *mut _, setup.size as usize, 0) };
    equal("bytes", sys::count(got)?, PAGE)?;
    drop(behind);
    same_bytes("bytes", &room.bytes(0, PAGE), &setup.pattern(0).page(0))
}

fn verify(_: &Setup) -> Outcome {
    let output = Command::new("mapdrv")
        .args(["verify", "/dev/mapdrv0"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    equal(
        format!("exit status of mapdrv verify: {text}"),
        output.status.code(),
        Some(0),
    )
}
