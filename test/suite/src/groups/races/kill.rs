// SPDX-License-Identifier: GPL-2.0

//! `kill -9` in the middle of each system call.

use super::{LOOK, Random, rounds, with_device, word};
use crate::check::{Fail, Outcome, equal, wrong};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, RW};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

tests! {
    "kill -9 in open and close": |setup| in_call(setup, |_| drop_it(device::open(O_RDWR)?)),
    "kill -9 in read": |setup| in_call(setup, |fd| drop_it(sys::pread(fd, 0, setup.span())?)),
    "kill -9 in write": write,
    "kill -9 in ioctl": |setup| in_call(setup, ioctl),
    "kill -9 in mmap with MAP_POPULATE": populate,
    "kill -9 in munmap": munmap,
    "kill -9 in fork": forked,
    "kill -9 in mremap": mremap,
    "kill -9 in poll": |setup| in_call(setup, poll),
    "kill -9 in process_vm_readv, at either end": process_vm_readv,
    "kmemleak finds nothing after all that": kmemleak,
}

fn drop_it<T>(it: T) -> Outcome {
    drop(it);
    Ok(())
}

/// Kills a child that does `body` at some moment, in each of `rounds`; does `after` after that.
pub fn kill(rounds: usize, body: impl Fn() -> Outcome, after: impl Fn() -> Outcome) -> Outcome {
    let mut random = Random::new();
    for _ in 0..rounds {
        let mut child = Child::new(|line| {
            line.say()?;
            loop {
                body()?;
            }
        })?;
        child.line.hear()?;
        random.pause(4000);
        // SAFETY: The child is ours and has not been waited for.
        unsafe { libc::kill(child.pid, libc::SIGKILL) };
        let status = process::wait(child.pid)?;
        if !libc::WIFSIGNALED(status) || libc::WTERMSIG(status) != libc::SIGKILL {
            child.line.hear()?;
            return Err(wrong(format!("wait status {status:#x}")));
        }
        after()?;
    }
    Ok(())
}

/// Kills children in `call` on a device that stays.
fn in_call(setup: &Setup, call: impl Fn(&OwnedFd) -> Outcome) -> Outcome {
    with_device(setup, |fd| kill(rounds(15), || call(fd), || Ok(())))
}

/// Writes what is there already: it does not matter how much of it.
fn write(setup: &Setup) -> Outcome {
    let bytes = setup.pattern(0).all();
    in_call(setup, |fd| {
        equal("written", sys::pwrite(fd, 0, &bytes)?, bytes.len())
    })
}

fn ioctl(fd: &OwnedFd) -> Outcome {
    device::info(fd)?;
    device::walk(fd, 0)?;
    device::stats(fd)?;
    Ok(())
}

fn map(fd: &OwnedFd, setup: &Setup, flags: i32) -> Outcome<Map> {
    Ok(Map::new(
        fd,
        0,
        setup.span(),
        RW,
        flags | libc::MAP_POPULATE,
    )?)
}

fn populate(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        in_call(setup, |fd| drop_it(map(fd, setup, flags)?))?;
    }
    Ok(())
}

fn munmap(setup: &Setup) -> Outcome {
    in_call(setup, |fd| {
        let map = map(fd, setup, MAP_SHARED)?;
        // Piece by piece, each of which is a split.
        for page in (0..map.pages()).step_by(8) {
            map.unmap(page * PAGE, 4 * PAGE)?;
        }
        Ok(())
    })
}

fn forked(setup: &Setup) -> Outcome {
    with_device(setup, |fd| {
        let map = map(fd, setup, MAP_PRIVATE)?;
        let call = || {
            process::in_child(|| {
                map.put(0, 1);
                equal("word", map.get(PAGE + LOOK), word(setup, 1))
            })
        };
        // A grandchild is told of its parent's death.
        kill(rounds(15), call, || Ok(()))
    })
}

fn mremap(setup: &Setup) -> Outcome {
    in_call(setup, |fd| {
        let mut map = map(fd, setup, MAP_SHARED)?;
        for _ in 0..4 {
            let place = Map::anonymous(map.len, RW)?;
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            map.remap(map.len, flags, place.addr)?;
            // It is the mapping's place now.
            std::mem::forget(place);
        }
        Ok(map.remap(map.len / 2, 0, 0)?)
    })
}

fn poll(fd: &OwnedFd) -> Outcome {
    let mut wanted = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLPRI,
        revents: 0,
    };
    // SAFETY: There is one of them.
    equal(
        "ready",
        sys::check(unsafe { libc::poll(&raw mut wanted, 1, 1) })?,
        0,
    )
}

/// Copies what `pid` has at `map` over.
fn copy(pid: i32, map: &Map) -> Outcome<usize> {
    let mut bytes = vec![0u8; map.len];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: map.len,
    };
    let remote = libc::iovec {
        iov_base: map.addr as *mut _,
        iov_len: map.len,
    };
    // SAFETY: The buffer is as long as said; the other place is the kernel's to check.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Ok(sys::count(got)?)
}

fn process_vm_readv(setup: &Setup) -> Outcome {
    with_device(setup, |fd| {
        let map = Map::new(fd, 0, setup.span(), RW, MAP_SHARED)?;
        // SAFETY: No pointers.
        let parent = unsafe { libc::getpid() };
        let reader = || {
            equal("copied", copy(parent, &map)?, map.len)?;
            // The next one has to fault again.
            Ok(map.advise(0, map.len, libc::MADV_DONTNEED)?)
        };
        kill(rounds(15), reader, || Ok(()))?;

        // The one that is read from goes.
        for _ in 0..rounds(15) {
            let child = Child::new(|line| line.hear())?;
            let pid = child.pid;
            thread::scope(|scope| {
                scope.spawn(move || {
                    Random::new().pause(4000);
                    // SAFETY: The child is ours and has not been waited for.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                });
                while copy(pid, &map).is_ok_and(|got| got > 0) {}
            });
            equal("wait status", process::wait(pid)?, libc::SIGKILL)?;
        }
        Ok(())
    })
}

fn kmemleak(_: &Setup) -> Outcome {
    const FILE: &str = "/sys/kernel/debug/kmemleak";
    if fs::write(FILE, "scan").is_err() {
        return Err(Fail::Skip("this kernel has no kmemleak".to_owned()));
    }
    // What is younger than five seconds is not looked at.
    thread::sleep(Duration::from_secs(6));
    fs::write(FILE, "scan")?;
    equal("leaks", fs::read_to_string(FILE)?, String::new())
}
