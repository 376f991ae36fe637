// SPDX-License-Identifier: GPL-2.0

//! A machine that looks for memory everywhere, while a device is mapped and looked at.

use super::{Place, Random, SCRATCH, while_looking, with_device};
use crate::check::{Fail, Outcome, ensure, equal, wrong};
use crate::device::Setup;
use crate::pattern::PAGE;
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED};
use std::ffi::CString;
use std::fs;
use std::process::Command;

tests! {
    "faults while the kernel's caches are dropped": |setup| under(setup, 15, |_| drop_caches()),
    "faults while memory is compacted": |setup| under(setup, 15, |_| compact()),
    "faults while MADV_PAGEOUT and MADV_COLD take pages out": |setup| under(setup, 20, page_out),
    "faults while private copies are swapped out to zram": swap,
    "faults while khugepaged and KSM look for something to merge": merge,
}

/// Goes through rounds of `pressure` while others look at a shared mapping and a private one, all of
/// whose pages have been copied.
fn under(setup: &Setup, count: usize, mut pressure: impl FnMut(&[Place; 2]) -> Outcome) -> Outcome {
    with_device(setup, |fd| {
        let places = [
            Place::new(setup, 0, MAP_SHARED)?,
            Place::new(setup, 1, MAP_PRIVATE)?,
        ];
        for place in places {
            place.map_all(fd)?;
        }
        let copies = places[1].whole();
        let own = |page: usize| page * PAGE + SCRATCH.start;
        for page in 0..setup.pages() {
            copies.put(own(page), page as u64 + 1);
        }
        while_looking(setup, &places, count, |random: &mut Random| {
            let (offset, len) = random.piece(setup.pages());
            places[0].whole().advise(offset, len, libc::MADV_DONTNEED)?;
            pressure(&places)?;
            for _ in 0..50 {
                let page = random.below(setup.pages());
                equal("copy of a page", copies.get(own(page)), page as u64 + 1)?;
            }
            Ok(())
        })
    })
}

fn drop_caches() -> Outcome {
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

fn compact() -> Outcome {
    Ok(fs::write("/proc/sys/vm/compact_memory", "1")?)
}

fn page_out(places: &[Place; 2]) -> Outcome {
    for place in places {
        for advice in [libc::MADV_COLD, libc::MADV_PAGEOUT] {
            place.whole().advise(0, place.len, advice)?;
        }
    }
    Ok(())
}

/// Swap on compressed memory; off when dropped.
struct Swap;

const DISK: &str = "/dev/zram0";

impl Swap {
    fn new() -> Outcome<Self> {
        let _ = Command::new("modprobe").arg("zram").output();
        if fs::write("/sys/block/zram0/disksize", "64M").is_err() {
            return Err(Fail::Skip("this kernel has no zram".to_owned()));
        }
        let made = Command::new("mkswap").arg(DISK).output()?;
        ensure(format!("mkswap: {made:?}"), made.status.success())?;
        let path = CString::new(DISK).expect("no NUL");
        // SAFETY: The path is a C string.
        sys::check(unsafe { libc::swapon(path.as_ptr(), 0) })?;
        Ok(Self)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let path = CString::new(DISK).expect("no NUL");
        // SAFETY: The path is a C string.
        unsafe { libc::swapoff(path.as_ptr()) };
        let _ = fs::write("/sys/block/zram0/reset", "1");
    }
}

/// A number in /proc/vmstat.
fn vmstat(name: &str) -> Outcome<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find_map(|(key, value)| (key == name).then(|| value.parse().ok())?);
    value.ok_or(wrong(format!("no {name} in /proc/vmstat")))
}

fn swap(setup: &Setup) -> Outcome {
    let _swap = Swap::new()?;
    let before = vmstat("pswpout")?;
    under(setup, 4, page_out)?;
    let swapped = vmstat("pswpout")? - before;
    ensure(
        format!(
            "{swapped} pages were swapped out, of {} private ones",
            setup.pages()
        ),
        swapped as usize >= setup.pages() / 2,
    )
}

/// Settings of the kernel's; back to what they were when dropped.
struct Knobs(Vec<(String, String)>);

impl Knobs {
    fn set(values: &[(&str, &str)]) -> Outcome<Self> {
        let mut knobs = Self(vec![]);
        for (name, value) in values {
            let path = format!("/sys/kernel/mm/{name}");
            // Choices are all shown, the one that is made in brackets.
            let old = fs::read_to_string(&path)?;
            let chosen = old
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'));
            let old = chosen.map_or(old.trim(), |(chosen, _)| chosen).to_owned();
            fs::write(&path, value)?;
            knobs.0.push((path, old));
        }
        Ok(knobs)
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        for (path, old) in self.0.iter().rev() {
            let _ = fs::write(path, old);
        }
    }
}

fn merge(setup: &Setup) -> Outcome {
    let _knobs = Knobs::set(&[
        ("transparent_hugepage/enabled", "always"),
        ("transparent_hugepage/khugepaged/scan_sleep_millisecs", "1"),
        ("transparent_hugepage/khugepaged/alloc_sleep_millisecs", "1"),
        ("ksm/sleep_millisecs", "1"),
        ("ksm/pages_to_scan", "1000"),
        ("ksm/run", "1"),
    ])?;
    under(setup, 30, |places| {
        for place in places {
            // Neither is for mappings such as these, whatever the answer is.
            for advice in [libc::MADV_HUGEPAGE, libc::MADV_MERGEABLE, MADV_COLLAPSE] {
                let _ = place.whole().advise(0, place.len, advice);
            }
        }
        Ok(())
    })
}

const MADV_COLLAPSE: i32 = 25;
