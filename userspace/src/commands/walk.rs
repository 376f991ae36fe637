// SPDX-License-Identifier: GPL-2.0

//! `mapdrv walk`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use mapdrv::{Access, Device, Entry, Level};
use serde::Serialize;

use crate::cli::Walk;
use crate::failure::{FAILED, Failure};
use crate::output::{BAD, DIM, GOOD, HEAD, OfDevice, Output, size};

/// All levels there can be, from the root, by the kernel's names.
const LEVELS: [&str; 5] = ["pgd", "p4d", "pud", "pmd", "pte"];

/// Columns that one of the two drawings takes.
const HALF: usize = 38;

/// Both walks to one byte.
#[derive(Serialize)]
struct Walks {
    offset: u64,
    page: u64,
    kernel: mapdrv::Walk,
    process: ProcessWalk,
    /// Whether they end at the same frame, if the kernel tells.
    agree: Option<bool>,
}

/// The walk of this process's page table: computed from the address and its pagemap, since no
/// process sees its own page table.
#[derive(Serialize)]
struct ProcessWalk {
    address: u64,
    levels: Vec<ProcessLevel>,
    /// Bytes that the last entry maps.
    leaf_size: Option<u64>,
    pfn: Option<u64>,
}

#[derive(Serialize)]
struct ProcessLevel {
    name: &'static str,
    index: u64,
}

pub fn run(args: &Walk, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let mut agree = true;
    for &offset in &args.offsets {
        let walks = walk(&device, offset)?;
        agree &= walks.agree != Some(false);
        if out.json {
            out.object(&OfDevice {
                device: device.path(),
                value: walks,
            })?;
        } else {
            let width = out.width;
            render(device.path(), device.pages(), &walks, width, out)?;
        }
    }
    Ok(if agree {
        ExitCode::SUCCESS
    } else {
        FAILED.into()
    })
}

fn walk(device: &Device, offset: u64) -> mapdrv::Result<Walks> {
    let kernel = device.walk(offset)?;
    let process = ProcessWalk::new(device, offset, &level_names(&kernel))?;
    let pfns = kernel.pfn.zip(process.pfn);
    Ok(Walks {
        offset,
        page: offset / u64::from(device.page_size()),
        agree: pfns.map(|(kernel, process)| kernel == process),
        kernel,
        process,
    })
}

impl ProcessWalk {
    /// The walk to the byte at `offset` in a mapping, which touches it, through `levels`.
    fn new(device: &Device, offset: u64, levels: &[&'static str]) -> mapdrv::Result<Self> {
        let page_size = u64::from(device.page_size());
        let page = offset / page_size;
        // All of it, not just the page, so that a huge entry can map it.
        let mapping = device.map_all(Access::Read)?;
        mapping.word(page * page_size)?;
        let address = mapping.address() as u64 + offset;
        let extents = mapping.present()?;
        let extent = extents
            .iter()
            .find(|extent| (extent.first_page..extent.first_page + extent.pages).contains(&page));

        // A table is a page of entries of eight bytes.
        let bits = (page_size / 8).ilog2();
        let shift = |height: usize| page_size.ilog2() + bits * height as u32;
        let leaf = usize::from(extent.is_some_and(|extent| extent.huge));
        let heights = (leaf..levels.len()).rev();
        Ok(Self {
            address,
            levels: levels
                .iter()
                .zip(heights)
                .map(|(name, height)| ProcessLevel {
                    name,
                    index: (address >> shift(height)) % (1 << bits),
                })
                .collect(),
            leaf_size: extent.map(|_| 1 << shift(leaf)),
            pfn: mapping.pfn(page)?,
        })
    }
}

/// The levels that this machine's page tables have: those that the kernel's walk passed, and all
/// that come after.
fn level_names(walk: &mapdrv::Walk) -> Vec<&'static str> {
    let passed = |name: &str| walk.levels.iter().any(|level| level.name == name);
    let last = LEVELS.iter().rposition(|name| passed(name));
    let levels = LEVELS.into_iter().enumerate();
    levels
        .filter(|&(i, name)| Some(i) > last || passed(name))
        .map(|(_, name)| name)
        .collect()
}

fn render(
    device: &Path,
    pages: u64,
    walks: &Walks,
    width: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "{HEAD}{}, byte {:#x}, in page {} of {pages}{HEAD:#}",
        device.display(),
        walks.offset,
        walks.page
    )?;
    let Walks {
        kernel, process, ..
    } = walks;
    let title = format!("this process's, at {:#x}", process.address);
    let process = draw(title, &process_steps(process), process.pfn);
    let kernel = draw(
        "the kernel's walk".into(),
        &kernel_steps(kernel),
        kernel.pfn,
    );

    if width >= 2 * HALF {
        let rows = kernel.len().max(process.len());
        let line = |drawing: &[String], row: usize| drawing.get(row).cloned().unwrap_or_default();
        for row in 0..rows {
            let (left, right) = (line(&kernel, row), line(&process, row));
            writeln!(out, "{}", format!("{left:<HALF$}{right}").trim_end())?;
        }
    } else {
        for line in kernel.iter().chain(&process) {
            writeln!(out, "{line}")?;
        }
    }
    match walks.agree {
        Some(true) => writeln!(out, "{GOOD}both end at the same page of memory{GOOD:#}"),
        Some(false) => writeln!(out, "{BAD}they end at different pages of memory{BAD:#}"),
        None => writeln!(
            out,
            "{DIM}frame numbers and the kernel's indices are for root only{DIM:#}"
        ),
    }
}

/// One level of a drawing.
struct Step {
    name: String,
    index: Option<u64>,
    /// What the walk ends at here, if it does.
    end: Option<String>,
}

/// What a walk ends at.
fn end(leaf_size: Option<u64>) -> String {
    leaf_size.map_or("hole".into(), |bytes| format!("leaf of {}", size(bytes)))
}

fn kernel_steps(walk: &mapdrv::Walk) -> Vec<Step> {
    let step = |level: &Level| Step {
        name: level.name.clone(),
        index: level.index.map(u64::from),
        end: (level.entry.contains(Entry::LEAF) || !level.entry.contains(Entry::PRESENT))
            .then(|| end(walk.leaf_size)),
    };
    walk.levels.iter().map(step).collect()
}

fn process_steps(walk: &ProcessWalk) -> Vec<Step> {
    let step = |level: &ProcessLevel| Step {
        name: level.name.into(),
        index: Some(level.index),
        end: None,
    };
    let mut steps: Vec<_> = walk.levels.iter().map(step).collect();
    if let Some(last) = steps.last_mut() {
        last.end = Some(end(walk.leaf_size));
    }
    steps
}

/// A walk as lines, each level a step further to the right.
fn draw(title: String, steps: &[Step], pfn: Option<u64>) -> Vec<String> {
    let mut lines = vec![title];
    for (i, Step { name, index, end }) in steps.iter().enumerate() {
        let index = index.map_or("?".into(), |index| index.to_string());
        let corner = if i == 0 { "" } else { "└" };
        let indent = " ".repeat((2 * i).saturating_sub(1));
        let end = end.as_ref().map_or("┐".into(), |end| format!(" {end}"));
        lines.push(format!("{name} [{index:>3}] {indent}{corner}─{end}"));
    }
    if let Some(pfn) = pfn {
        let indent = " ".repeat(9 + 2 * steps.len());
        lines.push(format!("{indent}frame {pfn:#x}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use mapdrv::uapi;

    use super::*;
    use crate::output::{assert_documented, printed};

    /// The walk of a kernel with four levels or five, that ends above the lowest or not.
    fn kernel(levels: &[&str], leaf_size: u64, pfn: u64) -> mapdrv::Walk {
        let mut walk = uapi::Walk {
            offset: 0x3005,
            pfn,
            leaf_size,
            nr_levels: levels.len() as u32,
            ..uapi::Walk::default()
        };
        for (i, name) in levels.iter().enumerate() {
            walk.levels[i].name[..3].copy_from_slice(name.as_bytes());
            walk.levels[i].index = 100 * i as u32;
            walk.levels[i].flags = uapi::ENTRY_PRESENT;
        }
        if leaf_size != 0 {
            walk.levels[levels.len() - 1].flags |= uapi::ENTRY_LEAF;
        } else {
            walk.levels[levels.len() - 1].flags = 0;
        }
        walk.into()
    }

    fn walks(kernel: mapdrv::Walk) -> Walks {
        let names = level_names(&kernel);
        let levels = names.iter().enumerate();
        Walks {
            offset: 0x3005,
            page: 3,
            agree: kernel.pfn.map(|pfn| pfn == 0x1234),
            process: ProcessWalk {
                address: 0x7f12_3456_7005,
                levels: levels
                    .map(|(i, name)| ProcessLevel {
                        name,
                        index: 7 * i as u64,
                    })
                    .collect(),
                leaf_size: Some(4096),
                pfn: kernel.pfn.map(|_| 0x1234),
            },
            kernel,
        }
    }

    fn rendered(kernel: mapdrv::Walk, width: usize) -> String {
        printed(|out| render(Path::new("mapfile"), 256, &walks(kernel), width, out))
    }

    #[test]
    fn five_levels() {
        let kernel = kernel(&["pgd", "p4d", "pud", "pmd", "pte"], 4096, 0x1234);
        expect![[r#"
            mapfile, byte 0x3005, in page 3 of 256
            the kernel's walk                     this process's, at 0x7f1234567005
            pgd [  0] ─┐                          pgd [  0] ─┐
            p4d [100]  └─┐                        p4d [  7]  └─┐
            pud [200]    └─┐                      pud [ 14]    └─┐
            pmd [300]      └─┐                    pmd [ 21]      └─┐
            pte [400]        └─ leaf of 4.00 KiB  pte [ 28]        └─ leaf of 4.00 KiB
                               frame 0x1234                          frame 0x1234
            both end at the same page of memory
        "#]]
        .assert_eq(&rendered(kernel, 80));
    }

    #[test]
    fn four_levels_and_a_huge_leaf() {
        let kernel = kernel(&["pgd", "pud", "pmd"], 2 << 20, 0x1235);
        expect![[r#"
            mapfile, byte 0x3005, in page 3 of 256
            the kernel's walk                     this process's, at 0x7f1234567005
            pgd [  0] ─┐                          pgd [  0] ─┐
            pud [100]  └─┐                        pud [  7]  └─┐
            pmd [200]    └─ leaf of 2.00 MiB      pmd [ 14]    └─┐
                           frame 0x1235           pte [ 21]      └─ leaf of 4.00 KiB
                                                                   frame 0x1234
            they end at different pages of memory
        "#]]
        .assert_eq(&rendered(kernel, 80));
    }

    #[test]
    fn narrow_and_not_for_root() {
        let kernel = kernel(&["pgd", "pud", "pmd", "pte"], 4096, 0);
        expect![[r#"
            mapfile, byte 0x3005, in page 3 of 256
            the kernel's walk
            pgd [  ?] ─┐
            pud [  ?]  └─┐
            pmd [  ?]    └─┐
            pte [  ?]      └─ leaf of 4.00 KiB
            this process's, at 0x7f1234567005
            pgd [  0] ─┐
            pud [  7]  └─┐
            pmd [ 14]    └─┐
            pte [ 21]      └─ leaf of 4.00 KiB
            frame numbers and the kernel's indices are for root only
        "#]]
        .assert_eq(&rendered(kernel, 20));
    }

    #[test]
    fn a_hole() {
        let kernel = kernel(&["pgd", "pud"], 0, 0);
        assert!(rendered(kernel, 80).contains("pud [100]  └─ hole"));
    }

    #[test]
    fn json() {
        let kernel = kernel(&["pgd", "pud", "pmd", "pte"], 4096, 0x1234);
        assert_documented(&walks(kernel));
    }

    #[test]
    fn levels_below_a_leaf_are_known_from_those_above() {
        let four = kernel(&["pgd", "pud", "pmd"], 2 << 20, 1);
        assert_eq!(level_names(&four), ["pgd", "pud", "pmd", "pte"]);
        let five = kernel(&["pgd", "p4d"], 0, 0);
        assert_eq!(level_names(&five), LEVELS);
    }
}
