// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading again and again.

use crate::check::{Outcome, ensure, equal};
use crate::device::{self, Setup};
use crate::module::{self, Loaded};
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, RW};
use std::collections::HashMap;
use std::fs;

tests! {
    "loaded, used and unloaded a hundred times, it leaves no memory behind": reload,
}

const ROUNDS: usize = 120;
/// The first rounds fill caches of the kernel's own.
const WARM_UP: usize = 20;

/// What the kernel says of its memory.
struct Memory {
    kib: HashMap<String, i64>,
    objects: HashMap<String, i64>,
}

impl Memory {
    fn now() -> Outcome<Self> {
        // What can be freed is: caches of names and nodes would hide a leak.
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        for cache in fs::read_dir("/sys/kernel/slab")? {
            fs::write(cache?.path().join("shrink"), "1")?;
        }
        let fields = |path: &str, skip: usize, at: usize| -> Outcome<HashMap<String, i64>> {
            let text = fs::read_to_string(path)?;
            let lines = text.lines().skip(skip).filter_map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next()?.trim_end_matches(':').to_owned();
                Some((name, words.nth(at)?.parse().ok()?))
            });
            Ok(lines.collect())
        };
        Ok(Self {
            kib: fields("/proc/meminfo", 0, 0)?,
            objects: fields("/proc/slabinfo", 2, 0)?,
        })
    }
}

/// Uses what the driver has.
fn use_devices(setup: &Setup) -> Outcome {
    for minor in 0..setup.devices {
        let fd = sys::open(&device::path(minor), O_RDWR)?;
        let shared = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
        let private = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
        shared.touch();
        private.put(0, 1);
        shared.put(0, 2);
        sys::pwrite(&fd, 8, b"written")?;
        sys::pread(&fd, 0, 4096)?;
        device::info(&fd)?;
        device::walk(&fd, 0)?;
        device::stats(&fd)?;
    }
    Ok(())
}

fn reload(setup: &Setup) -> Outcome {
    let setup = Setup::new(&format!("devices=4 size=262144 {}", setup.params));
    let mut before = None;
    for round in 0..ROUNDS {
        if round == WARM_UP {
            before = Some(Memory::now()?);
        }
        let loaded = Loaded::new(&setup.params)?;
        use_devices(&setup)?;
        loaded.unload()?;
        equal("traces", module::traces()?, vec![])?;
    }
    let (before, after) = (before.expect("taken"), Memory::now()?);
    let rounds = (ROUNDS - WARM_UP) as i64;

    let mut more = String::new();
    let mut limit = |name: &str, grown: i64, limit: i64| {
        if grown > limit {
            more += &format!("{name}: {grown}, where up to {limit} is usual\n");
        }
    };
    // In KiB. One of the buffers lost in each round is 25600.
    limit(
        "memory used",
        before.kib["MemAvailable"] - after.kib["MemAvailable"],
        128 * rounds,
    );
    for name in ["VmallocUsed", "Slab", "PageTables", "AnonPages"] {
        limit(name, after.kib[name] - before.kib[name], 2 * rounds);
    }
    limit("Percpu", after.kib["Percpu"] - before.kib["Percpu"], 16);
    // An object lost in each round is `rounds` of them. Up to 60 are kept by each CPU.
    for (name, objects) in &after.objects {
        limit(
            name,
            objects - before.objects.get(name).copied().unwrap_or(0),
            rounds - 10,
        );
    }
    ensure(
        format!("more after {rounds} rounds:\n{more}"),
        more.is_empty(),
    )
}
