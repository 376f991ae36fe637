// SPDX-License-Identifier: GPL-2.0

//! Counters: what they count, everywhere they are shown, and that none is lost.

use crate::check::{Outcome, ensure, equal, wrong};
use crate::device::{self, Setup};
use crate::kmsg::Log;
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, pread, pwrite};
use crate::uapi::{MODE_VMALLOC, Stats};
use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

tests! {
    "faults and pages installed are counted, exactly": faults,
    "mappings alive are counted through mmap, fork, split, move and exit": mappings,
    "open files are counted through open, dup, fork and close": open_files,
    "bytes read and written are counted, those that were moved and no others": bytes,
    "threads and processes that fault at once lose no count": concurrent_faults,
    "processes that read and write at once lose no count": concurrent_bytes,
    "fdinfo tells size, faults and pages of this file alone": fdinfo,
    "debugfs and sysfs tell the same as the ioctl": same_everywhere,
    "sysfs is there for everyone to read": for_everyone,
    "what the log says at rmmod are the counters": at_unload,
    "with trace on a fault is a line that tells where the walk went; off, there is none": trace,
    "trace may be turned on and off while others fault": trace_toggle,
}

/// What has been counted since `before`.
fn since(fd: &impl AsRawFd, before: &Stats) -> Outcome<Stats> {
    let now = device::stats(fd)?;
    Ok(Stats {
        faults: now.faults - before.faults,
        pages_installed: now.pages_installed - before.pages_installed,
        read_bytes: now.read_bytes - before.read_bytes,
        written_bytes: now.written_bytes - before.written_bytes,
        ..now
    })
}

/// Faults that touching `pages` pages in order takes, where nothing but the driver has a say in it.
fn expected_faults(fd: &impl AsRawFd, map: &Map) -> Outcome<Option<u64>> {
    let info = device::info(fd)?;
    if info.mode != MODE_VMALLOC {
        return Ok(None);
    }
    // Windows are aligned in user space.
    let window = info.fault_around as usize;
    let (first, last) = (map.addr / window, (map.addr + map.len - 1) / window);
    Ok(Some((last - first + 1) as u64))
}

fn faults(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let before = device::stats(&fd)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    equal(
        "pages installed by mmap alone",
        since(&fd, &before)?.pages_installed,
        0,
    )?;
    map.touch();
    let after = since(&fd, &before)?;
    equal("SIGBUSes", after.faults_sigbus, before.faults_sigbus)?;
    if device::info(&fd)?.mode == MODE_VMALLOC {
        equal(
            "pages installed",
            after.pages_installed,
            setup.pages() as u64,
        )?;
    }
    if let Some(faults) = expected_faults(&fd, &map)? {
        equal("faults", after.faults, faults)?;
    }
    ensure("no fault was counted", after.faults > 0)?;
    map.touch();
    let again = since(&fd, &before)?;
    equal(
        "a second touch",
        (again.faults, again.pages_installed),
        (after.faults, after.pages_installed),
    )?;

    // One of a window that is there already is one page more.
    map.advise(5 * PAGE, PAGE, libc::MADV_DONTNEED)?;
    map.touch();
    let third = since(&fd, &before)?;
    if device::info(&fd)?.mode == MODE_VMALLOC {
        let more = (
            third.faults - after.faults,
            third.pages_installed - after.pages_installed,
        );
        equal("after one page was taken away", more, (1, 1))?;
    }

    // A page that is written in a private mapping is copied, one by one.
    let private = Map::new(&fd, 0, 5 * PAGE, RW, MAP_PRIVATE)?;
    let before = device::stats(&fd)?;
    for page in 0..5 {
        private.put(page * PAGE, 1);
    }
    equal("faults of private writes", since(&fd, &before)?.faults, 5)
}

fn alive(fd: &impl AsRawFd) -> Outcome<u64> {
    let stats = device::stats(fd)?.mappings;
    equal(
        "mappings, by the info ioctl",
        device::info(fd)?.mappings,
        stats,
    )?;
    Ok(stats)
}

fn mappings(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    equal("at first", alive(&fd)?, 0)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    equal("one", alive(&fd)?, 1)?;
    let second = Map::new(&fd, 0, PAGE, RW, MAP_PRIVATE)?;
    equal("two", alive(&fd)?, 2)?;
    process::in_child(|| equal("with a child's", alive(&fd)?, 4))?;
    equal("after the child's end", alive(&fd)?, 2)?;
    map.unmap(10 * PAGE, PAGE)?;
    equal("a hole splits one", alive(&fd)?, 3)?;
    map.protect(20 * PAGE, PAGE, PROT_READ)?;
    equal("other rights split it again", alive(&fd)?, 5)?;
    // The kernel merges none that must not grow; whatever it does, the count is that of smaps.
    map.protect(20 * PAGE, PAGE, RW)?;
    let listed = fs::read_to_string("/proc/self/maps")?;
    let listed = listed
        .lines()
        .filter(|line| line.contains("/dev/mapdrv0"))
        .count() as u64;
    equal("after merging", alive(&fd)?, listed)?;
    let mut piece = Map {
        addr: map.addr,
        len: 10 * PAGE,
    };
    let room = Map::anonymous(piece.len, PROT_READ)?;
    piece.remap(
        piece.len,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        room.addr,
    )?;
    std::mem::forget(room);
    equal("after a move", alive(&fd)?, listed)?;
    drop((piece, map, second));
    equal("at last", alive(&fd)?, 0)?;
    let refused = Map::new(&fd, 0, setup.span() + PAGE, RW, MAP_SHARED);
    ensure("a mapping past the end", refused.is_err())?;
    equal("after a refusal", alive(&fd)?, 0)?;
    let mut child = Child::new(|line| {
        let _map = Map::new(&fd, 0, PAGE, RW, MAP_SHARED)?;
        line.say()?;
        line.hear()
    })?;
    child.line.hear()?;
    equal("a child's own", alive(&fd)?, 1)?;
    // SAFETY: The child is ours and has not been waited for.
    unsafe { libc::kill(child.pid, libc::SIGKILL) };
    process::wait(child.pid)?;
    equal("after its death", alive(&fd)?, 0)
}

fn open_files(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let count = || Ok::<u64, std::io::Error>(device::stats(&fd)?.open_files);
    equal("one", count()?, 1)?;
    let other = device::open(O_RDWR)?;
    equal("two", count()?, 2)?;
    let copy = other.try_clone()?;
    equal("a duplicate is the same file", count()?, 2)?;
    process::in_child(|| equal("in a child too", count()?, 2))?;
    drop(other);
    equal("the duplicate is left", count()?, 2)?;
    let map = Map::new(&copy, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    drop(copy);
    equal("the mapping is left", count()?, 2)?;
    drop(map);
    equal("one again", count()?, 1)
}

fn bytes(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let before = device::stats(&fd)?;
    pread(&fd, 0, 1000)?;
    pread(&fd, setup.size as i64 - 10, 1000)?;
    pread(&fd, setup.size as i64, 1000)?;
    pwrite(&fd, 5, &[1; 77])?;
    pwrite(&fd, setup.size as i64 - 3, &[1; 77])?;
    let _ = pwrite(&fd, setup.size as i64, &[1; 77]);
    // SAFETY: The kernel checks the addresses.
    unsafe {
        libc::pread(fd.as_raw_fd(), 8 as *mut _, 100, 0);
        libc::pwrite(fd.as_raw_fd(), 8 as *const _, 100, 0);
    }
    // From and to memory that ends after 40 bytes.
    let map = Map::anonymous(2 * PAGE, RW)?;
    map.unmap(PAGE, PAGE)?;
    let at = map.addr + PAGE - 40;
    // SAFETY: As above.
    unsafe {
        libc::pread(fd.as_raw_fd(), at as *mut _, 100, 0);
        libc::pwrite(fd.as_raw_fd(), at as *const _, 100, 0);
    }
    let after = since(&fd, &before)?;
    equal(
        "read and written",
        (after.read_bytes, after.written_bytes),
        (1050, 120),
    )
}

fn concurrent_faults(setup: &Setup) -> Outcome {
    const PROCESSES: usize = 4;
    const THREADS: usize = 4;
    const ROUNDS: usize = 5;
    let fd = device::open(O_RDONLY)?;
    let info = device::info(&fd)?;
    let before = device::stats(&fd)?;
    let span = setup.span();
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        let mut child = Child::new(|line| {
            line.hear()?;
            let fd = device::open(O_RDONLY)?;
            let good = std::thread::scope(|scope| {
                let work = || {
                    for _ in 0..ROUNDS {
                        // Each has pages of its own to fault, in a mapping of its own.
                        Map::new(&fd, 0, span, PROT_READ, MAP_SHARED)
                            .expect("a mapping")
                            .touch();
                    }
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
                threads.into_iter().all(|thread| thread.join().is_ok())
            });
            ensure("a thread failed", good)
        })?;
        child.line.say()?;
        children.push(child);
    }
    children.into_iter().try_for_each(Child::end)?;
    let after = since(&fd, &before)?;
    let pages = (PROCESSES * THREADS * ROUNDS * setup.pages()) as u64;
    if info.mode == MODE_VMALLOC {
        equal("pages installed", after.pages_installed, pages)?;
    }
    if info.fault_around == PAGE as u64 && info.mode == MODE_VMALLOC {
        equal("faults", after.faults, pages)?;
    }
    equal("mappings", after.mappings, 0)?;
    equal("open files", after.open_files, 1)
}

fn concurrent_bytes(_: &Setup) -> Outcome {
    const PROCESSES: u64 = 4;
    const ROUNDS: u64 = 2000;
    let fd = device::open(O_RDONLY)?;
    let (before, generation) = (device::stats(&fd)?, device::info(&fd)?.generation);
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        children.push(Child::new(|_| {
            let fd = device::open(O_RDWR)?;
            for _ in 0..ROUNDS {
                pread(&fd, 0, 13)?;
                pwrite(&fd, 0, b"seventeen letters")?;
            }
            Ok(())
        })?);
    }
    children.into_iter().try_for_each(Child::end)?;
    let after = since(&fd, &before)?;
    let times = PROCESSES * ROUNDS;
    equal(
        "read and written",
        (after.read_bytes, after.written_bytes),
        (13 * times, 17 * times),
    )?;
    equal(
        "generation",
        device::info(&fd)?.generation - generation,
        times,
    )
}

/// The lines `name: value` of a text.
fn fields(text: &str) -> HashMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, value)| Some((name.trim().to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn fdinfo(setup: &Setup) -> Outcome {
    let (one, two) = (device::open(O_RDWR)?, device::open(O_RDONLY)?);
    let info = |fd: &std::os::fd::OwnedFd| -> Outcome<(u64, u64, u64)> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let fields = fields(&text);
        let field = |name: &str| {
            fields
                .get(name)
                .copied()
                .ok_or_else(|| wrong(format!("no {name} in {text}")))
        };
        Ok((field("size")?, field("faults")?, field("mapped pages")?))
    };
    equal("fresh", info(&one)?, (setup.size, 0, 0))?;
    let map = Map::new(&one, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    map.touch();
    let (size, faults, pages) = info(&one)?;
    equal("size", size, setup.size)?;
    ensure("no faults", faults > 0)?;
    if device::info(&one)?.mode == MODE_VMALLOC {
        equal("pages", pages, setup.pages() as u64)?;
    }
    if let Some(expected) = expected_faults(&one, &map)? {
        equal("faults", faults, expected)?;
    }
    equal("another's", info(&two)?, (setup.size, 0, 0))
}

fn by_debugfs() -> Outcome<HashMap<String, u64>> {
    Ok(fields(&fs::read_to_string(
        "/sys/kernel/debug/mapdrv/mapdrv0/stats",
    )?))
}

fn by_sysfs(name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/sys/class/mapdrv/mapdrv0/{name}"))?;
    ensure(format!("{name}: no newline"), text.ends_with('\n'))?;
    text.trim()
        .parse()
        .map_err(|_| wrong(format!("{name}: no number: {text}")))
}

fn same_everywhere(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    map.touch();
    pwrite(&fd, 0, &[0; 99])?;
    pread(&fd, 0, 55)?;
    let (stats, info) = (device::stats(&fd)?, device::info(&fd)?);
    let expected = [
        ("faults", stats.faults),
        ("faults_sigbus", stats.faults_sigbus),
        ("pages_installed", stats.pages_installed),
        ("mappings", stats.mappings),
        ("open_files", stats.open_files),
        ("read_bytes", stats.read_bytes),
        ("written_bytes", stats.written_bytes),
    ];
    let debugfs = by_debugfs()?;
    for (name, value) in expected {
        equal(
            format!("{name} in debugfs"),
            debugfs.get(name).copied(),
            Some(value),
        )?;
        equal(format!("{name} in sysfs"), by_sysfs(name)?, value)?;
    }
    equal("size in sysfs", by_sysfs("size")?, info.size)?;
    equal("pages in sysfs", by_sysfs("pages")?, info.pages)?;
    equal("fill in sysfs", by_sysfs("fill")?, info.fill.into())?;
    equal(
        "generation in sysfs",
        by_sysfs("generation")?,
        info.generation,
    )
}

fn for_everyone(setup: &Setup) -> Outcome {
    process::in_child(|| {
        process::become_nobody()?;
        equal("size", by_sysfs("size")?, setup.size)?;
        by_sysfs("faults")?;
        ensure("debugfs is open to all", by_debugfs().is_err())
    })
}

fn at_unload(setup: &Setup) -> Outcome {
    use crate::module::{self, Loaded};

    // The harness has it loaded; this test needs one of its own.
    module::remove(module::NAME)?;
    let loaded = Loaded::new(&setup.params)?;
    let fd = device::open(O_RDONLY)?;
    let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    map.touch();
    let stats = device::stats(&fd)?;
    drop((map, fd));
    let log = Log::from_now()?;
    let unloaded = loaded.unload();
    module::insert(module::NAME, &setup.params)?;
    unloaded?;
    let expected = format!(
        "mapdrv0: {} faults served, {} pages mapped, 0 SIGBUS",
        stats.faults, stats.pages_installed
    );
    let lines = log.lines_of(module::NAME)?;
    ensure(
        format!("`{expected}` is not in {lines:?}"),
        lines.contains(&expected),
    )
}

const TRACE: &str = "/sys/kernel/debug/mapdrv/mapdrv0/trace";

fn trace(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let fault = |page: usize, write: bool| -> Outcome<Vec<String>> {
        let log = Log::from_now()?;
        let map = Map::new(&fd, (page * PAGE) as u64, PAGE, RW, MAP_SHARED)?;
        if write {
            map.put(0, 1);
        } else {
            map.get(0);
        }
        log.lines_of(crate::module::NAME).map_err(Into::into)
    };
    equal(
        "trace at first",
        fs::read_to_string(TRACE)?,
        "0\n".to_owned(),
    )?;
    equal("lines at first", fault(3, false)?, vec![])?;
    fs::write(TRACE, "1")?;
    equal(
        "trace when on",
        fs::read_to_string(TRACE)?,
        "1\n".to_owned(),
    )?;
    let walk = device::walk(&fd, (7 * PAGE) as u64)?;
    for (write, access) in [(false, "read"), (true, "write")] {
        // Others may have used up what the rate limit allows in a few seconds.
        let mut lines = vec![];
        for _ in 0..20 {
            lines = fault(7, write)?;
            lines.retain(|line| !line.contains("suppressed"));
            if !lines.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        equal(format!("lines when on, of {lines:?}"), lines.len(), 1)?;
        let line = &lines[0];
        let last = String::from_utf8_lossy(&walk.levels[walk.nr_levels as usize - 1].name[..3])
            .into_owned();
        for part in [
            "mapdrv0",
            "page 7",
            access,
            "pgd",
            "pud",
            "pmd",
            &last,
            &walk.leaf_size.to_string(),
        ] {
            ensure(
                format!("`{part}` is not in the line: {line}"),
                line.contains(part),
            )?;
        }
        ensure(
            format!("an address: {line}"),
            !line.contains("0x") && !line.contains("ffff"),
        )?;
    }
    fs::write(TRACE, "0")?;
    equal("lines when off again", fault(4, false)?, vec![])?;
    let log = Log::from_now()?;
    fs::write(TRACE, "1")?;
    let map = Map::new(&fd, 0, 64 * PAGE, PROT_READ, MAP_SHARED)?;
    for _ in 0..20 {
        map.touch();
        map.advise(0, map.len, libc::MADV_DONTNEED)?;
    }
    fs::write(TRACE, "0")?;
    let lines = log.lines_of(crate::module::NAME)?.len();
    ensure(format!("{lines} lines: not rate-limited"), lines < 64)?;
    let bad = fs::write(TRACE, "maybe").map_err(|error| error.raw_os_error());
    equal("a value that is none", bad, Err(Some(libc::EINVAL)))?;
    equal(
        "trace after that",
        fs::read_to_string(TRACE)?,
        "0\n".to_owned(),
    )
}

fn trace_toggle(setup: &Setup) -> Outcome {
    let span = setup.span();
    let before = device::stats(&device::open(O_RDONLY)?)?;
    let mut children = Vec::new();
    for _ in 0..2 {
        children.push(Child::new(|_| {
            let fd = device::open(O_RDONLY)?;
            for _ in 0..30 {
                Map::new(&fd, 0, span, PROT_READ, MAP_SHARED)?.touch();
            }
            Ok(())
        })?);
    }
    for round in 0..20 {
        fs::write(TRACE, if round % 2 == 0 { "1" } else { "0" })?;
    }
    children.into_iter().try_for_each(Child::end)?;
    let fd = device::open(O_RDONLY)?;
    if device::info(&fd)?.mode == MODE_VMALLOC {
        equal(
            "pages installed",
            since(&fd, &before)?.pages_installed,
            (60 * setup.pages()) as u64,
        )?;
    }
    // A module whose trace is on can go.
    fs::write(TRACE, "1")?;
    Ok(())
}
