// SPDX-License-Identifier: GPL-2.0

//! What a walk shows goes by the rights that its file was opened with, whatever becomes of them.
//! The node must be open to all in this group.

use super::{receive, send, set_caps, take_from};
use crate::check::{Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{MAP_SHARED, Map, O_RDONLY, PROT_READ, check};
use crate::uapi::Walk;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

tests! {
    "a descriptor of root's shows all after its rights are dropped, a fork and an execve": exec,
    "a descriptor of nobody's shows nothing to root who has received it": gained,
    "one capability makes the difference, and no other does": which,
    "rights dropped by threads in the midst of calls: each answer is whole or has nothing": halfway,
}

/// Whether a walk shows what only the privileged may know: all of it or nothing.
fn shows(fd: &OwnedFd) -> Outcome<bool> {
    let walk = device::walk(fd, 0)?;
    whole(&walk)
}

fn whole(walk: &Walk) -> Outcome<bool> {
    let index = walk.levels.iter().any(|level| level.index != 0);
    equal(
        "an index is shown, and a frame number",
        index,
        walk.pfn != 0,
    )?;
    Ok(index)
}

fn exec(_: &Setup) -> Outcome {
    let path = CString::new(device::path(0)).expect("no NUL");
    let mut child = Child::new(|line| {
        // Not closed by execve.
        // SAFETY: The path is a C string.
        let fd = check(unsafe { libc::open(path.as_ptr(), O_RDONLY) })?;
        // SAFETY: No pointers.
        check(unsafe { libc::dup2(fd as i32, 77) })?;
        process::become_nobody()?;
        let grandchild = process::fork(|| {
            let words = [c"sleep".as_ptr(), c"1000".as_ptr(), ptr::null()];
            // SAFETY: All are C strings, and the list ends.
            unsafe { libc::execv(c"/bin/busybox".as_ptr(), words.as_ptr()) };
            1
        })?;
        // Its descriptors are there all the time, the program after a while.
        let exe = format!("/proc/{grandchild}/exe");
        while !std::fs::read_link(&exe)?.ends_with("busybox") {
            thread::yield_now();
        }
        let taken = take_from(grandchild, 77)?;
        equal("shown to nobody", shows(&taken)?, true)?;
        equal(
            "shown by one of his own",
            shows(&device::open(O_RDONLY)?)?,
            false,
        )?;
        // SAFETY: No pointers; it is ours.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        process::wait(grandchild)?;
        line.say()
    })?;
    child.line.hear()?;
    child.end()
}

fn gained(_: &Setup) -> Outcome {
    let (here, there) = UnixStream::pair()?;
    process::in_child(|| {
        process::become_nobody()?;
        Ok(send(&here, &device::open(O_RDONLY)?)?)
    })?;
    let fd = receive(&there)?;
    equal("shown to root", shows(&fd)?, false)?;
    equal(
        "shown by one of his own",
        shows(&device::open(O_RDONLY)?)?,
        true,
    )
}

fn which(_: &Setup) -> Outcome {
    const SYS_ADMIN: u32 = 21;
    for number in 0..41 {
        process::in_child(|| {
            set_caps(1 << number)?;
            let fd = device::open(O_RDONLY)?;
            equal(
                format!("with capability {number} only"),
                shows(&fd)?,
                number == SYS_ADMIN,
            )
        })?;
    }
    process::in_child(|| {
        set_caps(super::ALL_CAPS & !(1 << SYS_ADMIN))?;
        equal("with all others", shows(&device::open(O_RDONLY)?)?, false)
    })
}

fn halfway(setup: &Setup) -> Outcome {
    const ROUNDS: u32 = 60;
    const THREADS: u32 = 4;

    let old = device::open(O_RDONLY)?;
    let seen = [const { AtomicU32::new(0) }; 2];
    let work = &|thread: u32| -> Outcome {
        for round in 0..ROUNDS {
            // Rights are a thread's own. Not by the library, which has all threads drop them.
            if round == ROUNDS / 3 + 5 * thread {
                match thread % 2 {
                    0 => set_caps(0)?,
                    // SAFETY: No pointers.
                    _ => check(unsafe { libc::syscall(libc::SYS_setresuid, 1, 1, 1) }).map(drop)?,
                }
            }
            let fd = device::open(O_RDONLY)?;
            let shown = shows(&fd)?;
            seen[usize::from(shown)].fetch_add(1, Relaxed);
            let expected = round < ROUNDS / 3 + 5 * thread;
            equal("shown by one's own", shown, expected)?;
            equal("shown by the old one", shows(&old)?, true)?;
            let map = Map::new(&old, 0, setup.span(), PROT_READ, MAP_SHARED)?;
            map.get(setup.pages() / 2 * PAGE);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(crate::check::wrong("a thread has panicked")))
        })
    })?;
    for (what, count) in ["hidden", "shown"].iter().zip(&seen) {
        ensure(format!("never {what}"), count.load(Relaxed) > 0)?;
    }
    Ok(())
}
