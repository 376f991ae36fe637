// SPDX-License-Identifier: GPL-2.0

//! Faults, against all that takes the mapping away under them.

use super::{LOOK, Place, Random, SCRATCH, look, rounds, while_looking, with_device, words};
use crate::check::{Outcome, ensure, equal, refused, wrong};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, PROT_NONE, PROT_READ, RW};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

tests! {
    "two that mmap and munmap the same addresses, while others fault there": same_place,
    "fault against munmap": munmap,
    "fault against mremap that moves": moved,
    "fault against mremap that shrinks": shrunk,
    "fault against mremap that would leave the old place mapped": dontunmap,
    "fault against MADV_DONTNEED": dontneed,
    "fault against mprotect": mprotect,
    "fault against fork": forked,
    "fault against exit of all threads": exit,
    "fault against exec of another thread": exec,
    "write(2) against faults: every byte read is the old or the new": written,
    "stores against faults: every byte read is the old or the new": stored,
}

/// Goes through rounds of `disturb` while two threads look at the device, mapped in one place.
fn disturbed(
    setup: &Setup,
    count: usize,
    mut disturb: impl FnMut(&OwnedFd, Place, &mut Random) -> Outcome,
) -> Outcome {
    with_device(setup, |fd| {
        for flags in [MAP_SHARED, MAP_PRIVATE] {
            let place = Place::new(setup, 0, flags)?;
            place.map_all(fd)?;
            while_looking(setup, &[place], count, |random| disturb(fd, place, random))?;
        }
        Ok(())
    })
}

fn same_place(setup: &Setup) -> Outcome {
    with_device(setup, |fd| {
        let shared = Place::new(setup, 0, MAP_SHARED)?;
        let private = Place::new(setup, 0, MAP_PRIVATE)?;
        let change = |random: &mut Random| -> Outcome {
            let piece = random.piece(setup.pages());
            match random.below(3) {
                0 => shared.piece(piece).unmap(0, piece.1)?,
                1 => private.map(fd, piece)?,
                _ => shared.map(fd, piece)?,
            }
            Ok(())
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut random = Random::new();
                while !done.load(Relaxed) {
                    change(&mut random)?;
                }
                Ok(())
            });
            let outcome = while_looking(setup, &[shared], 200, change);
            done.store(true, Relaxed);
            let other: Outcome = other.join().map_err(|_| wrong("a thread panicked"))?;
            outcome.and(other)
        })?;
        Ok(shared.clear()?)
    })
}

fn munmap(setup: &Setup) -> Outcome {
    disturbed(setup, 60, |fd, place, random| {
        let piece = random.piece(setup.pages());
        place.piece(piece).unmap(0, piece.1)?;
        thread::yield_now();
        Ok(place.map(fd, piece)?)
    })
}

fn moved(setup: &Setup) -> Outcome {
    with_device(setup, |fd| {
        let places = [
            Place::new(setup, 0, MAP_SHARED)?,
            Place::new(setup, 1, MAP_SHARED)?,
        ];
        while_looking(setup, &places, 60, |random| {
            // A mapping that is moved must be one, without holes.
            places[0].map_all(fd)?;
            let piece = random.piece(setup.pages());
            for (from, to) in [(0, 1), (1, 0)] {
                let (mut map, to) = (places[from].piece(piece), places[to].piece(piece));
                map.remap(piece.1, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to.addr)?;
                thread::yield_now();
            }
            Ok(())
        })
    })
}

fn shrunk(setup: &Setup) -> Outcome {
    disturbed(setup, 60, |fd, place, random| {
        place.map_all(fd)?;
        let keep = 1 + random.below(setup.pages() - 1);
        place.whole().remap(keep * PAGE, 0, 0)?;
        thread::yield_now();
        Ok(())
    })
}

fn dontunmap(setup: &Setup) -> Outcome {
    const FLAGS: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    disturbed(setup, 60, |_, place, random| {
        let piece = random.piece(setup.pages());
        // What cannot grow cannot be doubled either.
        let result = place.piece(piece).remap(piece.1, FLAGS, 0);
        refused("mremap(MREMAP_DONTUNMAP)", result, libc::EINVAL)
    })
}

fn dontneed(setup: &Setup) -> Outcome {
    disturbed(setup, 150, |_, place, random| {
        let piece = random.piece(setup.pages());
        Ok(place.piece(piece).advise(0, piece.1, libc::MADV_DONTNEED)?)
    })
}

fn mprotect(setup: &Setup) -> Outcome {
    disturbed(setup, 60, |_, place, random| {
        let piece = random.piece(setup.pages());
        let map = place.piece(piece);
        map.advise(0, piece.1, libc::MADV_DONTNEED)?;
        map.protect(0, piece.1, [PROT_NONE, PROT_READ][random.below(2)])?;
        thread::yield_now();
        Ok(map.protect(0, piece.1, RW)?)
    })
}

/// Forks whatever other threads there are. The child must do nothing but touch memory.
fn fork_with_threads(body: impl FnOnce() -> i32) -> Outcome<i32> {
    // SAFETY: The child does not come back, and calls nothing that another thread may have locked.
    let pid = sys::check(unsafe { libc::fork() })? as i32;
    if pid == 0 {
        let status = body();
        // SAFETY: No pointers.
        unsafe { libc::_exit(status) }
    }
    Ok(pid)
}

fn forked(setup: &Setup) -> Outcome {
    let words = words(setup);
    disturbed(setup, 12, |_, place, random| {
        let map = place.whole();
        let piece = random.piece(setup.pages());
        map.advise(piece.0, piece.1, libc::MADV_DONTNEED)?;
        // Copied, if it is private.
        map.put(random.below(setup.pages()) * PAGE + SCRATCH.start, 1);
        let child = fork_with_threads(|| {
            let good = |page: usize| map.get(page * PAGE + LOOK) == words[page];
            i32::from(!(0..words.len()).all(good))
        })?;
        equal("wait status of a child", process::wait(child)?, 0)
    })
}

/// Has a child fault in three threads, until `end` is called in a fourth, after a while.
fn ended(setup: &Setup, flags: i32, end: impl Fn()) -> Outcome {
    const ROUNDS: usize = 12;
    with_device(setup, |fd| {
        let words = words(setup);
        for _ in 0..rounds(ROUNDS) {
            process::in_child(|| {
                let place = Place::new(setup, 0, flags)?;
                place.map_all(fd)?;
                let done = AtomicBool::new(false);
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            if look(&words, &[place], &done).is_err() {
                                std::process::abort();
                            }
                        });
                    }
                    scope.spawn(|| {
                        let mut random = Random::new();
                        loop {
                            let (offset, len) = random.piece(setup.pages());
                            let _ = place.whole().advise(offset, len, libc::MADV_DONTNEED);
                            place.whole().put(offset + SCRATCH.start, 1);
                        }
                    });
                    Random::new().pause(5000);
                    end();
                });
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn exit(setup: &Setup) -> Outcome {
    // SAFETY: No pointers.
    let exit = || unsafe { libc::_exit(0) };
    ended(setup, MAP_SHARED, exit)?;
    ended(setup, MAP_PRIVATE, exit)
}

fn exec(setup: &Setup) -> Outcome {
    ended(setup, MAP_SHARED, || {
        let arguments = [c"true".as_ptr(), std::ptr::null()];
        // SAFETY: All strings and the list of them end as they should.
        unsafe { libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr()) };
    })
}

// --- Against writing ------------------------------------------------------------------------------

/// Two children each do `write` with one of two values of a byte, in page after page. Meanwhile
/// threads here look at those bytes in every way there is.
fn values(setup: &Setup, write: impl Fn(&OwnedFd, &Map, usize, [u8; 8]) -> Outcome) -> Outcome {
    const ROUNDS: usize = 4;
    const VALUES: [u8; 2] = [0x55, 0xaa];
    with_device(setup, |fd| {
        let map = Map::new(fd, 0, setup.span(), RW, MAP_SHARED)?;
        for page in 0..setup.pages() {
            map.put(
                page * PAGE + SCRATCH.start,
                u64::from_ne_bytes([VALUES[0]; 8]),
            );
        }
        let writers: Vec<Child> = VALUES
            .into_iter()
            .map(|value| {
                Child::new(|_| {
                    let fd = device::open(O_RDWR)?;
                    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
                    for _ in 0..rounds(ROUNDS) {
                        for page in 0..setup.pages() {
                            write(&fd, &map, page * PAGE + SCRATCH.start, [value; 8])?;
                        }
                        map.advise(0, map.len, libc::MADV_DONTNEED)?;
                    }
                    Ok(())
                })
            })
            .collect::<Outcome<_>>()?;
        let done = AtomicBool::new(false);
        let (map, done) = (&map, &done);
        let good = |bytes: &[u8]| bytes.iter().all(|byte| VALUES.contains(byte));
        let mapped = || {
            let mut random = Random::new();
            while !done.load(Relaxed) {
                let (offset, len) = random.piece(setup.pages());
                map.advise(offset, len, libc::MADV_DONTNEED)?;
                for at in (offset..offset + len).step_by(PAGE) {
                    let bytes = map.get(at + SCRATCH.start).to_ne_bytes();
                    ensure(format!("mapped: {bytes:x?}"), good(&bytes))?;
                }
            }
            Ok(())
        };
        let copied = || {
            let mut random = Random::new();
            while !done.load(Relaxed) {
                let (offset, len) = random.piece(setup.pages());
                let map = Map::new(fd, offset as u64, len, RW, MAP_PRIVATE)?;
                map.put(LOOK, 7);
                let mut last = map.get(SCRATCH.start);
                for _ in 0..3 {
                    // A copy is nobody else's to change.
                    equal("copied", last, map.get(SCRATCH.start))?;
                    last = map.get(SCRATCH.start);
                    let bytes = sys::pread(fd, (offset + SCRATCH.start) as i64, 8)?;
                    ensure(format!("read: {bytes:x?}"), good(&bytes))?;
                    thread::yield_now();
                }
                ensure(format!("copied: {last:x}"), good(&last.to_ne_bytes()))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let readers: [thread::ScopedJoinHandle<Outcome>; 2] =
                [scope.spawn(mapped), scope.spawn(copied)];
            let outcome = writers.into_iter().try_for_each(Child::end);
            done.store(true, Relaxed);
            for reader in readers {
                reader.join().map_err(|_| wrong("a thread panicked"))??;
            }
            outcome
        })?;
        let last: Vec<u8> = (0..setup.pages())
            .flat_map(|page| map.bytes(page * PAGE + SCRATCH.start, 8))
            .collect();
        ensure("a byte in the end that nobody wrote", good(&last))
    })
}

fn written(setup: &Setup) -> Outcome {
    values(setup, |fd, _, at, bytes| {
        equal("written", sys::pwrite(fd, at as i64, &bytes)?, 8)
    })
}

fn stored(setup: &Setup) -> Outcome {
    values(setup, |_, map, at, bytes| {
        map.put(at, u64::from_ne_bytes(bytes));
        Ok(())
    })
}
