// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading while others use what is there.

use crate::check::{Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::module::{self, Loaded};
use crate::process::{Child, Line};
use crate::sys::{MAP_SHARED, Map, O_RDWR, RW};
use std::fs;
use std::hint::black_box;
use std::io::ErrorKind;

tests! {
    "open, mmap, ioctl, sysfs, debugfs and rmmod at once do no harm": against_unload,
}

/// Does `body` again and again until the other end of the line is closed.
fn until_told(line: &Line, mut body: impl FnMut(usize) -> Outcome) -> Outcome {
    let mut round = 0;
    while !line.closed()? {
        body(round)?;
        round += 1;
    }
    Ok(())
}

/// Uses all there is of device 0, which may go at any time.
fn use_what_is_there(setup: &Setup) -> Outcome {
    for path in [
        "/sys/class/mapdrv/mapdrv0/faults",
        "/sys/kernel/debug/mapdrv/mapdrv0/stats",
        "/sys/kernel/debug/mapdrv/mapdrv0/trace",
    ] {
        let _ = black_box(fs::read(path));
    }
    let fd = match device::open(O_RDWR) {
        Ok(fd) => fd,
        // Not there; there and not registered yet; being unloaded.
        Err(error) => {
            let errno = error.raw_os_error();
            let known = [libc::ENOENT, libc::ENXIO, libc::ENODEV].map(Some);
            return ensure(format!("open: {error}"), known.contains(&errno));
        }
    };
    // Open, it stays.
    equal("size", device::info(&fd)?.size, setup.size)?;
    device::walk(&fd, 0)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    drop(fd);
    map.put(8, 8);
    map.touch();
    Ok(())
}

fn against_unload(setup: &Setup) -> Outcome {
    const ROUNDS: usize = 15;
    let users: Vec<Child> = (0..3)
        .map(|_| Child::new(|line| until_told(line, |_| use_what_is_there(setup))))
        .collect::<Outcome<_>>()?;
    let mut unloaded = 0;
    for _ in 0..ROUNDS {
        let loaded = Loaded::new(&setup.params)?;
        while let Err(error) = module::remove(module::NAME) {
            let refused = error.kind() == ErrorKind::WouldBlock;
            ensure(format!("rmmod: {error}"), refused)?;
            std::thread::yield_now();
        }
        std::mem::forget(loaded);
        unloaded += 1;
    }
    users.into_iter().try_for_each(Child::tell)?;
    equal("times unloaded", unloaded, ROUNDS)?;
    equal("traces", module::traces()?, vec![])
}
