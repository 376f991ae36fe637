// SPDX-License-Identifier: GPL-2.0

//! `mapdrv layout`

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use mapdrv::{Access, Device};
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use serde::Serialize;

use crate::cli::Layout;
use crate::failure::{FAILED, Failure};
use crate::output::{BAD, DIM, GOOD, HEAD, Output, size};

/// In the read-only data: nothing changes it.
static CONSTANT: [u8; 4] = *b"text";

/// In the data segment: its first value is not zero.
static DATA: AtomicU8 = AtomicU8::new(1);

/// In the BSS: its first value is zero.
static BSS: AtomicU8 = AtomicU8::new(0);

/// `AT_SYSINFO_EHDR` of the auxiliary vector: where the vDSO is.
const AT_SYSINFO_EHDR: u64 = 33;

/// Something whose address this program knows.
struct Probe {
    what: &'static str,
    address: u64,
    /// Whether an area is one where such a thing can be.
    belongs: fn(&MemoryMap) -> bool,
}

/// One area of the address space.
#[derive(Serialize)]
struct Area {
    start: u64,
    end: u64,
    /// As in /proc/self/maps.
    permissions: String,
    /// As in /proc/self/maps; empty for anonymous memory.
    name: String,
    /// What is known to lie in it.
    holds: Vec<Held>,
}

/// A probe that was found in an area.
#[derive(Serialize)]
struct Held {
    what: &'static str,
    address: u64,
    /// Whether it belongs there.
    ok: bool,
}

/// The whole address space.
#[derive(Serialize)]
struct Space {
    ok: bool,
    /// From the highest address down.
    areas: Vec<Area>,
    /// Probes that are in no area.
    missing: Vec<&'static str>,
}

pub fn run(args: &Layout, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = args.device.as_ref().map(Device::open).transpose()?;
    let mapping = device
        .map(|device| device.map_all(Access::Read))
        .transpose()?;
    let heap = Box::new(AtomicU8::new(2));
    let stack = AtomicU8::new(3);
    // Used in a way that the compiler cannot foresee, so that they are where they are said to be.
    let sum = [&DATA, &BSS, &*heap, &stack].map(|byte| byte.fetch_add(1, Ordering::Relaxed));
    std::hint::black_box(sum);

    let process = Process::myself().map_err(proc_failed)?;
    let vdso = process
        .auxv()
        .map_err(proc_failed)?
        .get(&AT_SYSINFO_EHDR)
        .copied();
    let mut probes = program_probes((&raw const *heap).addr(), (&raw const stack).addr());
    probes.extend(vdso.map(|address| Probe {
        what: "vDSO: code of the kernel's for this process",
        address,
        belongs: |area| area.pathname == MMapPath::Vdso,
    }));
    probes.extend(mapping.as_ref().map(|mapping| Probe {
        what: "the device",
        address: mapping.address() as u64,
        belongs: |area| is_file(area) && area.perms.contains(MMPermissions::SHARED),
    }));

    let maps = process.maps().map_err(proc_failed)?;
    let space = Space::new(maps.into_iter().collect(), &probes);
    if out.json {
        out.object(&space)?;
    } else {
        render(&space, out)?;
    }
    Ok(if space.ok {
        ExitCode::SUCCESS
    } else {
        FAILED.into()
    })
}

/// What every program has.
fn program_probes(heap: usize, stack: usize) -> Vec<Probe> {
    use MMPermissions as P;
    let probe = |what, address: usize, belongs| Probe {
        what,
        address: address as u64,
        belongs,
    };
    vec![
        probe("text: a function", run as *const () as usize, |area| {
            is_file(area) && area.perms.contains(P::EXECUTE) && !area.perms.contains(P::WRITE)
        }),
        probe(
            "read-only data: a constant",
            (&raw const CONSTANT).addr(),
            |area| is_file(area) && !area.perms.intersects(P::EXECUTE | P::WRITE),
        ),
        probe(
            "data: a static variable, at first 1",
            (&raw const DATA).addr(),
            |area| is_file(area) && area.perms.contains(P::WRITE | P::PRIVATE),
        ),
        probe(
            "BSS: a static variable, at first 0",
            (&raw const BSS).addr(),
            |area| area.perms.contains(P::WRITE | P::PRIVATE),
        ),
        probe("heap: an allocation", heap, |area| {
            matches!(area.pathname, MMapPath::Heap | MMapPath::Anonymous)
        }),
        probe("stack: a local variable", stack, |area| {
            area.pathname == MMapPath::Stack
        }),
    ]
}

fn is_file(area: &MemoryMap) -> bool {
    matches!(area.pathname, MMapPath::Path(_))
}

fn proc_failed(error: procfs::ProcError) -> Failure {
    Failure::File {
        path: "/proc/self".into(),
        source: io::Error::other(error),
    }
}

impl Space {
    fn new(mut maps: Vec<MemoryMap>, probes: &[Probe]) -> Self {
        maps.sort_by_key(|map| std::cmp::Reverse(map.address));
        let is_in = |probe: &Probe, map: &MemoryMap| {
            (map.address.0..map.address.1).contains(&probe.address)
        };
        let areas: Vec<_> = maps
            .iter()
            .map(|map| Area {
                start: map.address.0,
                end: map.address.1,
                permissions: map.perms.as_str(),
                name: name(&map.pathname),
                holds: probes
                    .iter()
                    .filter(|probe| is_in(probe, map))
                    .map(|probe| Held {
                        what: probe.what,
                        address: probe.address,
                        ok: (probe.belongs)(map),
                    })
                    .collect(),
            })
            .collect();
        let missing: Vec<_> = probes
            .iter()
            .filter(|probe| !maps.iter().any(|map| is_in(probe, map)))
            .map(|probe| probe.what)
            .collect();
        let mut held = areas.iter().flat_map(|area| &area.holds);
        Self {
            ok: missing.is_empty() && held.all(|held| held.ok),
            areas,
            missing,
        }
    }
}

/// The name that /proc/self/maps has.
fn name(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".into(),
        MMapPath::Stack => "[stack]".into(),
        MMapPath::Vdso => "[vdso]".into(),
        MMapPath::Vvar => "[vvar]".into(),
        MMapPath::Vsyscall => "[vsyscall]".into(),
        MMapPath::Other(name) => format!("[{name}]"),
        _ => String::new(),
    }
}

fn render(space: &Space, out: &mut impl Write) -> io::Result<()> {
    let mut above = None;
    for area in &space.areas {
        if let Some(above) = above.filter(|&above| above > area.end) {
            gap(area.end, above, out)?;
        }
        above = Some(area.start);
        let name = if area.name.is_empty() {
            "anonymous"
        } else {
            &area.name
        };
        writeln!(
            out,
            "{HEAD}{:012x}-{:012x} {:>10}{HEAD:#} {} {name}",
            area.start,
            area.end,
            size(area.end - area.start),
            area.permissions
        )?;
        for held in &area.holds {
            let verdict = if held.ok {
                format!("{GOOD}ok{GOOD:#}")
            } else {
                format!("{BAD}out of place{BAD:#}")
            };
            writeln!(out, "{:012x}   {}: {verdict}", held.address, held.what)?;
        }
    }
    for what in &space.missing {
        writeln!(out, "{BAD}in no area: {what}{BAD:#}")?;
    }
    Ok(())
}

/// Says how much lies unused between two areas.
fn gap(start: u64, end: u64, out: &mut impl Write) -> io::Result<()> {
    // Where addresses are negative numbers, so to speak, they are the kernel's.
    let kernel = if (start as i64) >= 0 && (end as i64) < 0 {
        ", most of it the kernel's half"
    } else {
        ""
    };
    let size = size(end - start);
    writeln!(out, "{DIM}{size:>36} unused{kernel}{DIM:#}")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use procfs::process::MemoryMaps;
    use procfs::{FromBufRead, ProcResult};

    use super::*;
    use crate::output::{assert_line_documented, printed};

    const MAPS: &str = "\
555500000000-555500001000 r-xp 00000000 fe:00 42 /usr/bin/mapdrv
555500001000-555500003000 rw-p 00001000 fe:00 42 /usr/bin/mapdrv
555510000000-555510021000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000100000 r--s 00000000 00:05 7 /dev/mapdrv0
7f0000100000-7f0000101000 rw-p 00000000 00:00 0\x20
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    fn space(stack: u64) -> Space {
        let maps: ProcResult<MemoryMaps> = MemoryMaps::from_buf_read(MAPS.as_bytes());
        let is_stack: fn(&MemoryMap) -> bool = |area| area.pathname == MMapPath::Stack;
        let probes = [
            ("stack: a local variable", stack, is_stack),
            ("the device", 0x7f00_0000_0000, |_| true),
        ]
        .map(|(what, address, belongs)| Probe {
            what,
            address,
            belongs,
        });
        Space::new(maps.unwrap().into_iter().collect(), &probes)
    }

    #[test]
    fn table() {
        let space = space(0x7ffd_0000_1234);
        assert!(space.ok);
        expect![[r#"
            ffffffffff600000-ffffffffff601000   4.00 KiB --xp [vsyscall]
                                       16.00 EiB unused, most of it the kernel's half
            7ffd00000000-7ffd00021000 132.00 KiB rw-p [stack]
            7ffd00001234   stack: a local variable: ok
                                     1012.00 GiB unused
            7f0000100000-7f0000101000   4.00 KiB rw-p anonymous
            7f0000000000-7f0000100000   1.00 MiB r--s /dev/mapdrv0
            7f0000000000   the device: ok
                                       41.67 TiB unused
            555510000000-555510021000 132.00 KiB rw-p [heap]
                                      255.99 MiB unused
            555500001000-555500003000   8.00 KiB rw-p /usr/bin/mapdrv
            555500000000-555500001000   4.00 KiB r-xp /usr/bin/mapdrv
        "#]]
        .assert_eq(&printed(|out| render(&space, out)));
    }

    #[test]
    fn what_is_out_of_place_or_nowhere_is_not_ok() {
        let misplaced = space(0x5555_1000_0000);
        let text = printed(|out| render(&misplaced, out));
        assert!(
            !misplaced.ok && text.contains("a local variable: out of place\n"),
            "{text}"
        );
        let missing = space(0x1000);
        let text = printed(|out| render(&missing, out));
        assert!(
            !missing.ok && text.ends_with("in no area: stack: a local variable\n"),
            "{text}"
        );
    }

    #[test]
    fn json() {
        let mut space = space(0x1000);
        let shown = ["[stack]", "/dev/mapdrv0"];
        space
            .areas
            .retain(|area| shown.contains(&area.name.as_str()));
        assert_line_documented(&serde_json::to_string(&space).unwrap());
    }
}
