// SPDX-License-Identifier: GPL-2.0

//! `mapdrv bench`

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use mapdrv::bench::{Costs, HUGE, Memory, RANDOM};
use mapdrv::{Device, Error};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::param::page_size;
use serde::Serialize;

use crate::cli::Bench;
use crate::failure::Failure;
use crate::output::{HEAD, OfDevice, Output, size};

/// Bytes that pread(2) is asked for at a time.
const BLOCKS: [usize; 2] = [4 << 10, 1 << 20];
/// Threads that touch pages at once.
const THREADS: [usize; 3] = [1, 2, 4];

/// Bytes that are mapped by default, at most: a memfd of that size is made as well.
const LEN: u64 = 64 << 20;

/// A step: its name, what its figure is for, how many of these there are, and its cost.
type Step = (&'static str, &'static str, usize, fn(&Costs) -> u64);

/// What something has cost, of all the times it was done.
#[derive(Debug, Serialize)]
struct Cost {
    memory: &'static str,
    step: String,
    per: &'static str,
    /// In nanoseconds.
    median: f64,
    min: f64,
    max: f64,
}

pub fn run(args: &Bench, out: &mut Output) -> Result<ExitCode, Failure> {
    let (device, writable) = match Device::open_rw(&args.device.path) {
        Err(Error::System { source, .. })
            if matches!(
                Errno::from_io_error(&source),
                Some(Errno::ACCESS | Errno::PERM)
            ) =>
        {
            (Device::open(&args.device.path)?, false)
        }
        device => (device?, true),
    };
    let len = args.len.unwrap_or(LEN).min(device.info()?.size) as usize;
    let len = len / page_size() * page_size();
    if len == 0 {
        let what = "there is no whole page to measure";
        return Err(Failure::Usage(format!(
            "{}: {what}",
            device.path().display()
        )));
    }
    let failed = |path: PathBuf| move |source| Failure::File { path, source };
    let memfd = memfd(len).map_err(failed("memfd".into()))?;
    let peers = [
        ("mapdrv", device.memory(writable)),
        ("memfd", Memory::of_file(&memfd)),
        ("anonymous", Memory::anonymous(None)),
    ];

    if !out.json {
        let times = args.times;
        writeln!(
            out,
            "{}, each step {times} times, in nanoseconds",
            size(len as u64)
        )?;
        heading(out)?;
    }
    for (name, memory) in peers {
        let costs = measure(name, &memory, len, args.times.get());
        for cost in costs.map_err(failed(name.into()))? {
            if out.json {
                out.object(&OfDevice {
                    device: device.path(),
                    value: cost,
                })?;
            } else {
                render(&cost, out)?;
            }
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A file in memory, all of it there.
fn memfd(len: usize) -> io::Result<File> {
    let file = File::from(memfd_create("mapdrv bench", MemfdFlags::CLOEXEC)?);
    file.set_len(len as u64)?;
    Memory::of_file(&file).populate(len)?;
    Ok(file)
}

/// Does everything as many times as asked for.
fn measure(
    name: &'static str,
    memory: &Memory<'_>,
    len: usize,
    times: usize,
) -> io::Result<Vec<Cost>> {
    let pages = len / page_size();
    let cost = |step: String, per, count: usize, mut all: Vec<u64>| {
        all.sort_unstable();
        let each = |index: usize| all[index] as f64 / count as f64;
        (all.last() != Some(&0)).then(|| Cost {
            memory: name,
            step,
            per,
            median: each(all.len() / 2),
            min: each(0),
            max: each(all.len() - 1),
        })
    };

    let all = (0..times)
        .map(|_| memory.costs(len))
        .collect::<io::Result<Vec<_>>>()?;
    let steps: [Step; 8] = [
        ("mmap", "call", 1, |costs| costs.map),
        ("first touch", "page", pages, |costs| costs.first),
        ("second touch", "page", pages, |costs| costs.second),
        ("first write", "page", pages, |costs| costs.write),
        ("munmap", "page", pages, |costs| costs.unmap),
        ("random touch", "touch", RANDOM, |costs| costs.random),
        ("touch per 2 MiB", "touch", len.div_ceil(HUGE), |costs| {
            costs.sparse
        }),
        ("fork and wait", "call", 1, |costs| costs.fork),
    ];
    let mut costs: Vec<_> = steps
        .into_iter()
        .filter_map(|(step, per, count, of)| {
            cost(step.into(), per, count, all.iter().map(of).collect())
        })
        .collect();

    for block in BLOCKS
        .into_iter()
        .filter(|block| memory.file.is_some() && len % block == 0)
    {
        let all = (0..times)
            .map(|_| memory.read(len, block))
            .collect::<io::Result<_>>()?;
        costs.extend(cost(
            format!("pread of {}", size(block as u64)),
            "page",
            pages,
            all,
        ));
    }
    for threads in THREADS {
        let mut all = Vec::new();
        for _ in 0..times {
            all.extend(memory.concurrent(len, threads, false)?);
        }
        let step = format!(
            "touch, {threads} thread{}",
            if threads == 1 { "" } else { "s" }
        );
        costs.extend(cost(step, "page", pages, all));
    }
    Ok(costs)
}

fn heading(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{HEAD}{:<10} {:<18} {:<5} {:>12} {:>12} {:>12}{HEAD:#}",
        "MEMORY", "STEP", "PER", "MEDIAN", "MIN", "MAX"
    )
}

fn render(cost: &Cost, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<10} {:<18} {:<5} {:>12.1} {:>12.1} {:>12.1}",
        cost.memory, cost.step, cost.per, cost.median, cost.min, cost.max
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::output::{assert_documented, printed};

    fn cost() -> Cost {
        Cost {
            memory: "mapdrv",
            step: "first touch".into(),
            per: "page",
            median: 62.5,
            min: 61.25,
            max: 80.0,
        }
    }

    #[test]
    fn table() {
        let text = printed(|out| {
            heading(out)?;
            render(&cost(), out)
        });
        expect![[r#"
            MEMORY     STEP               PER         MEDIAN          MIN          MAX
            mapdrv     first touch        page          62.5         61.2         80.0
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn json() {
        assert_documented(&cost());
    }

    #[test]
    fn everything_is_measured() {
        let memfd = memfd(HUGE).unwrap();
        for (memory, steps) in [(Memory::of_file(&memfd), 13), (Memory::anonymous(None), 11)] {
            let costs = measure("test", &memory, HUGE, 3).unwrap();
            assert_eq!(costs.len(), steps);
            for cost in costs {
                assert!(0.0 < cost.min && cost.min <= cost.median && cost.median <= cost.max);
            }
        }
    }
}
