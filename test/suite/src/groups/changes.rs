// SPDX-License-Identifier: GPL-2.0

//! Writes become visible at once, and those who wait for them are told.

use super::files::noise;
use crate::check::{Outcome, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::{self, Child, PATIENCE};
use crate::sys::{
    self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_READ, RW, check, pread,
    pwrite,
};
use crate::uapi::IOC_INFO;
use libc::{POLLIN, POLLOUT, POLLPRI, POLLRDNORM, POLLWRNORM};
use std::ffi::c_short;
use std::os::fd::AsRawFd;

tests! {
    "a write is seen by every mapping and every reader at once": write_seen,
    "a store to a mapping is seen by every other mapping and by read at once": store_seen,
    "a store by another process is seen at once, and the reverse": processes,
    "the generation counts completed writes, and nothing else": generation,
    "a device is always ready to be read and written": ready,
    "after a write POLLPRI is raised, until that opener has asked for the info": acknowledged,
    "an info call that fails acknowledges nothing": not_acknowledged,
    "one process waits in poll, another writes, the first reads it in its mapping": wait,
    "every waiter is woken by a write": wait_many,
    "epoll and select tell the same": others,
    "two processes that take turns, each waiting for the other, lose no write": turns,
}

fn write_seen(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let span = setup.span();
    let touched = Map::new(&fd, 0, span, PROT_READ, MAP_SHARED)?;
    touched.touch();
    let fresh = Map::new(&device::open(O_RDONLY)?, 0, span, RW, MAP_PRIVATE)?;
    for page in 0..setup.pages() - 1 {
        let offset = page * PAGE + page % 3000;
        let bytes = noise(page, 1500);
        equal("written", pwrite(&fd, offset as i64, &bytes)?, bytes.len())?;
        same_bytes("in a mapping in use", &touched.bytes(offset, 1500), &bytes)?;
        same_bytes(
            "in a mapping not used before",
            &fresh.bytes(offset, 1500),
            &bytes,
        )?;
        same_bytes(
            "by another reader",
            &pread(&device::open(O_RDONLY)?, offset as i64, 1500)?,
            &bytes,
        )?;
    }
    Ok(())
}

fn store_seen(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    let other = Map::new(&fd, 0, map.len, PROT_READ, MAP_SHARED)?;
    let private = Map::new(&fd, 0, map.len, RW, MAP_PRIVATE)?;
    for page in 0..setup.pages() - 1 {
        let offset = page * PAGE + page % 500 * 8;
        let word = 0x1234_5678_9abc_def0 ^ page as u64;
        map.put(offset, word);
        equal("in another mapping", other.get(offset), word)?;
        equal("in a private mapping", private.get(offset), word)?;
        equal(
            "by read",
            pread(&fd, offset as i64, 8)?,
            word.to_ne_bytes().to_vec(),
        )?;
    }
    Ok(())
}

fn processes(setup: &Setup) -> Outcome {
    let span = setup.span();
    let (_fd, map) = device::open_and_map(setup)?;
    let mut child = Child::new(|line| {
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, span, RW, MAP_SHARED)?;
        for page in (0..map.pages()).step_by(7) {
            line.hear()?;
            equal("the parent's word", map.get(page * PAGE + 8), page as u64)?;
            map.put(page * PAGE + 16, !(page as u64));
            line.say()?;
        }
        Ok(())
    })?;
    for page in (0..map.pages()).step_by(7) {
        map.put(page * PAGE + 8, page as u64);
        child.line.say()?;
        child.line.hear()?;
        equal(
            "the child's word",
            map.get(page * PAGE + 16),
            !(page as u64),
        )?;
    }
    child.end()
}

fn generation(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    let now = || Ok::<u64, std::io::Error>(device::info(&fd)?.generation);
    let start = now()?;
    for i in 1..=5 {
        pwrite(&fd, i, b"abc")?;
        equal("after a write", now()?, start + i as u64)?;
    }
    map.put(0, 1);
    pread(&fd, 0, 10)?;
    pwrite(&fd, 0, b"")?;
    let _ = pwrite(&fd, setup.size as i64, b"x");
    equal("after what is no write", now()?, start + 5)?;
    pwrite(&device::open(O_WRONLY)?, 0, b"x")?;
    equal("after another's write", now()?, start + 6)
}

/// What `poll` reports of `events`, at once or after `wait` milliseconds at most.
pub fn poll(fd: &impl AsRawFd, events: c_short, wait: i32) -> Outcome<c_short> {
    let mut ask = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: One structure, as said.
    check(unsafe { libc::poll(&raw mut ask, 1, wait) })?;
    Ok(ask.revents)
}

const ANY: c_short = POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM;
const READY: c_short = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;

fn ready(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    equal("without a write", poll(&fd, ANY, 0)?, READY)?;
    pwrite(&fd, 0, b"x")?;
    equal("after one", poll(&fd, ANY, 0)?, READY | POLLPRI)
}

fn acknowledged(_: &Setup) -> Outcome {
    let (one, two) = (device::open(O_RDWR)?, device::open(O_RDONLY)?);
    equal("one, before", poll(&one, POLLPRI, 0)?, 0)?;
    pwrite(&one, 0, b"x")?;
    for _ in 0..2 {
        equal("one, after a write", poll(&one, POLLPRI, 0)?, POLLPRI)?;
        equal("two, after a write", poll(&two, POLLPRI, 0)?, POLLPRI)?;
    }
    pread(&two, 0, 10)?;
    device::stats(&two)?;
    device::walk(&two, 0)?;
    equal("two, after a read", poll(&two, POLLPRI, 0)?, POLLPRI)?;
    device::info(&two)?;
    equal("two, after its info", poll(&two, POLLPRI, 0)?, 0)?;
    equal("one, after two's info", poll(&one, POLLPRI, 0)?, POLLPRI)?;
    device::info(&one)?;
    equal("one, after its info", poll(&one, POLLPRI, 0)?, 0)?;
    equal(
        "someone new",
        poll(&device::open(O_RDONLY)?, POLLPRI, 0)?,
        0,
    )?;
    pwrite(&two_writer()?, 0, b"y")?;
    equal(
        "one, after the next write",
        poll(&one, POLLPRI, 0)?,
        POLLPRI,
    )
}

fn two_writer() -> Outcome<std::os::fd::OwnedFd> {
    Ok(device::open(O_WRONLY)?)
}

fn not_acknowledged(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    pwrite(&fd, 0, b"x")?;
    let still = |what: &str| {
        equal(
            format!("POLLPRI after {what}"),
            poll(&fd, POLLPRI, 0)?,
            POLLPRI,
        )
    };
    refused(
        "info at no address",
        sys::ioctl(&fd, IOC_INFO, 0),
        libc::EFAULT,
    )?;
    still("EFAULT at once")?;
    let flags = [1u64; 9];
    refused(
        "info with flags",
        sys::ioctl(&fd, IOC_INFO, flags.as_ptr() as usize),
        libc::EINVAL,
    )?;
    still("EINVAL")?;
    let page = Map::anonymous(PAGE, PROT_READ)?;
    refused(
        "info to memory that is read-only",
        sys::ioctl(&fd, IOC_INFO, page.addr),
        libc::EFAULT,
    )?;
    still("EFAULT at the end")
}

fn wait(setup: &Setup) -> Outcome {
    let span = setup.span();
    let mut child = Child::new(|line| {
        let fd = device::open(O_RDONLY)?;
        let map = Map::new(&fd, 0, span, PROT_READ, MAP_SHARED)?;
        for round in 0..20 {
            line.say()?;
            let events = poll(&fd, POLLPRI, PATIENCE.as_millis() as i32)?;
            equal("events", events, POLLPRI)?;
            let bytes = noise(round, 5000);
            same_bytes("what was written", &map.bytes(round * 1000, 5000), &bytes)?;
            device::info(&fd)?;
        }
        Ok(())
    })?;
    let fd = device::open(O_WRONLY)?;
    for round in 0..20 {
        child.line.hear()?;
        asleep(child.pid)?;
        pwrite(&fd, (round * 1000) as i64, &noise(round, 5000))?;
    }
    child.end()
}

/// Waits until the process sleeps.
fn asleep(pid: i32) -> Outcome {
    for _ in 0..10_000 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        if stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('S'))
        {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(crate::check::wrong("the child does not go to sleep"))
}

fn wait_many(_: &Setup) -> Outcome {
    let mut children = Vec::new();
    for _ in 0..8 {
        let mut child = Child::new(|line| {
            let fd = device::open(O_RDONLY)?;
            line.say()?;
            equal(
                "events",
                poll(&fd, POLLPRI, PATIENCE.as_millis() as i32)?,
                POLLPRI,
            )
        })?;
        child.line.hear()?;
        children.push(child);
    }
    for child in &children {
        asleep(child.pid)?;
    }
    pwrite(&device::open(O_WRONLY)?, 0, b"x")?;
    children.into_iter().try_for_each(Child::end)
}

fn others(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let raw = fd.as_raw_fd();
    // SAFETY: No pointers.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? as i32;
    let mut event = libc::epoll_event {
        events: (libc::EPOLLPRI | libc::EPOLLET) as u32,
        u64: 7,
    };
    // SAFETY: The event is valid.
    check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, raw, &raw mut event) })?;
    // SAFETY: Room for one event.
    let events =
        |event: &mut libc::epoll_event| check(unsafe { libc::epoll_wait(epoll, event, 1, 0) });
    equal("epoll before", events(&mut event)?, 0)?;
    for _ in 0..3 {
        pwrite(&fd, 0, b"x")?;
        equal("epoll after a write", events(&mut event)?, 1)?;
        equal("its event", event.events, libc::EPOLLPRI as u32)?;
        equal("epoll, the edge having passed", events(&mut event)?, 0)?;
    }
    let exceptional = || {
        // SAFETY: The set is ours; the descriptor is below FD_SETSIZE.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(raw, &raw mut set);
            let mut now = libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            };
            let null = std::ptr::null_mut();
            check(libc::select(
                raw + 1,
                null,
                null,
                &raw mut set,
                &raw mut now,
            ))
        }
    };
    equal("select after a write", exceptional()?, 1)?;
    device::info(&fd)?;
    equal("select after info", exceptional()?, 0)
}

fn turns(_: &Setup) -> Outcome {
    const ROUNDS: u64 = 50;
    fn play(mine: u64) -> Outcome {
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?;
        loop {
            device::info(&fd)?;
            let turn = map.get(0);
            if turn == ROUNDS {
                return Ok(());
            }
            if turn % 2 == mine {
                pwrite(&fd, 0, &(turn + 1).to_ne_bytes())?;
            } else {
                equal(
                    "events",
                    poll(&fd, POLLPRI, PATIENCE.as_millis() as i32)?,
                    POLLPRI,
                )?;
            }
        }
    }
    pwrite(&device::open(O_WRONLY)?, 0, &0u64.to_ne_bytes())?;
    let child = Child::new(|_| play(1))?;
    play(0)?;
    child.end()?;
    process::in_child(|| play(0))
}
