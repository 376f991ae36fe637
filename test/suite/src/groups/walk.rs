// SPDX-License-Identifier: GPL-2.0

//! The page-table walk, against what user space can see of the same pages.

use crate::check::{Fail, Outcome, ensure, equal, refused, wrong};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, MAP_PRIVATE, Map, O_RDONLY, RW};
use crate::uapi::{
    ENTRY_ACCESSED, ENTRY_DIRTY, ENTRY_EXEC, ENTRY_LEAF, ENTRY_PRESENT, ENTRY_USER, ENTRY_WRITE,
    Walk,
};
use std::collections::HashSet;
use std::fs;

tests! {
    "the page behind every user address is the page that the kernel's walk found": pfns,
    "no two pages of a device are the same": distinct,
    "the levels are those that the processor has": levels,
    "the indices of all levels make up one address, which advances by a page from page to page": indices,
    "every entry is present, only the last one maps memory, writable, not executable, the kernel's": flags,
    "the leaf's size is that of its level": leaf_size,
    "any byte of a page is walked to the page that holds it": offsets,
    "a walk for a byte behind the last page is EINVAL": outside,
    "a copy made by a write to a private mapping is another page": private_copy,
    "whoever opened without CAP_SYS_ADMIN sees levels and sizes, but no frame number and no index": unprivileged,
    "root of another user namespace sees none either": namespace,
    "it is the opener's capability that counts, not the caller's": opener,
}

const NAMES: [&str; 5] = ["pgd", "p4d", "pud", "pmd", "pte"];
const SHIFTS: [u32; 5] = [48, 39, 30, 21, 12];

fn name(walk: &Walk, level: usize) -> String {
    String::from_utf8_lossy(&walk.levels[level].name)
        .trim_end_matches('\0')
        .to_owned()
}

/// Bits by which the index of a level is shifted in an address; the root of four levels stands in
/// for the missing one.
fn shift(walk: &Walk, level: usize) -> Outcome<u32> {
    let name = name(walk, level);
    if level == 0 && four_levels()? {
        return Ok(39);
    }
    let at = NAMES.iter().position(|known| *known == name);
    Ok(SHIFTS[at.ok_or_else(|| wrong(format!("unknown level `{name}`")))?])
}

/// Whether the processor runs with four levels. It hides the feature when five are not used.
fn four_levels() -> Outcome<bool> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let flags = cpu
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    Ok(!flags.split_whitespace().any(|flag| flag == "la57"))
}

pub fn pfns(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    map.touch();
    for page in 0..setup.pages() {
        let kernel = device::walk(&fd, (page * PAGE) as u64)?.pfn;
        ensure("the walk gives no frame number", kernel != 0)?;
        equal(
            format!("frame of page {page}"),
            map.pfn(page)?,
            Some(kernel),
        )?;
    }
    Ok(())
}

fn distinct(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let mut frames = HashSet::new();
    for page in 0..setup.pages() {
        let pfn = device::walk(&fd, (page * PAGE) as u64)?.pfn;
        ensure(
            format!("page {page} is another's as well"),
            frames.insert(pfn),
        )?;
    }
    Ok(())
}

fn levels(_: &Setup) -> Outcome {
    let walk = device::walk(&device::open(O_RDONLY)?, 0)?;
    let mut expected = NAMES.to_vec();
    if four_levels()? {
        expected.remove(1);
    }
    let found: Vec<String> = (0..walk.nr_levels as usize)
        .map(|level| name(&walk, level))
        .collect();
    // A walk may end early, at a huge leaf.
    expected.truncate(found.len());
    equal(
        "levels",
        found.iter().map(String::as_str).collect(),
        expected,
    )?;
    ensure(
        "the walk ended above the pmd",
        walk.nr_levels >= if four_levels()? { 3 } else { 4 },
    )
}

/// The address that the indices of a walk make up.
pub fn address(walk: &Walk) -> Outcome<u64> {
    let mut address = 0u64;
    for level in 0..walk.nr_levels as usize {
        ensure("an index is out of range", walk.levels[level].index < 512)?;
        address |= u64::from(walk.levels[level].index) << shift(walk, level)?;
    }
    let unused = if four_levels()? { 16 } else { 7 };
    Ok(((address << unused) as i64 >> unused) as u64)
}

fn indices(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let first = address(&device::walk(&fd, 0)?)?;
    ensure(format!("{first:#x} is not the kernel's"), first >> 63 == 1)?;
    for page in 0..setup.pages() {
        let walk = device::walk(&fd, (page * PAGE) as u64)?;
        let expected = (first + (page * PAGE) as u64) & !(walk.leaf_size - 1);
        equal(format!("address of page {page}"), address(&walk)?, expected)?;
    }
    Ok(())
}

fn flags(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    map.touch();
    for page in 0..setup.pages() {
        let walk = device::walk(&fd, (page * PAGE) as u64)?;
        let (last, upper) = walk.levels[..walk.nr_levels as usize]
            .split_last()
            .ok_or(wrong("no levels"))?;
        for level in upper {
            let flags = level.flags & (ENTRY_PRESENT | ENTRY_LEAF | ENTRY_WRITE);
            equal(
                "flags of an upper level",
                flags,
                ENTRY_PRESENT | ENTRY_WRITE,
            )?;
        }
        let fixed =
            last.flags & (ENTRY_PRESENT | ENTRY_LEAF | ENTRY_WRITE | ENTRY_EXEC | ENTRY_USER);
        equal(
            "flags of the leaf",
            fixed,
            ENTRY_PRESENT | ENTRY_LEAF | ENTRY_WRITE,
        )?;
        // The kernel has written it, if only with zeroes.
        let used = last.flags & (ENTRY_ACCESSED | ENTRY_DIRTY);
        equal("use of the leaf", used, ENTRY_ACCESSED | ENTRY_DIRTY)?;
    }
    Ok(())
}

fn leaf_size(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for page in 0..setup.pages() {
        let walk = device::walk(&fd, (page * PAGE) as u64)?;
        let last = walk.nr_levels as usize - 1;
        equal("leaf size", walk.leaf_size, 1 << shift(&walk, last)?)?;
    }
    Ok(())
}

fn offsets(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let last = setup.span() as u64 - PAGE as u64;
    for start in [0, last] {
        let expected = device::walk(&fd, start)?;
        for offset in [start + 1, start + 2048, start + 4095] {
            let found = device::walk(&fd, offset)?;
            equal("offset", found.offset, offset)?;
            equal(
                "walk",
                Walk {
                    offset: start,
                    ..found
                },
                expected,
            )?;
        }
    }
    Ok(())
}

fn outside(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let end = setup.span() as u64;
    for offset in [end, end + 1, end + (1 << 32), 1 << 63, u64::MAX] {
        refused(
            format!("walk for {offset:#x}"),
            device::walk(&fd, offset),
            libc::EINVAL,
        )?;
    }
    Ok(())
}

fn private_copy(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let map = Map::new(&fd, 0, PAGE, RW, MAP_PRIVATE)?;
    let kernel = device::walk(&fd, 0)?.pfn;
    map.touch();
    equal("frame before the write", map.pfn(0)?, Some(kernel))?;
    map.put(0, 1);
    let copy = map.pfn(0)?;
    ensure("no page after the write", copy.is_some())?;
    ensure(
        "still the kernel's page after the write",
        copy != Some(kernel),
    )
}

/// Checks that `walk` tells what anyone may know, and nothing else.
fn check_censored(walk: &Walk, full: &Walk) -> Outcome {
    let mut expected = Walk { pfn: 0, ..*full };
    for level in &mut expected.levels {
        level.index = 0;
    }
    equal("what an unprivileged opener sees", *walk, expected)
}

/// The node of device 0 must be open to all in this group.
fn unprivileged(_: &Setup) -> Outcome {
    let full = device::walk(&device::open(O_RDONLY)?, 0)?;
    ensure(
        "root sees no indices",
        full.levels.iter().any(|level| level.index != 0),
    )?;
    process::in_child(|| {
        process::become_nobody()?;
        check_censored(&device::walk(&device::open(O_RDONLY)?, 0)?, &full)
    })
}

fn namespace(_: &Setup) -> Outcome {
    let full = device::walk(&device::open(O_RDONLY)?, 0)?;
    process::in_child(|| {
        // SAFETY: No pointers. All capabilities come with it, but over nothing that was there.
        sys::check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
        check_censored(&device::walk(&device::open(O_RDONLY)?, 0)?, &full)
    })
}

fn opener(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let full = device::walk(&fd, 0)?;
    process::in_child(|| {
        process::become_nobody()?;
        equal(
            "what nobody sees through root's descriptor",
            device::walk(&fd, 0)?,
            full,
        )
    })?;
    // The other way round: effective rights are given up for the time of the open.
    // SAFETY: No pointers.
    let drop_rights = |uid| unsafe { libc::seteuid(uid) };
    equal("seteuid", drop_rights(65534), 0)?;
    let fd = device::open(O_RDONLY);
    equal("seteuid back", drop_rights(0), 0)?;
    check_censored(&device::walk(&fd?, 0)?, &full).map_err(|fail| match fail {
        Fail::Wrong(text) => Fail::Wrong(format!("root, through nobody's descriptor: {text}")),
        skip => skip,
    })
}
