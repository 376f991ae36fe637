// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading while others use what is there.

use super::kill::kill;
use super::{Random, loads};
use crate::check::{Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::module::{self, Loaded};
use crate::pattern::PAGE;
use crate::process::{Child, Line};
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, RW};
use std::fs;
use std::hint::black_box;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};

tests! {
    "rmmod against open and close": |setup| against_unload(setup, |_| opened(|_| Ok(()))),
    "rmmod against mmap and munmap": |setup| against_unload(setup, mmap),
    "rmmod against the first touch of a mapping without a file": |setup| against_unload(setup, touch),
    "rmmod against ioctl": |setup| against_unload(setup, ioctl),
    "rmmod against read, write and seek": |setup| against_unload(setup, read_write),
    "rmmod against poll and epoll": |setup| against_unload(setup, poll),
    "rmmod against reading and writing debugfs": |setup| against_unload(setup, debugfs),
    "rmmod against reading sysfs": |setup| against_unload(setup, sysfs),
    "rmmod against all of that at once": |setup| against_unload(setup, all),
    "kill -9 in finit_module": finit_module,
    "kill -9 in delete_module": delete_module,
}

/// Does `body` again and again until the other end of the line is closed.
fn until_told(line: &Line, mut body: impl FnMut() -> Outcome) -> Outcome {
    let mut random = Random::new();
    while !line.closed()? {
        body()?;
        // So that the driver is unused at times.
        random.pause(1000);
    }
    Ok(())
}

/// Has two children use the driver, which comes and goes.
fn against_unload(setup: &Setup, use_it: impl Fn(&Setup) -> Outcome) -> Outcome {
    const ROUNDS: usize = 6;
    let users: Vec<Child> = (0..2)
        .map(|_| Child::new(|line| until_told(line, || use_it(setup))))
        .collect::<Outcome<_>>()?;
    for _ in 0..loads(ROUNDS) {
        let loaded = Loaded::new(&setup.params)?;
        while let Err(error) = module::remove(module::NAME) {
            let refused = error.kind() == ErrorKind::WouldBlock;
            ensure(format!("rmmod: {error}"), refused)?;
            std::thread::yield_now();
        }
        std::mem::forget(loaded);
    }
    users.into_iter().try_for_each(Child::tell)?;
    equal("traces", module::traces()?, vec![])
}

/// Does `body` with device 0, if it is there.
fn opened(body: impl FnOnce(OwnedFd) -> Outcome) -> Outcome {
    match device::open(O_RDWR) {
        // Open, it stays.
        Ok(fd) => body(fd),
        // Not there; there and not registered yet; being unloaded.
        Err(error) => {
            let known = [libc::ENOENT, libc::ENXIO, libc::ENODEV].map(Some);
            ensure(
                format!("open: {error}"),
                known.contains(&error.raw_os_error()),
            )
        }
    }
}

fn mmap(setup: &Setup) -> Outcome {
    opened(|fd| {
        Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
        Ok(())
    })
}

fn touch(setup: &Setup) -> Outcome {
    opened(|fd| {
        let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
        drop(fd);
        let last = setup.pages() - 1;
        let expected = setup.pattern(0).page(last as u64);
        equal("page", map.bytes(last * PAGE, PAGE), expected.to_vec())?;
        map.touch();
        Ok(())
    })
}

fn ioctl(setup: &Setup) -> Outcome {
    opened(|fd| {
        equal("size", device::info(&fd)?.size, setup.size)?;
        equal("levels", device::walk(&fd, 0)?.nr_levels > 2, true)?;
        ensure("no file is open", device::stats(&fd)?.open_files > 0)
    })
}

fn read_write(setup: &Setup) -> Outcome {
    opened(|fd| {
        let bytes = setup.pattern(0).page(0);
        equal("read", sys::pread(&fd, 0, PAGE)?, bytes.to_vec())?;
        equal("written", sys::pwrite(&fd, 0, &bytes)?, PAGE)?;
        equal(
            "end",
            sys::lseek(&fd, 0, libc::SEEK_END)?,
            setup.size as i64,
        )
    })
}

fn poll(_: &Setup) -> Outcome {
    opened(|fd| {
        let mut wanted = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: There is one of them.
        sys::check(unsafe { libc::poll(&raw mut wanted, 1, 1) })?;
        // What waits here is forgotten with the file.
        // SAFETY: No pointers.
        let epoll = sys::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })? as i32;
        let mut event = libc::epoll_event {
            events: libc::EPOLLPRI as u32,
            u64: 0,
        };
        let add = libc::EPOLL_CTL_ADD;
        // SAFETY: The event is valid for the call; the new descriptor is nobody else's.
        unsafe {
            sys::check(libc::epoll_ctl(epoll, add, fd.as_raw_fd(), &raw mut event))?;
            drop(fd);
            sys::check(libc::close(epoll))?;
        }
        Ok(())
    })
}

fn debugfs(_: &Setup) -> Outcome {
    const TOP: &str = "/sys/kernel/debug/mapdrv/mapdrv0";
    let _ = black_box(fs::read(format!("{TOP}/stats")));
    let _ = black_box(fs::read(format!("{TOP}/trace")));
    // Not created if it is missing.
    if let Ok(mut file) = fs::OpenOptions::new()
        .write(true)
        .open(format!("{TOP}/trace"))
    {
        file.write_all(b"0")?;
    }
    Ok(())
}

fn sysfs(_: &Setup) -> Outcome {
    for name in ["size", "faults", "dev", "uevent"] {
        let Ok(file) = sys::open(&format!("/sys/class/mapdrv/mapdrv0/{name}"), O_RDONLY) else {
            continue;
        };
        for _ in 0..3 {
            // An open file does not keep the device.
            if let Err(error) = sys::pread(&file, 0, PAGE) {
                equal("error", error.raw_os_error(), Some(libc::ENODEV))?;
            }
        }
    }
    Ok(())
}

fn all(setup: &Setup) -> Outcome {
    [mmap, touch, ioctl, read_write, poll, debugfs, sysfs]
        .into_iter()
        .try_for_each(|use_it| use_it(setup))
}

/// Loads and unloads until it is killed, in one or the other.
fn in_module(setup: &Setup, body: impl Fn() -> Outcome) -> Outcome {
    kill(loads(10), body, || {
        module::clear()?;
        equal("traces", module::traces()?, vec![])
    })?;
    // It is as good as new.
    let loaded = Loaded::new(&setup.params)?;
    touch(setup)?;
    Ok(loaded.unload()?)
}

fn finit_module(setup: &Setup) -> Outcome {
    // Most of the time is spent in filling the buffer.
    let params = format!("{} size=16777216", setup.params);
    in_module(setup, || {
        module::insert(module::NAME, &params)?;
        Ok(module::remove(module::NAME)?)
    })
}

fn delete_module(setup: &Setup) -> Outcome {
    // Most of the time is spent in removing devices.
    let params = format!("{} size=4096 fill=0 devices=64", setup.params);
    in_module(setup, || {
        module::insert(module::NAME, &params)?;
        Ok(module::remove(module::NAME)?)
    })
}
