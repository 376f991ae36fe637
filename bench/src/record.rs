// SPDX-License-Identifier: GPL-2.0

//! What is measured, as lines of JSON.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mapdrv::bench::Costs;
use serde::{Deserialize, Serialize};

use crate::peers::{PEERS, Peer};

/// Blocks that files are read in.
const BLOCKS: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The first one.
    Machine(Machine),
    /// All others.
    Record(Record),
}

/// Where this was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
}

/// One kind of memory of one size, measured once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub peer: String,
    pub ours: bool,
    pub mib: usize,
    pub round: u32,
    /// In instructions.
    pub costs: Costs,
    /// What reading it all costs, by size of block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<(usize, u64)>,
}

impl Record {
    /// `cost` for each page of 4 KiB.
    pub fn per_page(&self, cost: u64) -> f64 {
        cost as f64 / (self.mib << 8) as f64
    }
}

impl Machine {
    /// The machine this runs on.
    pub fn here() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        Ok(Self {
            kernel: kernel.trim().into(),
            cpu: cpu.trim().into(),
        })
    }
}

/// Measures every kind of memory, of each size in MiB, as often as there are `rounds`.
pub fn run(mib: &[usize], ours: &[usize], rounds: u32, only: &str) -> Result<()> {
    print(&Line::Machine(Machine::here()?))?;
    for round in 0..rounds {
        for peer in PEERS.into_iter().filter(|peer| peer.name.contains(only)) {
            let also = if peer.ours() { ours } else { &[] };
            for &mib in mib.iter().chain(also) {
                match measure(peer, mib, round, true) {
                    Ok(record) => print(&Line::Record(record))?,
                    Err(error) => eprintln!("{}, {mib} MiB: {error:#}", peer.name),
                }
            }
        }
    }
    Ok(())
}

/// Measures one kind of memory: all there is to measure, or only what makes up the total.
pub fn measure(peer: Peer, mib: usize, round: u32, whole: bool) -> Result<Record> {
    let len = mib << 20;
    peer.with(len, |memory| {
        // The kernel still works off what the last one has left; sleeping costs no instructions.
        thread::sleep(Duration::from_secs(2));
        let mut read = Vec::new();
        if whole && peer.readable() && mib == 256 {
            for block in BLOCKS {
                read.push((block, memory.read(len, block)?));
            }
        }
        let costs = if whole && !peer.once() {
            memory.costs(len)
        } else {
            memory.sequential(len)
        };
        Ok(Record {
            peer: peer.name.into(),
            ours: peer.ours(),
            mib,
            round,
            costs: costs.context(peer.name)?,
            read,
        })
    })
}

fn print(line: &Line) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
