// SPDX-License-Identifier: GPL-2.0

//! All sorts of things at once.

use super::rounds;
use crate::check::{Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::module::Loaded;
use crate::pattern::PAGE;
use crate::process::Child;
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, RW, pread, pwrite};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

tests! {
    "mmap, fork, fault, write, move and munmap at once never show a wrong page": churn,
    "threads that fault while others take the pages away see the same": take_away,
    "writes and reads of a page at once move all the bytes they say": read_write,
}

/// A small generator of numbers, another sequence for each `seed`.
fn random(seed: &mut u64) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

/// Word 1 of each page is its index; word 0 is anyone's.
fn check_page(map: &Map, page: usize, first: usize) -> Outcome {
    equal(
        "index of a page",
        map.get(page * PAGE + 8),
        (first + page) as u64,
    )
}

fn churn_once(setup: &Setup, seed: &mut u64) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let first = random(seed) % setup.pages();
    let count = 1 + random(seed) % (setup.pages() - first);
    let flags = if random(seed) % 3 == 0 {
        MAP_PRIVATE
    } else {
        MAP_SHARED
    };
    let mut map = Map::new(&fd, (first * PAGE) as u64, count * PAGE, RW, flags)?;
    for _ in 0..30 {
        let page = random(seed) % map.pages();
        match random(seed) % 8 {
            0 => map.put(page * PAGE, 1),
            1 => map.advise(
                page * PAGE,
                (map.pages() - page) * PAGE,
                libc::MADV_DONTNEED,
            )?,
            2 => {
                map.protect(page * PAGE, PAGE, sys::PROT_READ)?;
                check_page(&map, page, first)?;
                map.protect(page * PAGE, PAGE, RW)?;
            }
            3 => {
                let whole = page + 1;
                if whole < map.pages() {
                    map.unmap(whole * PAGE, map.len - whole * PAGE)?;
                    map.len = whole * PAGE;
                }
            }
            _ => check_page(&map, page, first)?,
        }
    }
    let seed = *seed;
    if seed % 4 == 0 {
        crate::process::in_child(|| {
            (0..map.pages()).try_for_each(|page| check_page(&map, page, first))
        })?;
    }
    Ok(())
}

fn churn(setup: &Setup) -> Outcome {
    const ROUNDS: usize = 60;
    let loaded = Loaded::new(&setup.params)?;
    let (fd, map) = device::open_and_map(setup)?;
    for page in 0..map.pages() {
        map.put(page * PAGE + 8, page as u64);
    }
    let workers: Vec<Child> = (0..4)
        .map(|number| {
            Child::new(|_| {
                let mut seed = number;
                (0..rounds(ROUNDS)).try_for_each(|_| churn_once(setup, &mut seed))
            })
        })
        .collect::<Outcome<_>>()?;
    workers.into_iter().try_for_each(Child::end)?;
    equal("mappings left", device::info(&fd)?.mappings, 1)?;
    drop((map, fd));
    Ok(loaded.unload()?)
}

fn take_away(setup: &Setup) -> Outcome {
    const ROUNDS: usize = 300;
    let loaded = Loaded::new(&setup.params)?;
    let (fd, map) = device::open_and_map(setup)?;
    for page in 0..map.pages() {
        map.put(page * PAGE, page as u64);
    }
    let done = AtomicBool::new(false);
    let good = std::thread::scope(|scope| {
        let look = |step: usize| {
            let mut page = 0;
            while !done.load(Relaxed) {
                page = (page + step) % map.pages();
                if map.get(page * PAGE) != page as u64 {
                    return false;
                }
            }
            true
        };
        let readers = [1, 17, 251].map(|step| scope.spawn(move || look(step)));
        let mut advised = true;
        for round in 0..rounds(ROUNDS) {
            let (first, count) = match round % 3 {
                0 => (0, map.pages()),
                1 => (round % 50, 1),
                _ => (round % 100, 64),
            };
            advised &= map
                .advise(first * PAGE, count * PAGE, libc::MADV_DONTNEED)
                .is_ok();
            // Splits the mapping and its locks.
            if round % 10 == 0 {
                advised &= map.protect(first * PAGE, PAGE, sys::PROT_READ).is_ok();
                advised &= map.protect(first * PAGE, PAGE, RW).is_ok();
            }
        }
        done.store(true, Relaxed);
        readers
            .into_iter()
            .all(|reader| reader.join().unwrap_or(false))
            && advised
    });
    ensure("a thread saw other contents", good)?;
    drop((fd, map));
    Ok(loaded.unload()?)
}

fn read_write(setup: &Setup) -> Outcome {
    const ROUNDS: usize = 300;
    let loaded = Loaded::new(&setup.params)?;
    let workers: Vec<Child> = (0..4u8)
        .map(|number| {
            Child::new(|_| {
                let fd = device::open(O_RDWR)?;
                for _ in 0..rounds(ROUNDS) {
                    equal("written", pwrite(&fd, 0, &[number; 3 * PAGE])?, 3 * PAGE)?;
                    // A mixture, but of nothing else.
                    let bytes = pread(&fd, 0, 3 * PAGE)?;
                    equal("read", bytes.len(), 3 * PAGE)?;
                    ensure("a byte nobody wrote", bytes.iter().all(|&byte| byte < 4))?;
                }
                Ok(())
            })
        })
        .collect::<Outcome<_>>()?;
    workers.into_iter().try_for_each(Child::end)?;
    let fd = device::open(O_RDONLY)?;
    equal(
        "generation",
        device::info(&fd)?.generation,
        4 * rounds(ROUNDS) as u64,
    )?;
    drop(fd);
    Ok(loaded.unload()?)
}
