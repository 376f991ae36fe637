// SPDX-License-Identifier: GPL-2.0

//! Tables of what was measured: ratios first, then the figures themselves.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use mapdrv::bench::{Costs, HUGE, RANDOM};

use crate::chart;
use crate::record::{Line, Machine, Record};

/// The size that modes are compared at, in MiB.
pub const MIB: usize = 256;
/// What the others are compared with.
const BASE: &str = "memfd";

/// All that was measured.
#[derive(serde::Serialize)]
pub struct Results {
    pub machine: Machine,
    pub records: Vec<Record>,
}

impl Results {
    fn read(input: &Path) -> Result<Self> {
        let text = fs::read_to_string(input).with_context(|| input.display().to_string())?;
        let mut results = Self {
            machine: Machine::default(),
            records: Vec::new(),
        };
        for line in text.lines().filter(|line| line.starts_with('{')) {
            match serde_json::from_str(line).with_context(|| line.to_owned())? {
                Line::Machine(machine) => results.machine = machine,
                Line::Record(record) => results.records.push(record),
            }
        }
        Ok(results)
    }

    /// The first measurement of each kind of memory at `mib` MiB.
    pub fn at(&self, mib: usize) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(move |record| record.mib == mib && record.round == 0)
    }

    fn find(&self, peer: &str, mib: usize, round: u32) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| (record.peer.as_str(), record.mib, record.round) == (peer, mib, round))
    }

    /// The sizes, in MiB.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> = self.records.iter().map(|record| record.mib).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Prints the tables, and writes the other forms.
pub fn run(input: &Path, json: Option<&Path>, svg: Option<&Path>) -> Result<()> {
    let results = Results::read(input)?;
    println!(
        "Kernel {}, {}; one CPU, its clock counting instructions.\n",
        results.machine.kernel, results.machine.cpu
    );
    ratios(&results);
    figures(&results);
    sizes(&results);
    reads(&results);
    repeatable(&results);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&results)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = svg {
        chart::draw(&results, path)?;
    }
    Ok(())
}

/// What a step is called, its cost, and how many times it is in that.
fn steps(record: &Record) -> [(&'static str, f64); 9] {
    let Costs {
        map,
        first,
        second,
        unmap,
        random,
        sparse,
        write,
        fork,
    } = record.costs;
    let huge = (record.mib << 20).div_ceil(HUGE) as f64;
    [
        ("total/pg", record.per_page(record.costs.total())),
        ("mmap", map as f64),
        ("touch/pg", record.per_page(first)),
        ("again/pg", record.per_page(second)),
        ("munmap/pg", record.per_page(unmap)),
        ("write/pg", record.per_page(write)),
        ("random", random as f64 / RANDOM as f64),
        ("per 2 MiB", sparse as f64 / huge),
        ("fork", fork as f64),
    ]
}

fn heading(record: Option<&Record>) {
    print!("{:<29}", "");
    for (name, _) in record.map(steps).into_iter().flatten() {
        print!(" {name:>10}");
    }
    println!();
}

fn ratios(results: &Results) {
    let Some(base) = results.find(BASE, MIB, 0) else {
        return;
    };
    println!("{MIB} MiB, as multiples of {BASE}:");
    heading(Some(base));
    for record in results.at(MIB) {
        print!("{:<29}", record.peer);
        for ((_, cost), (_, base)) in steps(record).into_iter().zip(steps(base)) {
            match cost / base {
                _ if cost == 0.0 => print!(" {:>10}", "-"),
                ratio => print!(" {:>10}", short(ratio)),
            }
        }
        println!();
    }
}

fn figures(results: &Results) {
    println!("\n{MIB} MiB, instructions:");
    heading(results.at(MIB).next());
    for record in results.at(MIB) {
        print!("{:<29}", record.peer);
        for (_, cost) in steps(record) {
            match cost {
                0.0 => print!(" {:>10}", "-"),
                cost => print!(" {:>10}", short(cost)),
            }
        }
        println!();
    }
}

fn sizes(results: &Results) {
    println!("\nInstructions per page for mmap, touch and munmap, by size in MiB:");
    print!("{:<29}", "");
    for mib in results.sizes() {
        print!(" {mib:>10}");
    }
    println!();
    for record in results.at(MIB) {
        print!("{:<29}", record.peer);
        for mib in results.sizes() {
            match results.find(&record.peer, mib, 0) {
                Some(record) => print!(" {:>10}", short(record.per_page(record.costs.total()))),
                None => print!(" {:>10}", "-"),
            }
        }
        println!();
    }
}

fn reads(results: &Results) {
    println!("\nInstructions per page for pread, by size of block in KiB:");
    for record in results.at(MIB).filter(|record| !record.read.is_empty()) {
        print!("{:<29}", record.peer);
        for &(block, cost) in &record.read {
            print!(" {:>4}: {:>7}", block >> 10, short(record.per_page(cost)));
        }
        println!();
    }
}

/// Says how much two measurements of the same thing differ.
fn repeatable(results: &Results) {
    println!();
    for (whose, ours) in [("ours", true), ("the others", false)] {
        let mut differences: Vec<_> = results
            .records
            .iter()
            .filter(|record| record.round > 0 && record.ours == ours)
            .filter_map(|record| {
                let first = results.find(&record.peer, record.mib, 0)?;
                let ratio = record.costs.total() as f64 / first.costs.total() as f64;
                Some(((ratio - 1.0).abs() * 100.0, &record.peer, record.mib))
            })
            .collect();
        differences.sort_by(|a, b| a.0.total_cmp(&b.0));
        let median = differences.get(differences.len() / 2);
        if let (Some((median, ..)), Some((most, peer, mib))) = (median, differences.last()) {
            println!(
                "Measured again, {} totals of {whose} differ by {median:.2} % in the median, by \
                 {most:.2} % at most ({peer}, {mib} MiB).",
                differences.len()
            );
        }
    }
}

/// A number with as many digits as matter.
pub fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n if n >= 0.1 => format!("{n:.2}"),
        n => format!("{n:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (29_000_000.0, "29.0 M"),
            (12_345.0, "12.3 k"),
            (884.7, "885"),
            (12.34, "12.3"),
            (7.9, "7.90"),
            (0.0068, "0.0068"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
