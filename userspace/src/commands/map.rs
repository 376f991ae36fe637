// SPDX-License-Identifier: GPL-2.0

//! `mapdrv map`

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use console::Term;
use mapdrv::{Access, Device, Extent, Region};
use serde::Serialize;

use crate::cli::Map;
use crate::failure::Failure;
use crate::output::{BAD, DIM, GOOD, HEAD, OfDevice, Output, count, size};

/// Rows that a picture has at most.
const ROWS: u64 = 8;

/// Columns that a picture has at most.
const COLUMNS: usize = 64;

/// Pages compared with the pattern at a time.
const BLOCK: u64 = 256;

/// All there is to draw at one time.
#[derive(Serialize)]
struct Snapshot {
    pages: u64,
    page_size: u32,
    /// Writes completed since load; those through mappings are not counted.
    generation: u64,
    /// Pages that do not hold what they were loaded with.
    changed: Vec<Run>,
    mappings: Vec<View>,
}

/// Neighbouring pages.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Run {
    first_page: u64,
    pages: u64,
}

/// One mapping and its present pages.
#[derive(Serialize)]
struct View {
    #[serde(flatten)]
    region: Region,
    present: Vec<Extent>,
}

pub fn run(args: &Map, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let mapping = device.map_all(Access::Read)?;
    for &offset in &args.touch {
        mapping.word(offset / 8 * 8)?;
    }

    let terminal = Term::stdout();
    let drawings = match args.watch {
        Some(_) => args.count.unwrap_or(u64::MAX),
        None => 1,
    };
    for drawing in 0..drawings {
        if let Some(pause) = args.watch.filter(|_| drawing > 0) {
            thread::sleep(pause);
        }
        let snapshot = Snapshot::take(&device)?;
        if out.json {
            out.object(&OfDevice {
                device: device.path(),
                value: &snapshot,
            })?;
        } else {
            if args.watch.is_some() && terminal.is_term() {
                terminal.clear_screen()?;
            }
            let width = out.width;
            render(device.path(), &snapshot, std::process::id(), width, out)?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Snapshot {
    fn take(device: &Device) -> mapdrv::Result<Self> {
        let mut mappings = Vec::new();
        for region in device.regions()? {
            // A process that ended meanwhile is no longer of interest.
            if let Ok(present) = device.present_in(&region) {
                mappings.push(View { region, present });
            }
        }
        Ok(Self {
            pages: device.pages(),
            page_size: device.page_size(),
            generation: device.info()?.generation,
            changed: changed(device)?,
            mappings,
        })
    }
}

/// The pages that do not hold what they were loaded with, read without a mapping.
fn changed(device: &Device) -> mapdrv::Result<Vec<Run>> {
    let pattern = device.pattern();
    let mut words = vec![0; BLOCK as usize * pattern.words_per_page()];
    let mut runs: Vec<Run> = Vec::new();
    for first in (0..device.pages()).step_by(BLOCK as usize) {
        device.read_pages(first, &mut words)?;
        let pages = words.chunks_exact(pattern.words_per_page());
        for (page, words) in (first..device.pages()).zip(pages) {
            if pattern.matches(page, words) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.first_page + run.pages == page => run.pages += 1,
                _ => runs.push(Run {
                    first_page: page,
                    pages: 1,
                }),
            }
        }
    }
    Ok(runs)
}

fn render(
    device: &Path,
    snapshot: &Snapshot,
    own_pid: u32,
    width: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let grid = Grid::new(snapshot.pages, width);
    writeln!(
        out,
        "{HEAD}{}: {} of {}, {}{HEAD:#}",
        device.display(),
        count(snapshot.pages, "page"),
        size(snapshot.page_size.into()),
        count(snapshot.generation, "write")
    )?;
    writeln!(
        out,
        "{DIM}one sign is {}: · none, ░ some, ▓ all present; █ by huge entries{DIM:#}",
        count(grid.pages_per_cell, "page")
    )?;

    for View { region, present } in &snapshot.mappings {
        let page_size = u64::from(snapshot.page_size);
        let first = region.offset / page_size;
        let pages = first..first + (region.end - region.start) / page_size;
        let total = present.iter().map(|extent| extent.pages).sum();
        writeln!(
            out,
            "{}{}, pages {} to {}, {}, {}: {} present",
            region.command,
            if region.pid.unsigned_abs() == own_pid {
                " (this program)".into()
            } else {
                format!(" ({})", region.pid)
            },
            pages.start,
            pages.end - 1,
            if region.shared { "shared" } else { "private" },
            if region.writable {
                "writable"
            } else {
                "read-only"
            },
            count(total, "page"),
        )?;
        let extents = present
            .iter()
            .map(|extent| (extent.first_page, extent.pages, extent.huge));
        grid.draw(pages, extents, GOOD, out)?;
    }

    let total = snapshot.changed.iter().map(|run| run.pages).sum();
    writeln!(out, "changed since load: {}", count(total, "page"))?;
    if total > 0 {
        let runs = snapshot.changed.iter();
        let extents = runs.map(|run| (run.first_page, run.pages, false));
        grid.draw(0..snapshot.pages, extents, BAD, out)?;
    }
    Ok(())
}

/// How pages are laid out in a picture.
struct Grid {
    columns: usize,
    pages_per_cell: u64,
}

impl Grid {
    fn new(pages: u64, width: usize) -> Self {
        let columns = width.saturating_sub(2).clamp(1, COLUMNS);
        let cells = columns as u64 * ROWS;
        Self {
            columns,
            pages_per_cell: pages.div_ceil(cells).next_power_of_two(),
        }
    }

    /// Draws `pages`, of which `extents` (first page, number of pages, whether huge) are there.
    fn draw(
        &self,
        pages: Range<u64>,
        extents: impl Iterator<Item = (u64, u64, bool)>,
        style: anstyle::Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let first = pages.start / self.pages_per_cell;
        let last = pages.end.div_ceil(self.pages_per_cell);
        let mut cells = vec![Cell::default(); (last - first) as usize];
        for (start, len, huge) in extents {
            let end = (start + len).min(pages.end);
            for cell in start / self.pages_per_cell..end.div_ceil(self.pages_per_cell) {
                let here = self.pages_of(cell, &(start..end));
                let cell = &mut cells[(cell - first) as usize];
                cell.present += here.end - here.start;
                cell.huge |= huge;
            }
        }
        let all = |i: usize| {
            let here = self.pages_of(first + i as u64, &pages);
            here.end - here.start
        };
        let signs: Vec<_> = cells
            .iter()
            .enumerate()
            .map(|(i, cell)| cell.sign(all(i)))
            .collect();
        for row in signs.chunks(self.columns) {
            writeln!(out, "  {style}{}{style:#}", row.iter().collect::<String>())?;
        }
        Ok(())
    }

    /// The pages of `range` that cell number `cell` stands for.
    fn pages_of(&self, cell: u64, range: &Range<u64>) -> Range<u64> {
        let start = cell * self.pages_per_cell;
        start.max(range.start)..(start + self.pages_per_cell).min(range.end)
    }
}

/// One sign of a picture.
#[derive(Clone, Copy, Default)]
struct Cell {
    present: u64,
    huge: bool,
}

impl Cell {
    fn sign(&self, pages: u64) -> char {
        match self.present {
            0 => '·',
            _ if self.huge => '█',
            present if present < pages => '░',
            _ => '▓',
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::output::{assert_documented, printed};

    fn extent(first_page: u64, pages: u64, huge: bool) -> Extent {
        let mut extent = Extent::default();
        extent.first_page = first_page;
        extent.pages = pages;
        extent.huge = huge;
        extent
    }

    fn view(pid: i32, pages: Range<u64>, present: Vec<Extent>) -> View {
        let mut region = Region::default();
        region.pid = pid;
        region.command = "reader".into();
        region.offset = pages.start * 4096;
        region.start = 0x7f00_0000_0000;
        region.end = region.start + (pages.end - pages.start) * 4096;
        region.shared = pid == 1;
        region.writable = pid == 2;
        View { region, present }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            pages: 4096,
            page_size: 4096,
            generation: 1,
            changed: vec![Run {
                first_page: 9,
                pages: 1,
            }],
            mappings: vec![
                view(
                    1,
                    0..4096,
                    vec![extent(0, 16, false), extent(512, 1024, true)],
                ),
                view(
                    2,
                    100..612,
                    vec![extent(101, 3, false), extent(611, 1, false)],
                ),
            ],
        }
    }

    fn rendered(width: usize) -> String {
        printed(|out| render(Path::new("mapfile"), &snapshot(), 1, width, out))
    }

    #[test]
    fn picture() {
        expect![[r#"
            mapfile: 4096 pages of 4.00 KiB, 1 write
            one sign is 8 pages: · none, ░ some, ▓ all present; █ by huge entries
            reader (this program), pages 0 to 4095, shared, read-only: 1040 pages present
              ▓▓······························································
              ████████████████████████████████████████████████████████████████
              ████████████████████████████████████████████████████████████████
              ································································
              ································································
              ································································
              ································································
              ································································
            reader (2), pages 100 to 611, private, writable: 4 pages present
              ░·······························································
              ░
            changed since load: 1 page
              ·░······························································
              ································································
              ································································
              ································································
              ································································
              ································································
              ································································
              ································································
        "#]]
        .assert_eq(&rendered(80));
    }

    #[test]
    fn narrow_picture() {
        expect![[r#"
            mapfile: 4096 pages of 4.00 KiB, 1 write
            one sign is 32 pages: · none, ░ some, ▓ all present; █ by huge entries
            reader (this program), pages 0 to 4095, shared, read-only: 1040 pages present
              ░···············██
              ██████████████████
              ████████████······
              ··················
              ··················
              ··················
              ··················
              ··
            reader (2), pages 100 to 611, private, writable: 4 pages present
              ░···············░
            changed since load: 1 page
              ░·················
              ··················
              ··················
              ··················
              ··················
              ··················
              ··················
              ··
        "#]]
        .assert_eq(&rendered(20));
    }

    #[test]
    fn json() {
        let mut snapshot = snapshot();
        snapshot.mappings.truncate(1);
        assert_documented(&snapshot);
    }

    #[test]
    fn any_size_fits_any_width() {
        for pages in [1, 2, 511, 512, 513, 1 << 20, (1 << 40) - 1] {
            for width in [0, 1, 2, 3, 20, 80, 1000] {
                let grid = Grid::new(pages, width);
                let cells = pages.div_ceil(grid.pages_per_cell);
                assert!(cells <= grid.columns as u64 * ROWS, "{pages} {width}");
            }
        }
    }
}
