// SPDX-License-Identifier: GPL-2.0

//! What others have left in memory is never readable through a device. For machines whose kernel does
//! not clear what it gives out: `init_on_alloc=0`, and with poison in what is free if it has that.

use super::slow;
use crate::check::{Fail, Outcome, ensure, equal, same_bytes, wrong};
use crate::device::{self, Setup};
use crate::groups::files::pipe;
use crate::module::Loaded;
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, count, pread};
use crate::uapi::{IOC_MIN_SIZE, IOC_NR_INFO, IOC_NR_STATS, IOC_NR_WALK, iowr};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

tests! {
    "the kernel of this machine leaves in memory what was there": dirty,
    "all that can be read of a device is the device's, by every call, down to the end of its last page": all,
    "a short read, or one at the end, leaves the rest of the reader's memory as it was": short,
    "answers of ioctls have nothing else in them, whatever the size of the structure": answers,
    "sysfs, debugfs and fdinfo have nothing else in them": texts,
}

/// A word that is nowhere else: it is made where it is stored.
fn marker() -> u64 {
    std::hint::black_box(0x6b1d_0a75_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Fills most of what is free in memory with the marker, and frees it.
fn soil() -> Outcome {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let free = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    let free = free.ok_or_else(|| wrong("no MemFree in /proc/meminfo"))? << 10;
    process::in_child(|| {
        let map = Map::anonymous((free / 4 * 3).next_multiple_of(PAGE), RW)?;
        let page: Vec<u8> = (0..PAGE / 8).flat_map(|_| marker().to_ne_bytes()).collect();
        for offset in (0..map.len).step_by(PAGE) {
            map.write(offset, &page);
        }
        Ok(())
    })
}

/// What is in `bytes` that is somebody else's: the marker, or what the kernel puts into free memory.
fn residue(bytes: &[u8]) -> Option<usize> {
    let marker = marker().to_ne_bytes();
    // Of free pages, of free objects, of new objects; not what padding may look like.
    let poison = [0xaa, 0x6b, 0x5a].map(|byte| [byte; 8]);
    bytes
        .windows(8)
        .position(|window| window == marker || poison.iter().any(|poison| window == poison))
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) -> Outcome {
    match residue(bytes) {
        None => Ok(()),
        Some(at) => Err(wrong(format!(
            "{what}: not the device's, from byte {at}: {:x?}",
            &bytes[at..(at + 16).min(bytes.len())]
        ))),
    }
}

fn dirty(_: &Setup) -> Outcome {
    let command = fs::read_to_string("/proc/cmdline")?;
    ensure(
        "not booted with init_on_alloc=0",
        command.contains("init_on_alloc=0"),
    )?;
    // The scan finds what it is to find.
    let mut bytes = vec![0u8; 100];
    clean("zeroes", &bytes)?;
    for word in [marker(), 0xaaaa_aaaa_aaaa_aaaa, 0x6b6b_6b6b_6b6b_6b6b] {
        bytes[51..59].copy_from_slice(&word.to_ne_bytes());
        equal("found at", residue(&bytes), Some(51))?;
    }
    soil()?;
    if command.contains("page_poison=on") {
        // Free pages have the poison now, not the marker.
        return Ok(());
    }
    let found = marked_pages(1000)?;
    ensure(
        format!("only {found} pages are as they were left"),
        found == 1000,
    )
}

/// How many pages of memory begin with the marker, up to `limit`, as /proc/kcore has it.
fn marked_pages(limit: usize) -> Outcome<usize> {
    let kcore = sys::open("/proc/kcore", O_RDONLY)?;
    let head = pread(&kcore, 0, 64)?;
    let word = |bytes: &[u8], at: usize| {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let (table, number) = (word(&head, 32), u16::from_ne_bytes([head[56], head[57]]));
    let mut found = 0;
    for n in 0..u64::from(number) {
        let header = pread(&kcore, (table + 56 * n) as i64, 56)?;
        let (offset, addr, len) = (word(&header, 8), word(&header, 16), word(&header, 32));
        let frames = word(&header, 24);
        // What is mapped one to one has a physical address; user memory is neither low nor vmalloc's.
        if header[0] != 1 || frames == u64::MAX || addr >= 0xffff_ffff_8000_0000 {
            continue;
        }
        for page in (0..len).step_by(PAGE) {
            let start = pread(&kcore, (offset + page) as i64, 8).unwrap_or_default();
            found += usize::from(start == marker().to_ne_bytes());
            if found == limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Sizes that end everywhere in a page, and in a huge one.
const SIZES: [usize; 7] = [1, 4095, 4096, 4097, 69_633, 2_097_151, 2_097_153];

/// Loads the module in memory that others have used, in all kinds of ways; where that takes long, only
/// with the last of the sizes, and in half of the ways.
fn each(sizes: &[usize], body: impl Fn(&Setup) -> Outcome) -> Outcome {
    let last = sizes.len() - 1;
    let sizes = if slow() { &sizes[last..] } else { sizes };
    for (huge, fill) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        if slow() && huge == fill {
            continue;
        }
        for size in sizes {
            let params = format!("size={size} fill={fill} huge={huge}");
            let _loaded = Loaded::new(&params)?;
            body(&Setup::new(&params)).map_err(|fail| match fail {
                Fail::Wrong(text) => wrong(format!("{params}: {text}")),
                skip => skip,
            })?;
        }
    }
    Ok(())
}

/// What splice gives from `offset` on.
fn spliced(fd: &OwnedFd, offset: usize, len: usize) -> Outcome<Vec<u8>> {
    let (reader, writer) = pipe(16 * PAGE)?;
    let mut position = offset as i64;
    let mut bytes = vec![0xee; len + 1];
    // SAFETY: The position is ours, and the buffer as long as said.
    let got = unsafe {
        let (from, to) = (fd.as_raw_fd(), writer.as_raw_fd());
        let flags = libc::SPLICE_F_NONBLOCK;
        count(libc::splice(
            from,
            &raw mut position,
            to,
            ptr::null_mut(),
            len,
            flags,
        ))?;
        drop(writer);
        count(libc::read(
            reader.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            len + 1,
        ))?
    };
    bytes.truncate(got);
    Ok(bytes)
}

fn all(_: &Setup) -> Outcome {
    soil()?;
    each(&SIZES, |setup| {
        let fd = device::open(O_RDWR)?;
        let size = setup.size as usize;
        let mut expected = setup.pattern(0).all();
        same_bytes("read", &sys::read_all(&fd, 70_001)?, &expected)?;
        let tail = size.saturating_sub(5000);
        same_bytes(
            "pread over the end",
            &pread(&fd, tail as i64, 9000)?,
            &expected[tail..],
        )?;
        // It is short where the kernel has not got the pages at once.
        let part = spliced(&fd, tail, 9000)?;
        ensure("splice gives nothing", size == 0 || !part.is_empty())?;
        let rest = &expected[tail..];
        same_bytes(
            "splice over the end",
            &part,
            &rest[..part.len().min(rest.len())],
        )?;
        expected.resize(setup.span(), 0);
        for flags in [MAP_SHARED, libc::MAP_PRIVATE] {
            let map = Map::new(&fd, 0, setup.span(), PROT_READ, flags)?;
            same_bytes("mapped", &map.bytes(0, map.len), &expected)?;
        }
        // A copy of a page has no more than the page.
        let map = Map::new(
            &fd,
            (setup.span() - PAGE) as u64,
            PAGE,
            RW,
            libc::MAP_PRIVATE,
        )?;
        map.put(PAGE - 8, 1);
        same_bytes(
            "copied",
            &map.bytes(0, PAGE - 8),
            &expected[setup.span() - PAGE..][..PAGE - 8],
        )?;
        // There is no page behind the last one, by whatever way.
        let behind = Map::new(&fd, setup.span() as u64, PAGE, PROT_READ, MAP_SHARED);
        ensure("a page behind the last", behind.is_err())
    })
}

fn short(_: &Setup) -> Outcome {
    soil()?;
    each(&SIZES[..5], |setup| {
        let fd = device::open(O_RDONLY)?;
        let size = setup.size as usize;
        for (offset, len) in [(0, 1), (size, 4096), (size - 1, 4096), (size / 2, size + 3)] {
            let mut bytes = vec![0xee; len + 16];
            let there = (size - offset).min(len);
            // SAFETY: The buffer is longer than said.
            let got = unsafe {
                let to = bytes.as_mut_ptr().cast();
                count(libc::pread(fd.as_raw_fd(), to, len, offset as i64))?
            };
            equal("bytes", got, there)?;
            let device = setup.pattern(0).bytes(offset as u64, there);
            same_bytes("read", &bytes[..got], &device)?;
            same_bytes("behind that", &bytes[got..], &vec![0xee; len + 16 - got])?;
        }
        Ok(())
    })
}

fn answers(_: &Setup) -> Outcome {
    soil()?;
    each(&SIZES[3..4], |_| {
        let fd = device::open(O_RDONLY)?;
        for nr in [IOC_NR_INFO, IOC_NR_WALK, IOC_NR_STATS] {
            for size in (IOC_MIN_SIZE..160).chain([1000, 4096, 16_383]) {
                let mut bytes = vec![0u8; size];
                sys::ioctl(&fd, iowr(nr, size), bytes.as_mut_ptr() as usize)?;
                clean(&format!("call {nr}, {size} bytes"), &bytes)?;
            }
            // What is refused says nothing at all.
            let mut bytes = [0xeeu8; 4096];
            let refused = sys::ioctl(&fd, iowr(nr, 4096), bytes.as_mut_ptr() as usize);
            ensure("what is not zero was accepted", refused.is_err())?;
            same_bytes("after a refusal", &bytes, &[0xee; 4096])?;
        }
        Ok(())
    })
}

fn texts(_: &Setup) -> Outcome {
    soil()?;
    each(&SIZES[3..4], |_| {
        let fd = device::open(O_RDONLY)?;
        let mut paths = vec![format!("/proc/self/fdinfo/{}", fd.as_raw_fd())];
        for dir in [
            "/sys/class/mapdrv/mapdrv0",
            "/sys/kernel/debug/mapdrv/mapdrv0",
        ] {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_file() {
                    paths.push(path.display().to_string());
                }
            }
        }
        ensure("not all files are there", paths.len() > 15)?;
        for path in paths {
            let bytes = fs::read(&path)?;
            clean(&path, &bytes)?;
            let text = bytes
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t'));
            ensure(format!("{path} is no text: {bytes:x?}"), text)?;
        }
        Ok(())
    })
}
