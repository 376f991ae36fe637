// SPDX-License-Identifier: GPL-2.0

//! Faults for which there is no memory, until the kernel kills who faults.

use super::{LOOK, SCRATCH, rounds, with_device, word};
use crate::check::{Fail, Outcome, equal, wrong};
use crate::device::Setup;
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, PROT_READ, RW};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

tests! {
    "fault that copies a page against the OOM killer of a control group": copy,
    "fault that needs a page table against the OOM killer of a control group": table,
    "fault against the OOM killer of the whole machine": machine,
}

/// A control group whose processes have little memory; gone when dropped.
struct Group(&'static str);

impl Group {
    fn new(limit: usize) -> Outcome<Self> {
        const TOP: &str = "/tmp/cgroup";
        fs::create_dir_all(TOP)?;
        if !fs::exists(format!("{TOP}/cgroup.procs"))? {
            let kind = c"cgroup2".as_ptr();
            // SAFETY: All strings end as they should.
            let result =
                unsafe { libc::mount(kind, c"/tmp/cgroup".as_ptr(), kind, 0, std::ptr::null()) };
            if sys::check(result).is_err() {
                return Err(Fail::Skip("this kernel has no cgroup2".to_owned()));
            }
        }
        fs::write(format!("{TOP}/cgroup.subtree_control"), "+memory")?;
        let group = Self("/tmp/cgroup/few");
        fs::create_dir(group.0)?;
        fs::write(format!("{}/memory.max", group.0), limit.to_string())?;
        // There need be no swap.
        let _ = fs::write(format!("{}/memory.swap.max", group.0), "0");
        Ok(group)
    }

    /// Has the calling process be in it.
    fn join(&self) -> Outcome {
        Ok(fs::write(format!("{}/cgroup.procs", self.0), "0")?)
    }

    /// How many of its processes were killed for want of memory.
    fn kills(&self) -> Outcome<usize> {
        let events = fs::read_to_string(format!("{}/memory.events", self.0))?;
        let count = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.parse().ok())
            .ok_or(wrong(events))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0);
    }
}

/// Runs children in a group with `limit` bytes of memory. Each does `body`, which takes more than
/// that, and is killed.
fn killed_by_oom(setup: &Setup, limit: usize, body: impl Fn(&OwnedFd) -> Outcome) -> Outcome {
    const ROUNDS: usize = 5;
    with_device(setup, |fd| {
        let group = Group::new(limit)?;
        for round in 0..rounds(ROUNDS) {
            let signal = process::signal_in(|| {
                let _ = group.join().and_then(|()| body(fd));
            })?;
            equal("signal that ended a child", signal, Some(libc::SIGKILL))?;
            equal("children killed by OOM", group.kills()?, round + 1)?;
        }
        Ok(())
    })
}

fn copy(setup: &Setup) -> Outcome {
    killed_by_oom(setup, 2 * setup.span(), |fd| {
        let flags = [MAP_PRIVATE, MAP_SHARED];
        loop {
            for flags in flags {
                let map = Map::new(fd, 0, setup.span(), RW, flags)?;
                for page in 0..setup.pages() {
                    map.put(page * PAGE + SCRATCH.start, 1);
                }
                std::mem::forget(map);
            }
        }
    })
}

fn table(setup: &Setup) -> Outcome {
    const TABLE: usize = 2 << 20;
    killed_by_oom(setup, 4 << 20, |fd| {
        // A page in each of many tables.
        for number in 0..1 << 16 {
            let at = (1 << 40) + number * TABLE;
            let flags = MAP_SHARED | libc::MAP_FIXED;
            let map = Map::at(at, fd.as_raw_fd(), 0, PAGE, PROT_READ, flags)?;
            equal("word", map.get(LOOK), word(setup, 0))?;
            std::mem::forget(map);
        }
        Ok(())
    })
}

fn machine(setup: &Setup) -> Outcome {
    with_device(setup, |fd| {
        for _ in 0..rounds(1) {
            let signal = process::signal_in(|| {
                // Nobody else is to be chosen.
                let _ = fs::write("/proc/self/oom_score_adj", "1000");
                // Nothing is given back, or it would go on for ever.
                thread::scope(|scope| {
                    scope.spawn(|| {
                        while let Ok(map) = Map::new(fd, 0, setup.span(), RW, MAP_PRIVATE) {
                            for page in 0..map.pages() {
                                map.put(page * PAGE + SCRATCH.start, 1);
                            }
                            std::mem::forget(map);
                        }
                    });
                    scope.spawn(|| {
                        while let Ok(map) = Map::new(fd, 0, setup.span(), RW, MAP_SHARED) {
                            map.touch();
                        }
                    });
                    while let Ok(more) = Map::anonymous(64 << 20, RW) {
                        for page in 0..more.pages() {
                            more.put(page * PAGE, 1);
                        }
                        std::mem::forget(more);
                    }
                });
            })?;
            equal("signal that ended the child", signal, Some(libc::SIGKILL))?;
        }
        Ok(())
    })
}
