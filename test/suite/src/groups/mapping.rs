// SPDX-License-Identifier: GPL-2.0

//! What a mapping promises, whatever is done to it.

use super::files::{contents, noise};
use crate::check::{Fail, Outcome, ensure, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::gup_test::{self, Pins};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{
    self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_NONE, PROT_READ, RW, check, pread,
    pwrite,
};
use crate::uapi::MODE_VMALLOC;
use libc::{
    EACCES, EFAULT, EINVAL, MADV_COLD, MADV_DODUMP, MADV_DOFORK, MADV_DONTFORK, MADV_DONTNEED,
    MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MREMAP_DONTUNMAP, MREMAP_FIXED,
    MREMAP_MAYMOVE,
};
use procfs::process::Process;
use std::fs;
use std::os::fd::AsRawFd;

tests! {
    "a mapping of any pages at any page offset shows those pages": any_offset,
    "after munmap of a part the rest shows the same pages": partial_munmap,
    "after mprotect of a part every part shows the same pages, and back": partial_mprotect,
    "after mremap to any address, aligned or not, the same pages are there": moved,
    "a part that is moved away takes its pages with it": part_moved,
    "after mremap to a smaller size the rest is as before": shrunk,
    "MREMAP_DONTUNMAP is EINVAL, a second mapping by mremap EINVAL or EFAULT, and nothing changes": remap_refused,
    "pages that were never touched are right after a split or a move too": untouched,
    "two mappings of a page, in one process or in two, are the same page": same_page,
    "after fork, before or after first touch, parent and child share a shared mapping": fork_shared,
    "after fork, before or after first touch, parent and child keep a private mapping to themselves": fork_private,
    "a write to a private mapping never reaches the kernel's buffer": private_write,
    "a private mapping follows the buffer until its own first write to that page": private_follows,
    "a read-only descriptor allows a private mapping to be written": private_read_only,
    "after MADV_DONTNEED the same page comes back": dont_need,
    "after MADV_DONTNEED a private copy is gone and the device's page comes back": dont_need_private,
    "MADV_COLD and MADV_PAGEOUT lose nothing": cold,
    "advice of any kind loses nothing": any_advice,
    "MADV_DONTFORK leaves a mapping out of a child, for good: MADV_DOFORK is EINVAL": dont_fork,
    "mlock, mlock2 and mlockall make all pages present": lock,
    "MAP_POPULATE, MADV_POPULATE_READ and MADV_POPULATE_WRITE make all pages present": populate,
    "MADV_POPULATE_WRITE of a private mapping makes all pages copies": populate_private,
    "smaps counts the pages present, shows the device, and the flags `de` and `dd`": smaps,
    "a core dump leaves it out, and MADV_DODUMP is refused": core_dump,
    "soft-dirty works: a write sets the bit, on a shared and on a private mapping": soft_dirty,
    "userfaultfd refuses it cleanly": userfault,
    "NUMA policy calls do no harm": numa,
    "remap_file_pages shows the pages asked for": remap_file_pages,
    "a mapping above 47 bits of address, where there are such, shows the same pages": high,
    "another mapping over the middle leaves both ends right": covered,
    "threads that fault the same pages at once see the same": threads,
    "with huge=1 what is aligned is mapped by huge entries, and can be split": huge_entries,
    "pages pinned for long, to be read by a device, are a process's own if it maps them privately": pinned,
    "no access in range ever ended in SIGBUS": no_sigbus,
}

/// Compares what a mapping shows with what is in the device now.
#[track_caller]
fn shows(map: &Map, offset: usize, fd: &impl AsRawFd, device_offset: usize, len: usize) -> Outcome {
    let mut expected = pread(fd, device_offset as i64, len)?;
    expected.resize(len, 0);
    same_bytes(
        format!("mapping at {offset:#x}, {len:#x} bytes"),
        &map.bytes(offset, len),
        &expected,
    )
}

/// Fills the device anew, so that no test lives on what another left.
fn fresh(setup: &Setup, salt: usize) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let bytes = noise(salt, setup.size as usize);
    equal("bytes written", pwrite(&fd, 0, &bytes)?, bytes.len())
}

fn any_offset(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let pages = setup.pages();
    for first in (0..40)
        .chain(pages - 40..pages)
        .chain([pages / 2, pages / 3])
    {
        for count in [1, 2, 3, 17, 64] {
            let count = count.min(pages - first);
            for flags in [MAP_SHARED, MAP_PRIVATE] {
                let map = Map::new(&fd, (first * PAGE) as u64, count * PAGE, PROT_READ, flags)?;
                shows(&map, 0, &fd, first * PAGE, count * PAGE)?;
                equal(
                    "frame",
                    map.pfn(count - 1)?,
                    Some(device::walk(&fd, ((first + count - 1) * PAGE) as u64)?.pfn),
                )?;
            }
        }
    }
    Ok(())
}

/// A mapping of pages 3 to 3 + `PAGES`, its first half touched.
fn half_touched(flags: i32) -> Outcome<(std::os::fd::OwnedFd, Map)> {
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, (FIRST * PAGE) as u64, PAGES * PAGE, RW, flags)?;
    for page in 0..PAGES / 2 {
        map.get(page * PAGE);
    }
    Ok((fd, map))
}

const FIRST: usize = 3;
const PAGES: usize = 90;

fn partial_munmap(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 1)?;
        let (fd, map) = half_touched(flags)?;
        for (first, count) in [(0, 1), (10, 3), (44, 4), (60, 1), (89, 1)] {
            map.unmap(first * PAGE, count * PAGE)?;
        }
        for (first, last) in [(1, 10), (13, 44), (48, 60), (61, 89)] {
            shows(
                &map,
                first * PAGE,
                &fd,
                (FIRST + first) * PAGE,
                (last - first) * PAGE,
            )?;
        }
        for gone in [0, 11, 45, 60, 89] {
            let signal = process::signal_in(|| drop(map.bytes(gone * PAGE, 1)))?;
            equal("access to what is gone", signal, Some(libc::SIGSEGV))?;
        }
        map.put(13 * PAGE, 1);
        map.put(50 * PAGE, 2);
        equal("write to a piece", map.get(13 * PAGE), 1)?;
        equal("write to an untouched piece", map.get(50 * PAGE), 2)?;
    }
    Ok(())
}

fn partial_mprotect(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 2)?;
        let (fd, map) = half_touched(flags)?;
        for (first, count) in [(7, 2), (30, 40), (88, 2)] {
            map.protect(first * PAGE, count * PAGE, PROT_READ)?;
        }
        shows(&map, 0, &fd, FIRST * PAGE, PAGES * PAGE)?;
        let signal = process::signal_in(|| map.put(40 * PAGE, 1))?;
        equal("write to a read-only part", signal, Some(libc::SIGSEGV))?;
        map.protect(20 * PAGE, 20 * PAGE, PROT_NONE)?;
        let signal = process::signal_in(|| drop(map.bytes(25 * PAGE, 1)))?;
        equal(
            "read of a part without protection",
            signal,
            Some(libc::SIGSEGV),
        )?;
        map.protect(0, PAGES * PAGE, RW)?;
        shows(&map, 0, &fd, FIRST * PAGE, PAGES * PAGE)?;
        for page in 0..PAGES {
            map.put(page * PAGE, page as u64);
        }
        for page in 0..PAGES {
            equal("a word", map.get(page * PAGE), page as u64)?;
            let device = pread(&fd, ((FIRST + page) * PAGE) as i64, 8)?;
            let reached = device == (page as u64).to_ne_bytes();
            equal("the write reached the device", reached, flags == MAP_SHARED)?;
        }
    }
    Ok(())
}

/// Moves a mapping into reserved space, `pages` pages behind an address that is a multiple of 2 MiB.
fn move_to(map: &mut Map, pages: usize) -> Outcome {
    const HUGE: usize = 2 << 20;
    let room = Map::anonymous(map.len + 2 * HUGE, PROT_NONE)?;
    let to = room.addr.next_multiple_of(HUGE) + pages * PAGE;
    map.remap(map.len, MREMAP_MAYMOVE | MREMAP_FIXED, to)?;
    equal("new address", map.addr, to)?;
    // The rest of the room is left as it is: to unmap it would unmap what has moved in.
    std::mem::forget(room);
    Ok(())
}

fn moved(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        for offset in [0, 1, 3, 16, 17, 255, 511] {
            fresh(setup, offset)?;
            let (fd, mut map) = half_touched(flags)?;
            move_to(&mut map, offset)?;
            shows(&map, 0, &fd, FIRST * PAGE, PAGES * PAGE)?;
            map.put(0, 5);
            map.put((PAGES - 1) * PAGE, 6);
            let reached = pread(&fd, (FIRST * PAGE) as i64, 8)? == 5u64.to_ne_bytes();
            equal("a write reached the device", reached, flags == MAP_SHARED)?;
        }
    }
    Ok(())
}

fn part_moved(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 3)?;
        let (fd, map) = half_touched(flags)?;
        let mut part = Map {
            addr: map.addr + 40 * PAGE,
            len: 13 * PAGE,
        };
        move_to(&mut part, 5)?;
        shows(&part, 0, &fd, (FIRST + 40) * PAGE, 13 * PAGE)?;
        shows(&map, 0, &fd, FIRST * PAGE, 40 * PAGE)?;
        shows(
            &map,
            53 * PAGE,
            &fd,
            (FIRST + 53) * PAGE,
            (PAGES - 53) * PAGE,
        )?;
        let signal = process::signal_in(|| drop(map.bytes(45 * PAGE, 1)))?;
        equal("access to where it was", signal, Some(libc::SIGSEGV))?;
    }
    Ok(())
}

fn shrunk(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 4)?;
        let (fd, mut map) = half_touched(flags)?;
        for pages in [PAGES - 1, 50, 20, 1] {
            map.remap(pages * PAGE, 0, 0)?;
            shows(&map, 0, &fd, FIRST * PAGE, pages * PAGE)?;
            let behind = map.addr + map.len;
            // SAFETY: The child may die of it.
            let signal = process::signal_in(|| unsafe {
                (behind as *const u8).read_volatile();
            })?;
            equal("access behind it", signal, Some(libc::SIGSEGV))?;
        }
        refused(
            "growing back",
            map.remap(2 * PAGE, MREMAP_MAYMOVE, 0),
            EFAULT,
        )?;
    }
    Ok(())
}

fn remap_refused(setup: &Setup) -> Outcome {
    fresh(setup, 5)?;
    let (fd, mut map) = half_touched(MAP_SHARED)?;
    refused(
        "MREMAP_DONTUNMAP",
        map.remap(map.len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0),
        EINVAL,
    )?;
    let len = std::mem::replace(&mut map.len, 0);
    let second = map.remap(len, MREMAP_MAYMOVE, 0);
    map.len = len;
    let errno = second.err().and_then(|error| error.raw_os_error());
    ensure(
        format!("a second mapping: {errno:?}"),
        errno == Some(EINVAL) || errno == Some(EFAULT),
    )?;
    shows(&map, 0, &fd, FIRST * PAGE, PAGES * PAGE)
}

fn untouched(setup: &Setup) -> Outcome {
    fresh(setup, 6)?;
    let fd = device::open(O_RDWR)?;
    let mut map = Map::new(&fd, (FIRST * PAGE) as u64, PAGES * PAGE, RW, MAP_SHARED)?;
    map.unmap(10 * PAGE, PAGE)?;
    map.protect(20 * PAGE, PAGE, PROT_READ)?;
    // The last of the pieces, which starts at page 21, moves.
    let mut piece = Map {
        addr: map.addr + 21 * PAGE,
        len: (PAGES - 21) * PAGE,
    };
    map.len = 21 * PAGE;
    move_to(&mut piece, 7)?;
    // Backwards, so that each fault is the first in its window.
    for page in (0..PAGES - 21).rev() {
        shows(&piece, page * PAGE, &fd, (FIRST + 21 + page) * PAGE, PAGE)?;
    }
    for page in (11..21).rev().chain((0..10).rev()) {
        shows(&map, page * PAGE, &fd, (FIRST + page) * PAGE, PAGE)?;
    }
    Ok(())
}

fn same_page(setup: &Setup) -> Outcome {
    let (fd, one) = device::open_and_map(setup)?;
    let two = Map::new(
        &device::open(O_RDONLY)?,
        PAGE as u64,
        setup.span() - PAGE,
        PROT_READ,
        MAP_SHARED,
    )?;
    one.touch();
    two.touch();
    for page in 1..setup.pages() {
        equal("frame", one.pfn(page)?, two.pfn(page - 1)?)?;
    }
    process::in_child(|| {
        let mine = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
        mine.touch();
        for page in 0..setup.pages() {
            let pfn = mine.pfn(page)?;
            ensure("no page", pfn.is_some())?;
            equal(
                "frame in another process",
                pfn,
                Some(device::walk(&fd, (page * PAGE) as u64)?.pfn),
            )?;
        }
        Ok(())
    })
}

fn fork_shared(setup: &Setup) -> Outcome {
    for touch in [false, true] {
        fresh(setup, 7)?;
        let (fd, map) = device::open_and_map(setup)?;
        if touch {
            map.touch();
        }
        let mut child = Child::new(|line| {
            shows(&map, 0, &fd, 0, map.len)?;
            for page in (0..map.pages()).step_by(3) {
                map.put(page * PAGE, page as u64 + 1);
            }
            line.say()?;
            line.hear()?;
            for page in (1..map.pages()).step_by(3) {
                equal("the parent's word", map.get(page * PAGE), page as u64 + 2)?;
            }
            Ok(())
        })?;
        child.line.hear()?;
        for page in (0..map.pages()).step_by(3) {
            equal("the child's word", map.get(page * PAGE), page as u64 + 1)?;
        }
        for page in (1..map.pages()).step_by(3) {
            map.put(page * PAGE, page as u64 + 2);
        }
        child.line.say()?;
        child.end()?;
        shows(&map, 0, &fd, 0, map.len)?;
    }
    Ok(())
}

fn fork_private(setup: &Setup) -> Outcome {
    for touch in ["nothing", "read", "written"] {
        fresh(setup, 8)?;
        let fd = device::open(O_RDWR)?;
        let before = contents(&fd, setup)?;
        let map = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
        match touch {
            "read" => map.touch(),
            "written" => (0..map.pages()).for_each(|page| map.put(page * PAGE + 8, 8)),
            _ => (),
        }
        let mine = map.bytes(0, map.len);
        let mut child = Child::new(|line| {
            for page in (0..map.pages()).step_by(2) {
                map.put(page * PAGE, 1);
            }
            line.say()?;
            line.hear()?;
            for page in 0..map.pages() {
                let expected = if page % 2 == 0 {
                    1u64.to_ne_bytes()
                } else {
                    word_at(&mine, page)
                };
                equal(
                    "the child's word",
                    map.get(page * PAGE).to_ne_bytes(),
                    expected,
                )?;
            }
            Ok(())
        })?;
        child.line.hear()?;
        same_bytes(
            format!("{touch}: the parent's mapping"),
            &map.bytes(0, map.len),
            &mine,
        )?;
        for page in 0..map.pages() {
            map.put(page * PAGE, 2);
        }
        child.line.say()?;
        child.end()?;
        same_bytes(
            format!("{touch}: the device"),
            &contents(&fd, setup)?,
            &before,
        )?;
    }
    Ok(())
}

fn word_at(bytes: &[u8], page: usize) -> [u8; 8] {
    bytes[page * PAGE..page * PAGE + 8]
        .try_into()
        .expect("eight bytes")
}

fn private_write(setup: &Setup) -> Outcome {
    for touch in [false, true] {
        fresh(setup, 9)?;
        let fd = device::open(O_RDWR)?;
        let before = contents(&fd, setup)?;
        let map = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
        if touch {
            map.touch();
        }
        for page in 0..map.pages() {
            let at = page * PAGE + 8 * (page % 500);
            map.put(at, page as u64);
            equal("own write", map.get(at), page as u64)?;
        }
        same_bytes("the device", &contents(&fd, setup)?, &before)?;
        // All but the words written is still a copy of the device's.
        let mut expected = before.clone();
        expected.resize(setup.span(), 0);
        for page in 0..map.pages() {
            let at = page * PAGE + 8 * (page % 500);
            expected[at..at + 8].copy_from_slice(&(page as u64).to_ne_bytes());
        }
        same_bytes("the private mapping", &map.bytes(0, map.len), &expected)?;
    }
    Ok(())
}

fn private_follows(setup: &Setup) -> Outcome {
    fresh(setup, 10)?;
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, 0, 4 * PAGE, RW, MAP_PRIVATE)?;
    map.touch();
    map.put(PAGE, 11);
    for page in 0..4 {
        pwrite(&fd, (page * PAGE + 8) as i64, &22u64.to_ne_bytes())?;
    }
    equal("page without a write of its own", map.get(8), 22)?;
    ensure("page with one follows the device", map.get(PAGE + 8) != 22)?;
    equal("its own write", map.get(PAGE), 11)
}

fn private_read_only(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let before = pread(&fd, 0, 2 * PAGE)?;
    let map = Map::new(&fd, 0, 2 * PAGE, PROT_READ, MAP_PRIVATE)?;
    map.get(0);
    map.protect(0, map.len, RW)?;
    map.put(0, 1);
    map.put(PAGE, 2);
    same_bytes("the device", &pread(&fd, 0, 2 * PAGE)?, &before)
}

fn dont_need(setup: &Setup) -> Outcome {
    fresh(setup, 11)?;
    let (fd, map) = device::open_and_map(setup)?;
    for page in 0..map.pages() {
        map.put(page * PAGE, page as u64);
    }
    let frames: Vec<_> = (0..map.pages())
        .map(|page| map.pfn(page))
        .collect::<Result<_, _>>()?;
    map.advise(0, map.len, MADV_DONTNEED)?;
    for page in 0..map.pages() {
        equal("a page is still there", map.pfn(page)?, None)?;
    }
    for (page, frame) in frames.into_iter().enumerate().rev() {
        equal("word", map.get(page * PAGE), page as u64)?;
        ensure("no page", frame.is_some())?;
        equal("frame", map.pfn(page)?, frame)?;
    }
    map.advise(5 * PAGE, PAGE, MADV_DONTNEED)?;
    shows(&map, 0, &fd, 0, map.len)
}

fn dont_need_private(setup: &Setup) -> Outcome {
    fresh(setup, 12)?;
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
    for page in 0..map.pages() {
        map.put(page * PAGE, 1);
    }
    map.advise(0, map.len, MADV_DONTNEED)?;
    shows(&map, 0, &fd, 0, map.len)
}

fn cold(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 13)?;
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, setup.span(), RW, flags)?;
        for page in 0..map.pages() {
            map.put(page * PAGE, page as u64);
        }
        for advice in [MADV_COLD, MADV_PAGEOUT, MADV_COLD] {
            map.advise(0, map.len, advice)?;
            for page in 0..map.pages() {
                equal("word", map.get(page * PAGE), page as u64)?;
            }
        }
    }
    Ok(())
}

fn any_advice(setup: &Setup) -> Outcome {
    // Not those for memory errors, which are no advice.
    for advice in (0..32)
        .chain(102..104)
        .filter(|advice| ![MADV_DONTFORK, MADV_DOFORK].contains(advice))
    {
        fresh(setup, advice as usize)?;
        let (fd, map) = device::open_and_map(setup)?;
        map.touch();
        // MADV_GUARD_INSTALL makes holes, which MADV_GUARD_REMOVE, the next one, fills.
        const MADV_GUARD_INSTALL: i32 = 102;
        let taken = map.advise(8 * PAGE, 20 * PAGE, advice);
        if advice == MADV_GUARD_INSTALL && taken.is_ok() {
            map.advise(8 * PAGE, 20 * PAGE, advice + 1)?;
        }
        shows(&map, 0, &fd, 0, map.len).map_err(|fail| match fail {
            Fail::Wrong(text) => Fail::Wrong(format!("advice {advice}: {text}")),
            skip => skip,
        })?;
        map.put(9 * PAGE, 99);
        equal(
            "a write reaches the device",
            pread(&fd, (9 * PAGE) as i64, 1)?,
            vec![99],
        )?;
    }
    Ok(())
}

fn dont_fork(setup: &Setup) -> Outcome {
    let (_fd, map) = device::open_and_map(setup)?;
    map.touch();
    map.advise(0, map.len, MADV_DONTFORK)?;
    equal(
        "signal in the child",
        process::signal_in(|| drop(map.bytes(0, 1)))?,
        Some(libc::SIGSEGV),
    )?;
    // The kernel keeps it so for all mappings that must not grow.
    refused("MADV_DOFORK", map.advise(0, map.len, MADV_DOFORK), EINVAL)?;
    equal(
        "signal in the child",
        process::signal_in(|| drop(map.bytes(0, 1)))?,
        Some(libc::SIGSEGV),
    )
}

/// Fails unless all pages are present.
#[track_caller]
fn all_present(what: &str, map: &Map) -> Outcome {
    let mut present = 0;
    for page in 0..map.pages() {
        present += usize::from(map.pfn(page)?.is_some());
    }
    equal(format!("{what}: pages present"), present, map.pages())
}

fn lock(setup: &Setup) -> Outcome {
    for prot in [PROT_READ, RW] {
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, setup.span(), prot, MAP_SHARED)?;
        let at = map.addr as *const _;
        // SAFETY: The place is ours.
        check(unsafe { libc::mlock(at, map.len) })?;
        all_present("mlock", &map)?;
        // SAFETY: As above.
        check(unsafe { libc::munlock(at, map.len) })?;
        map.advise(0, map.len, MADV_DONTNEED)?;
        // SAFETY: As above.
        check(unsafe { libc::mlock2(at, map.len, libc::MLOCK_ONFAULT) })?;
        map.touch();
        all_present("mlock2", &map)?;
        shows(&map, 0, &fd, 0, map.len)?;
    }
    // SAFETY: No pointers.
    check(unsafe { libc::mlockall(libc::MCL_FUTURE) })?;
    let map = device::mapped(setup)?;
    all_present("mlockall", &map)?;
    // SAFETY: No pointers.
    check(unsafe { libc::munlockall() })?;
    Ok(())
}

fn populate(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    for (prot, flags) in [
        (PROT_READ, MAP_SHARED),
        (RW, MAP_SHARED),
        (PROT_READ, MAP_PRIVATE),
        (RW, MAP_PRIVATE),
    ] {
        let map = Map::new(&fd, 0, setup.span(), prot, flags | libc::MAP_POPULATE)?;
        all_present("MAP_POPULATE", &map)?;
        shows(&map, 0, &fd, 0, map.len)?;
        let map = Map::new(&fd, 0, setup.span(), prot, flags)?;
        map.advise(0, map.len, MADV_POPULATE_READ)?;
        all_present("MADV_POPULATE_READ", &map)?;
        shows(&map, 0, &fd, 0, map.len)?;
    }
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    map.advise(0, map.len, MADV_POPULATE_WRITE)?;
    all_present("MADV_POPULATE_WRITE", &map)?;
    shows(&map, 0, &fd, 0, map.len)?;
    let map = device::mapped(setup)?;
    refused(
        "MADV_POPULATE_WRITE, read-only",
        map.advise(0, map.len, MADV_POPULATE_WRITE),
        EINVAL,
    )
}

fn populate_private(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
    map.advise(0, map.len, MADV_POPULATE_WRITE)?;
    all_present("MADV_POPULATE_WRITE", &map)?;
    shows(&map, 0, &fd, 0, map.len)?;
    for page in 0..map.pages() {
        let pfn = device::walk(&fd, (page * PAGE) as u64)?.pfn;
        ensure("a page is the device's", map.pfn(page)? != Some(pfn))?;
    }
    Ok(())
}

/// The entries of smaps for a mapping of a device.
fn smaps_of(map: &Map) -> Outcome<procfs::process::MemoryMap> {
    let maps = Process::myself()?.smaps()?;
    let found = maps
        .into_iter()
        .find(|entry| entry.address.0 == map.addr as u64);
    found.ok_or_else(|| crate::check::wrong("not in smaps"))
}

fn smaps(setup: &Setup) -> Outcome {
    use procfs::process::{MMapPath, VmFlags};

    let fd = device::open(O_RDWR)?;
    let map = Map::new(
        &fd,
        (2 * PAGE) as u64,
        setup.span() - 2 * PAGE,
        RW,
        MAP_SHARED,
    )?;
    let before = smaps_of(&map)?;
    equal(
        "Rss before",
        before.extension.map.get("Rss").copied(),
        Some(0),
    )?;
    equal("offset", before.offset, 2 * PAGE as u64)?;
    let path = format!("{:?}", before.pathname);
    equal(
        "path",
        path,
        format!("{:?}", MMapPath::Path("/dev/mapdrv0".into())),
    )?;
    let flags = before.extension.vm_flags;
    ensure("`de` is missing", flags.contains(VmFlags::DE))?;
    ensure("`dd` is missing", flags.contains(VmFlags::DD))?;
    ensure("`me` is there", !flags.contains(VmFlags::ME))?;
    ensure(
        "`pf` or `io` is there",
        !flags.intersects(VmFlags::PF | VmFlags::IO),
    )?;
    map.touch();
    let after = smaps_of(&map)?;
    let size = map.len as u64;
    equal("Rss", after.extension.map.get("Rss").copied(), Some(size))?;
    equal("Size", after.extension.map.get("Size").copied(), Some(size))?;
    // A page that two processes map counts half in each.
    process::in_child(|| {
        map.touch();
        equal(
            "Pss in two processes",
            smaps_of(&map)?.extension.map.get("Pss").copied(),
            Some(size / 2),
        )
    })
}

fn core_dump(setup: &Setup) -> Outcome {
    let (_fd, map) = device::open_and_map(setup)?;
    refused("MADV_DODUMP", map.advise(0, map.len, MADV_DODUMP), EINVAL)?;
    let plain = Map::anonymous(PAGE, RW)?;
    // Words that are nowhere else: each is made where it is stored.
    let word = |kind: u64, i: usize| {
        (0xfeed_0000_0000_0000 | (kind << 32)) + (i as u64).wrapping_mul(0x9e3779b9)
    };
    for i in 0..64 {
        map.put(8 * i, word(1, i));
        plain.put(8 * i, word(2, i));
    }
    fs::write("/proc/sys/kernel/core_pattern", "/tmp/core-of-test")?;
    // Mappings of files as well.
    fs::write("/proc/self/coredump_filter", "0x7f")?;
    let pid = process::fork(|| {
        let limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: The limit is valid.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            map.touch();
            libc::kill(libc::getpid(), libc::SIGABRT);
        }
        0
    })?;
    let status = process::wait(pid)?;
    ensure("no core was dumped", libc::WCOREDUMP(status))?;
    let core = fs::read("/tmp/core-of-test")?;
    fs::remove_file("/tmp/core-of-test")?;
    let bytes = |kind| {
        (0..64)
            .flat_map(|i| word(kind, i).to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let finds = |bytes: Vec<u8>| core.chunks(PAGE).any(|page| page.starts_with(&bytes));
    ensure("plain memory is not in it", finds(bytes(2)))?;
    ensure("the device is in it", !finds(bytes(1)))
}

fn soft_dirty(setup: &Setup) -> Outcome {
    const SOFT_DIRTY: u64 = 1 << 55;
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fresh(setup, 14)?;
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, 64 * PAGE, RW, flags)?;
        for page in 0..32 {
            map.put(page * PAGE, 1);
        }
        fs::write("/proc/self/clear_refs", "4")?;
        let dirty = |page: usize| {
            Ok::<bool, std::io::Error>(sys::pagemap(map.addr + page * PAGE)? & SOFT_DIRTY != 0)
        };
        for page in 0..64 {
            equal(format!("page {page} before"), dirty(page)?, false)?;
        }
        map.get(0);
        equal("after a read", dirty(0)?, false)?;
        map.put(5 * PAGE, 2);
        map.put(40 * PAGE, 3);
        for page in 0..32 {
            equal(format!("page {page} after"), dirty(page)?, page == 5)?;
        }
        equal("a page first touched by a write", dirty(40)?, true)?;
        equal(
            "word",
            (map.get(5 * PAGE), map.get(40 * PAGE), map.get(6 * PAGE)),
            (2, 3, 1),
        )?;
    }
    Ok(())
}

fn userfault(setup: &Setup) -> Outcome {
    // The kernel's own numbers: the API's version, and _IOWR(0xaa, 0x3f, 24), _IOWR(0xaa, 0, 32).
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_API: u32 = 0xc018_aa3f;
    const UFFDIO_REGISTER: u32 = 0xc020_aa00;

    let (fd, map) = device::open_and_map(setup)?;
    // SAFETY: No pointers.
    let uffd = check(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })? as i32;
    let mut api = [UFFD_API, 0, 0];
    sys::ioctl(&uffd, UFFDIO_API, api.as_mut_ptr() as usize)?;
    for mode in 1..8 {
        let mut range = [map.addr as u64, map.len as u64, mode, 0];
        refused(
            format!("mode {mode}"),
            sys::ioctl(&uffd, UFFDIO_REGISTER, range.as_mut_ptr() as usize),
            EINVAL,
        )?;
    }
    shows(&map, 0, &fd, 0, map.len)
}

fn numa(setup: &Setup) -> Outcome {
    const MPOL_F_NODE: i32 = 1;
    const MPOL_F_ADDR: i32 = 2;
    const MPOL_MF_MOVE: i32 = 2;

    fresh(setup, 15)?;
    let (fd, map) = device::open_and_map(setup)?;
    map.touch();
    let first_node = 1u64;
    for mode in 0..5 {
        for flags in [0, MPOL_MF_MOVE, 1 | MPOL_MF_MOVE] {
            let mask = if mode == 0 || mode == 4 {
                0
            } else {
                first_node
            };
            // SAFETY: The mask is valid, and 64 bits long.
            let _ = unsafe {
                libc::syscall(
                    libc::SYS_mbind,
                    map.addr,
                    map.len,
                    mode,
                    &raw const mask,
                    64,
                    flags,
                )
            };
            shows(&map, 0, &fd, 0, map.len)?;
        }
    }
    let mut node = -1i32;
    // SAFETY: The node is ours.
    check(unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut node,
            0,
            0,
            map.addr,
            MPOL_F_NODE | MPOL_F_ADDR,
        )
    })?;
    equal("node of the first page", node, 0)?;
    let pages = [map.addr, map.addr + 7 * PAGE];
    for nodes in [None, Some([0i32; 2])] {
        let mut status = [-1i32; 2];
        let wanted = nodes
            .as_ref()
            .map_or(std::ptr::null(), |nodes| nodes.as_ptr());
        // SAFETY: Two of each.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                2,
                pages.as_ptr(),
                wanted,
                status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        };
    }
    // SAFETY: Both masks are valid.
    let _ = unsafe {
        let mask = &raw const first_node;
        libc::syscall(libc::SYS_migrate_pages, 0, 64, mask, mask)
    };
    shows(&map, 0, &fd, 0, map.len)?;
    for page in 0..map.pages() {
        equal(
            "frame",
            map.pfn(page)?,
            Some(device::walk(&fd, (page * PAGE) as u64)?.pfn),
        )?;
    }
    Ok(())
}

fn remap_file_pages(setup: &Setup) -> Outcome {
    fresh(setup, 16)?;
    let (fd, map) = device::open_and_map(setup)?;
    map.touch();
    for (page, other) in [(0, 9), (5, 0), (6, setup.pages() - 1)] {
        let at = (map.addr + page * PAGE) as *mut _;
        // SAFETY: The place is ours.
        check(unsafe { libc::remap_file_pages(at, PAGE, 0, other, 0) })?;
        shows(&map, page * PAGE, &fd, other * PAGE, PAGE)?;
    }
    // SAFETY: As above.
    let beyond =
        check(unsafe { libc::remap_file_pages(map.addr as *mut _, PAGE, 0, setup.pages(), 0) });
    refused("beyond the end", beyond, EINVAL)
}

fn high(setup: &Setup) -> Outcome {
    const LIMIT: usize = 1 << 47;
    fresh(setup, 20)?;
    let fd = device::open(O_RDWR)?;
    let place = Map::at(
        1 << 52,
        -1,
        0,
        PAGE,
        PROT_READ,
        MAP_PRIVATE | libc::MAP_ANONYMOUS,
    )?;
    if place.addr < LIMIT {
        return Err(Fail::Skip("the processor has no such addresses".into()));
    }
    let map = Map::at(1 << 53, fd.as_raw_fd(), 0, setup.span(), RW, MAP_SHARED)?;
    ensure("the mapping is not there", map.addr >= LIMIT)?;
    shows(&map, 0, &fd, 0, map.len)?;
    map.put(PAGE, 20);
    equal("a write", pread(&fd, PAGE as i64, 1)?, vec![20])
}

fn covered(setup: &Setup) -> Outcome {
    fresh(setup, 17)?;
    let (fd, map) = half_touched(MAP_SHARED)?;
    let at = map.addr + 20 * PAGE;
    let other = Map::at(
        at,
        fd.as_raw_fd(),
        0,
        5 * PAGE,
        RW,
        MAP_SHARED | libc::MAP_FIXED,
    )?;
    shows(&other, 0, &fd, 0, 5 * PAGE)?;
    shows(&map, 0, &fd, FIRST * PAGE, 20 * PAGE)?;
    shows(
        &map,
        25 * PAGE,
        &fd,
        (FIRST + 25) * PAGE,
        (PAGES - 25) * PAGE,
    )?;
    let twice = Map::at(
        at,
        fd.as_raw_fd(),
        0,
        PAGE,
        RW,
        MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
    );
    refused(
        "MAP_FIXED_NOREPLACE",
        twice.map(std::mem::forget),
        libc::EEXIST,
    )?;
    let later = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?;
    refused(
        "mprotect beyond what the descriptor allows",
        {
            let only = Map::new(&device::open(O_RDONLY)?, 0, PAGE, PROT_READ, MAP_SHARED)?;
            only.protect(0, PAGE, RW)
        },
        EACCES,
    )?;
    drop(later);
    Ok(())
}

fn threads(setup: &Setup) -> Outcome {
    fresh(setup, 18)?;
    let fd = device::open(O_RDWR)?;
    let mut expected = contents(&fd, setup)?;
    expected.resize(setup.span(), 0);
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        for _ in 0..5 {
            let map = Map::new(&fd, 0, setup.span(), RW, flags)?;
            let good = std::thread::scope(|scope| {
                let look = || map.bytes(0, map.len) == expected;
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(look)).collect();
                threads
                    .into_iter()
                    .all(|thread| thread.join().unwrap_or(false))
            });
            ensure("a thread saw other contents", good)?;
        }
    }
    Ok(())
}

/// Bytes of a mapping that huge entries map.
fn by_huge_entries(map: &Map) -> Outcome<u64> {
    let maps = Process::myself()?.smaps()?;
    let ours = maps.into_iter().filter(|entry| {
        let (start, end) = (map.addr as u64, (map.addr + map.len) as u64);
        (start..end).contains(&entry.address.0)
    });
    Ok(ours
        .flat_map(|entry| entry.extension.map)
        .filter(|(name, _)| name == "FilePmdMapped" || name == "ShmemPmdMapped")
        .map(|(_, bytes)| bytes)
        .sum())
}

fn huge_entries(setup: &Setup) -> Outcome {
    const HUGE: usize = 2 << 20;
    let fd = device::open(O_RDWR)?;
    fresh(setup, 19)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    map.touch();
    if device::info(&fd)?.mode == MODE_VMALLOC {
        return equal("bytes by huge entries", by_huge_entries(&map)?, 0);
    }
    let all = (map.len / HUGE * HUGE) as u64;
    ensure("the device is too small", all > 0)?;
    equal("bytes by huge entries", by_huge_entries(&map)?, all)?;
    // A page less at the start leaves that many less by huge entries.
    map.unmap(0, PAGE)?;
    equal("after a split", by_huge_entries(&map)?, all - HUGE as u64)?;
    shows(&map, PAGE, &fd, PAGE, map.len - PAGE)?;
    map.protect(all as usize - PAGE, PAGE, PROT_READ)?;
    shows(&map, PAGE, &fd, PAGE, map.len - PAGE)?;

    let other = Map::new(&fd, PAGE as u64, setup.span() - PAGE, RW, MAP_SHARED)?;
    other.touch();
    shows(&other, 0, &fd, PAGE, other.len)?;
    let mut moved = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    moved.touch();
    move_to(&mut moved, 1)?;
    equal("where nothing is aligned", by_huge_entries(&moved)?, 0)?;
    shows(&moved, 0, &fd, 0, moved.len)?;

    let private = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
    private.touch();
    let before = contents(&fd, setup)?;
    for page in (0..private.pages()).step_by(100) {
        private.put(page * PAGE, 1);
    }
    same_bytes(
        "the device after private writes",
        &contents(&fd, setup)?,
        &before,
    )?;
    equal(
        "a page next to one written",
        private.get(PAGE).to_ne_bytes(),
        word_at(&before, 1),
    )
}

fn pinned(setup: &Setup) -> Outcome {
    gup_test::there()?;
    fresh(setup, 20)?;
    let fd = device::open(O_RDWR)?;
    let folio = if device::info(&fd)?.mode == MODE_VMALLOC {
        0
    } else {
        2 << 20
    };
    let len = (folio + 40 * PAGE).min(setup.size as usize / PAGE * PAGE);
    let before = pread(&fd, 0, len)?;
    for fast in [false, true] {
        for (flags, touched) in [
            (MAP_PRIVATE, true),
            (MAP_PRIVATE, false),
            (MAP_SHARED, true),
        ] {
            process::in_child(|| {
                // SAFETY: No pointers. What does not end is killed.
                unsafe { libc::alarm(120) };
                let map = Map::new(&fd, 0, len, RW, flags)?;
                if touched {
                    map.touch();
                }
                let pins = Pins::new()?;
                pins.pin(map.addr, len, fast)?;
                // What is written now is for the device's pages, not for copies of them.
                for page in 0..map.pages() {
                    pwrite(&fd, (page * PAGE) as i64, &[!before[page * PAGE]])?;
                }
                let expected = if flags == MAP_SHARED {
                    pread(&fd, 0, len)?
                } else {
                    before.clone()
                };
                let read = Map::anonymous(len, RW)?;
                pins.read(read.addr)?;
                same_bytes("what is pinned", &read.bytes(0, len), &expected)?;
                same_bytes("the mapping", &map.bytes(0, len), &expected)?;
                pins.unpin()?;
                same_bytes("the mapping then", &map.bytes(0, len), &expected)
            })?;
            pwrite(&fd, 0, &before)?;
        }
    }
    Ok(())
}

fn no_sigbus(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        for write in [false, true] {
            let signal = process::signal_in(|| {
                let map = Map::new(&fd, 0, setup.span(), RW, flags).expect("a mapping");
                for page in 0..map.pages() {
                    if write {
                        map.put(page * PAGE, 0);
                    }
                    map.get(page * PAGE);
                    map.bytes(page * PAGE + PAGE - 1, 1);
                }
            })?;
            equal("signal", signal, None)?;
        }
    }
    equal("SIGBUSes counted", device::stats(&fd)?.faults_sigbus, 0)
}
