// SPDX-License-Identifier: GPL-2.0

//! Where the instructions go: what the plugin counted, by symbol.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use mapdrv::bench::phase;
use rustc_demangle::demangle;

/// The columns of a table: a phase, its name, and how many threads are in it.
type Columns = [(u32, &'static str, u32)];
const STEPS: [(u32, &str, u32); 2] = [(phase::FIRST, "touch", 1), (phase::UNMAP, "munmap", 1)];
const THREADS: [(u32, &str, u32); 5] = [
    (phase::ALONE, "1 thread", 1),
    (phase::TWO, "2, same pages", 2),
    (phase::FOUR, "4, same pages", 4),
    (phase::TWO_APART, "2, apart", 2),
    (phase::FOUR_APART, "4, apart", 4),
];
/// Functions of our module have this behind their name.
const OURS: &str = "[map_driver]";

/// Sum up by symbol what the plugin counted
#[derive(clap::Args)]
pub struct Args {
    /// What the plugin wrote
    counts: PathBuf,
    /// The guest's /proc/kallsyms
    symbols: PathBuf,
    /// Divide all by this, a number of faults
    #[arg(long, default_value = "1")]
    per: f64,
    /// Sum up what is below this in all columns
    #[arg(long, default_value = "0.5")]
    least: f64,
    /// Show faults in several threads, each with as many; only functions with atomic instructions
    #[arg(long)]
    threads: bool,
}

/// A function of the kernel: its instructions in each phase, and how many of these are locked.
#[derive(Clone, Default)]
struct Counts(BTreeMap<u32, (u64, u64)>);

impl Counts {
    fn add(&mut self, other: &Self) {
        for (&phase, (instructions, locked)) in &other.0 {
            let sum = self.0.entry(phase).or_default();
            sum.0 += instructions;
            sum.1 += locked;
        }
    }

    /// The figures of a row.
    fn row(&self, columns: &Columns, per: f64) -> Vec<f64> {
        columns
            .iter()
            .flat_map(|(phase, _, threads)| {
                let (all, locked) = self.0.get(phase).copied().unwrap_or_default();
                [all, locked].map(|count| count as f64 / per / f64::from(*threads))
            })
            .collect()
    }
}

/// Prints a table in Markdown.
pub fn run(args: &Args) -> Result<()> {
    let symbols = fs::read_to_string(&args.symbols).context("the symbols")?;
    let counts = fs::read_to_string(&args.counts).context("the counts")?;
    let columns: &Columns = if args.threads { &THREADS } else { &STEPS };

    let (mut total, mut ours) = (Counts::default(), Counts::default());
    let mut rows = Vec::new();
    for (name, counts) in by_function(&counts, &symbols)? {
        total.add(&counts);
        if name.ends_with(OURS) {
            ours.add(&counts);
        }
        rows.push((format!("`{name}`"), counts.row(columns, args.per)));
    }
    let (mut rows, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(name, row)| {
        // With several threads it is memory that all use which matters.
        let shown = if args.threads { 1 } else { 0 };
        let spins = args.threads && name.contains("slowpath");
        spins
            || row
                .iter()
                .skip(shown)
                .step_by(1 + shown)
                .any(|&figure| figure >= args.least)
    });
    rows.sort_by(|(_, a), (_, b)| b.partial_cmp(a).expect("all are numbers"));
    let rest = rest.into_iter().map(|(_, row)| row);
    let rest = rest.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| a + b).collect());
    rows.extend(rest.map(|rest| ("all others".into(), rest)));
    rows.push(("of all, `map_driver`".into(), ours.row(columns, args.per)));
    rows.push(("all".into(), total.row(columns, args.per)));

    let names: Vec<_> = columns
        .iter()
        .map(|(_, name, _)| format!(" {name} | atomic |"))
        .collect();
    println!("| function |{}", names.concat());
    println!("|---|{}", "--:|--:|".repeat(columns.len()));
    for (name, row) in rows {
        let figures = row.into_iter().map(|figure| match figure {
            ..0.05 => " |".to_owned(),
            _ => format!(" {figure:.1} |"),
        });
        println!("| {name} |{}", figures.collect::<String>());
    }
    Ok(())
}

/// Adds up the plugin's lines.
fn by_function(counts: &str, kallsyms: &str) -> Result<BTreeMap<String, Counts>> {
    let symbols = symbols(kallsyms);
    let mut functions = BTreeMap::<_, Counts>::new();
    for line in counts.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("{line:?} is cut off"));
        let address = u64::from_str_radix(word()?, 16)?;
        let phase: u32 = word()?.parse()?;
        let count: u64 = word()?.parse()?;
        let locked = if word()? == "1" { count } else { 0 };
        let symbol = symbols.range(..=address).next_back();
        let name = symbol.map_or("?", |(_, name)| name);
        let one = Counts([(phase, (count, locked))].into());
        functions.entry(readable(name)).or_default().add(&one);
    }
    Ok(functions)
}

/// The functions in a `/proc/kallsyms`, by address; those of modules with their module.
fn symbols(kallsyms: &str) -> BTreeMap<u64, &str> {
    kallsyms
        .lines()
        .filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            let (kind, name) = rest.split_once(' ')?;
            let address = u64::from_str_radix(address, 16).ok()?;
            matches!(kind, "t" | "T" | "w" | "W").then_some((address, name))
        })
        .collect()
}

/// A name as its author wrote it, as far as possible.
fn readable(name: &str) -> String {
    let (symbol, module) = name.split_once('\t').unwrap_or((name, ""));
    let symbol = format!("{:#}", demangle(symbol));
    format!("{symbol} {module}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_by_function() {
        let kallsyms = "ffff10 t first\nffff20 T second\t[map_driver]\nffff30 d data\n";
        let counts = "ffff10 2 3 0\nffff14 2 3 1\nffff3f 4 7 0\nffff20 1 9 0\n";
        let functions = by_function(counts, kallsyms).unwrap();
        assert_eq!(functions["first"].row(&STEPS, 3.0), [2.0, 1.0, 0.0, 0.0]);
        let second = &functions["second [map_driver]"];
        assert_eq!(second.row(&STEPS, 1.0), [0.0, 0.0, 7.0, 0.0]);
        assert_eq!(functions.len(), 2);
        assert!(by_function("ffff10 2", kallsyms).is_err());
    }
}
