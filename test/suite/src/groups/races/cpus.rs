// SPDX-License-Identifier: GPL-2.0

//! Processors that come and go.

use super::{Place, rounds, while_looking, with_device};
use crate::check::{Fail, Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::Child;
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, PROT_READ};
use crate::uapi::MODE_VMALLOC;
use std::fs;

tests! {
    "faults while a CPU is unplugged and plugged": looked_at,
    "no count is lost while a CPU is unplugged and plugged": counted,
}

/// CPU 1, which is on again when dropped.
struct Cpu;

impl Cpu {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

    fn new() -> Outcome<Self> {
        if !fs::exists(Self::ONLINE)? {
            return Err(Fail::Skip(
                "there is no CPU that can be unplugged".to_owned(),
            ));
        }
        Ok(Self)
    }

    fn set(&self, on: bool) -> Outcome {
        Ok(fs::write(Self::ONLINE, if on { "1" } else { "0" })?)
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        let _ = self.set(true);
    }
}

fn looked_at(setup: &Setup) -> Outcome {
    let cpu = Cpu::new()?;
    with_device(setup, |fd| {
        for flags in [MAP_SHARED, MAP_PRIVATE] {
            let place = Place::new(setup, 0, flags)?;
            place.map_all(fd)?;
            while_looking(setup, &[place], 3, |random| {
                for on in [false, true] {
                    cpu.set(on)?;
                    for _ in 0..20 {
                        let (offset, len) = random.piece(setup.pages());
                        place.whole().advise(offset, len, libc::MADV_DONTNEED)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// What one of those does who are counted: opens, maps, faults, reads and writes.
fn busy(setup: &Setup, scratch: i64) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    map.touch();
    sys::pread(&fd, 0, PAGE)?;
    equal("written", sys::pwrite(&fd, scratch, b"written.")?, 8)
}

fn counted(setup: &Setup) -> Outcome {
    const WORKERS: usize = 3;
    let cpu = Cpu::new()?;
    with_device(setup, |fd| {
        let each = rounds(40);
        let before = device::stats(fd)?;
        let workers: Vec<Child> = (0..WORKERS)
            .map(|_| {
                Child::new(|_| (0..each).try_for_each(|_| busy(setup, super::SCRATCH.start as i64)))
            })
            .collect::<Outcome<_>>()?;
        let mut last = before;
        for round in 0..rounds(3) * 2 {
            cpu.set(round % 2 == 1)?;
            // What has been counted on a CPU that is gone is not gone.
            let now = device::stats(fd)?;
            ensure(
                format!("counters go back: {last:?}, then {now:?}"),
                now.faults >= last.faults
                    && now.pages_installed >= last.pages_installed
                    && now.read_bytes >= last.read_bytes
                    && now.written_bytes >= last.written_bytes,
            )?;
            last = now;
        }
        workers.into_iter().try_for_each(Child::end)?;
        let after = device::stats(fd)?;
        let times = (WORKERS * each) as u64;
        equal(
            "bytes read",
            after.read_bytes - before.read_bytes,
            times * PAGE as u64,
        )?;
        equal(
            "bytes written",
            after.written_bytes - before.written_bytes,
            times * 8,
        )?;
        let info = device::info(fd)?;
        equal("writes", info.generation, times)?;
        if info.mode == MODE_VMALLOC {
            equal(
                "pages installed",
                after.pages_installed - before.pages_installed,
                times * setup.pages() as u64,
            )?;
        }
        Ok(())
    })
}
