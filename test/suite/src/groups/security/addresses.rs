// SPDX-License-Identifier: GPL-2.0

//! Where the kernel's memory is, is told to nobody: neither addresses nor frame numbers. For machines
//! that are booted with `no_hash_pointers`, so that an address is shown however carelessly it is.

use super::NOBODY;
use crate::check::{Outcome, ensure, equal, wrong};
use crate::device::{self, Setup};
use crate::groups::walk;
use crate::kmsg::Log;
use crate::module::{self, Loaded};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, PROT_READ, check, pread};
use crate::uapi::{IOC_MIN_SIZE, IOC_NR_INFO, IOC_NR_STATS, IOC_NR_WALK, Walk, iowr};
use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

tests! {
    "the scan finds what the kernel itself shows to root, and an address in any form": control,
    "the log of loading, of traced faults and of unloading has no address": log,
    "what root reads in sysfs, debugfs, fdinfo and the answers of ioctls has no address": root,
    "what nobody reads there, in /proc and in the answer of a walk has neither address nor frame number": nobody,
    "nobody reads in debugfs even if its root is open to all": debugfs,
    "module information and the strings of the module's file have no address": file,
    "nobody's pagemap has no frame number of a device": pagemap,
}

/// What must not be told.
struct Secrets {
    /// Addresses of the buffer, and around the module's sections.
    areas: Vec<Range<u64>>,
    frames: HashSet<u64>,
    /// Numbers that are published, in the way in which they are written.
    known: HashSet<String>,
    /// The device's seed, which looks like anything.
    seed: u64,
}

/// Whether the kernel can have something at an address, with four levels or with five.
fn is_kernel(value: u64) -> bool {
    value >= 0xff00_0000_0000_0000
}

impl Secrets {
    /// What the devices have now; as root.
    fn new(setup: &Setup) -> Outcome<Self> {
        let fd = device::open(O_RDONLY)?;
        let first = walk::address(&device::walk(&fd, 0)?)?;
        let mut areas = Vec::new();
        areas.push(first..first + setup.span() as u64);
        for section in fs::read_dir("/sys/module/map_driver/sections")? {
            let text = fs::read_to_string(section?.path())?;
            let start = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)
                .map_err(|_| wrong(format!("section at {text}")))?;
            areas.push(start..start + 0x1000);
        }
        let mut frames = HashSet::new();
        for page in 0..setup.pages() {
            frames.insert(device::walk(&fd, (page * PAGE) as u64)?.pfn);
        }
        let seed = device::info(&fd)?.seed;
        Ok(Self {
            areas,
            frames,
            known: HashSet::new(),
            seed,
        })
    }

    /// Takes note of the numbers that a device publishes now.
    fn publish(&mut self, fd: &OwnedFd) -> Outcome {
        let words = [
            device::info(fd)?.to_words().to_vec(),
            device::stats(fd)?.to_words().to_vec(),
        ];
        self.known.extend(words.concat().iter().map(u64::to_string));
        let info = device::info(fd)?;
        self.known
            .extend([info.page_size, info.minor].map(|word| word.to_string()));
        Ok(())
    }

    fn in_areas(&self, value: u64) -> bool {
        self.areas.iter().any(|area| area.contains(&value))
    }

    /// Addresses in a text, as they stand there: with 16 digits, part of more, decimal, or negative.
    fn addresses(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for run in text.split(|c: char| !c.is_ascii_hexdigit()) {
            let windows = run.len().saturating_sub(15);
            for digits in (0..windows).map(|at| &run[at..at + 16]) {
                let value = u64::from_str_radix(digits, 16).unwrap_or(0);
                // Of long numbers, such as hashes, any part looks like anything.
                if if run.len() == 16 {
                    is_kernel(value)
                } else {
                    self.in_areas(value)
                } {
                    found.push(run.to_owned());
                }
            }
        }
        for (at, run) in numbers(text) {
            // Not the second of two numbers with a dash between.
            let before = text[..at].strip_suffix('-');
            let negative =
                before.is_some_and(|text| !text.ends_with(|c: char| c.is_alphanumeric()));
            let value = run.parse::<u64>().unwrap_or(0);
            if is_kernel(value) || negative && value >= 1 << 20 {
                found.push(run.to_owned());
            }
        }
        found
    }

    /// Frame numbers in a text, or addresses of frames.
    fn frames(&self, text: &str) -> Vec<String> {
        let secret = |value: u64| {
            self.frames.contains(&value)
                || value % PAGE as u64 == 0 && self.frames.contains(&(value / PAGE as u64))
        };
        let mut found = Vec::new();
        for run in text.split(|c: char| !c.is_ascii_alphanumeric()) {
            let digits = run.strip_prefix("0x").unwrap_or(run);
            let values = [u64::from_str_radix(digits, 16), run.parse()];
            if !self.known.contains(run) && values.into_iter().flatten().any(secret) {
                found.push(run.to_owned());
            }
        }
        found
    }

    /// Addresses in memory, at whatever place.
    fn raw(&self, bytes: &[u8]) -> Vec<String> {
        let seed = self.seed.to_ne_bytes();
        let mut bytes = bytes.to_vec();
        while let Some(at) = bytes.windows(8).position(|window| window == seed) {
            bytes[at..at + 8].fill(0);
        }
        let words = bytes
            .windows(8)
            .map(|window| window.try_into().expect("eight bytes"));
        let words = words
            .map(u64::from_ne_bytes)
            .filter(|&word| is_kernel(word));
        words.map(|word| format!("{word:#x}")).collect()
    }

    #[track_caller]
    fn check(&self, place: &str, text: &str) -> Outcome {
        equal(place, self.addresses(text), Vec::new())
    }
}

/// The decimal numbers in a text, with where they start.
fn numbers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|run| !run.is_empty())
        .map(|run| (run.as_ptr() as usize - text.as_ptr() as usize, run))
}

/// All files below a directory that can be read, with what is in them; no links are followed.
fn texts(dir: &Path, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => texts(&path, found),
            Ok(kind) if kind.is_file() => {
                if let Ok(bytes) = fs::read(&path) {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    found.push((path.display().to_string(), text));
                }
            }
            _ => {}
        }
    }
}

const SYSFS: [&str; 3] = [
    "/sys/devices/virtual/mapdrv",
    "/sys/class/mapdrv",
    "/sys/module/map_driver",
];
const DEBUGFS: &str = "/sys/kernel/debug/mapdrv";

/// What in a file system is ours, as whoever asks may read it.
fn files(dirs: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dir in dirs {
        texts(Path::new(dir), &mut found);
    }
    // The addresses of sections are there for root, by the kernel's own rule.
    found.retain(|(path, _)| !path.starts_with("/sys/module/map_driver/sections/"));
    found
}

/// Answers to each ioctl, in structures of all sizes, and of the walk for each page.
fn answers(fd: &OwnedFd, setup: &Setup, calls: &[u32]) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    for &nr in calls {
        for size in (IOC_MIN_SIZE..200).chain([4096]) {
            let mut bytes = vec![0u8; size];
            sys::ioctl(fd, iowr(nr, size), bytes.as_mut_ptr() as usize)?;
            all.append(&mut bytes);
        }
    }
    if calls.contains(&IOC_NR_WALK) {
        for page in 0..setup.pages() {
            let walk = device::walk(fd, (page * PAGE) as u64)?;
            all.extend(walk.to_words().iter().flat_map(|word| word.to_ne_bytes()));
        }
    }
    Ok(all)
}

/// What /proc tells of a process that has the device open and mapped.
fn own_proc(fd: &OwnedFd) -> Outcome<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut paths = vec![format!("/proc/self/fdinfo/{}", fd.as_raw_fd())];
    for name in [
        "maps",
        "smaps",
        "smaps_rollup",
        "numa_maps",
        "statm",
        "mountinfo",
    ] {
        paths.push(format!("/proc/self/{name}"));
    }
    for path in paths {
        if let Ok(text) = fs::read_to_string(&path) {
            // This one is the same in every process and on every machine.
            let lines = text.lines().filter(|line| !line.contains("[vsyscall]"));
            found.push((path, lines.collect::<Vec<_>>().join("\n")));
        }
    }
    ensure("nothing in /proc", found.len() > 3)?;
    Ok(found)
}

/// Loads the module, and has a device open, mapped and touched.
fn used(setup: &Setup) -> Outcome<(Loaded, OwnedFd, Map)> {
    let loaded = Loaded::new(&setup.params)?;
    let fd = device::open(O_RDONLY)?;
    let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    map.touch();
    pread(&fd, 0, 1000)?;
    Ok((loaded, fd, map))
}

fn control(setup: &Setup) -> Outcome {
    let (_loaded, fd, _map) = used(setup)?;
    let secrets = Secrets::new(setup)?;
    // The walk tells root the truth: the kernel's own list of areas has it.
    let buffer = secrets.areas[0].start;
    let listed = fs::read_to_string("/proc/vmallocinfo")?;
    let ours = listed
        .lines()
        .find(|line| line.contains(&format!("{buffer:#018x}-")));
    ensure(
        format!("{buffer:#x} is not in /proc/vmallocinfo"),
        ours.is_some(),
    )?;
    for place in ["/proc/vmallocinfo", "/proc/kallsyms", "/proc/modules"] {
        let text = fs::read_to_string(place)?;
        let is_ours =
            |line: &str| line.contains("map_driver") || line.contains(&format!("{buffer:x}"));
        let ours: Vec<&str> = text.lines().filter(|line| is_ours(line)).collect();
        let found = secrets.addresses(&ours.join("\n"));
        ensure(format!("nothing found in {place}"), !found.is_empty())?;
    }
    let starts = secrets.areas.iter().map(|area| area.start);
    for value in starts.chain([0xffff_8880_0000_1000]) {
        for text in [
            format!("at {value:x}"),
            format!("<{value:#X}>"),
            format!("n={value},"),
            format!("({})", value as i64),
            format!("[{value:016x}]"),
        ] {
            ensure(
                format!("not found: {text}"),
                !secrets.addresses(&text).is_empty(),
            )?;
        }
        for shift in 0..9 {
            let mut bytes = vec![0u8; shift];
            bytes.extend(value.to_ne_bytes());
            bytes.extend([0; 9]);
            ensure(
                format!("not found: {bytes:x?}"),
                !secrets.raw(&bytes).is_empty(),
            )?;
        }
    }
    for frame in &secrets.frames {
        for text in [
            frame.to_string(),
            format!("{frame:x}"),
            format!("{:#x}", frame << 12),
        ] {
            ensure(
                format!("not found: frame {text}"),
                !secrets.frames(&text).is_empty(),
            )?;
        }
    }
    // And it does not find what is harmless.
    let harmless = "map_driver 1048576 7f1234567000-7f1234568000 -1 f00 18374686479671623679";
    equal("in harmless words", secrets.addresses(harmless), Vec::new())?;
    equal(
        "in small words",
        secrets.raw(&[1, 0, 0, 0, 0, 0, 0, 0xfe, 3]),
        Vec::new(),
    )?;
    // What only root may know of a walk would be found as well.
    let walk = device::walk(&fd, 0)?;
    ensure("a frame", secrets.frames.contains(&walk.pfn))
}

fn log(setup: &Setup) -> Outcome {
    let log = Log::from_now()?;
    let (loaded, fd, map) = used(setup)?;
    let secrets = Secrets::new(setup)?;
    fs::write(format!("{DEBUGFS}/mapdrv0/trace"), "1")?;
    let mut lines = Vec::new();
    for _ in 0..100 {
        map.advise(0, map.len, libc::MADV_DONTNEED)?;
        map.touch();
        lines.append(&mut log.lines()?);
        if lines.iter().any(|line| line.contains(" fault in page ")) {
            break;
        }
        // Others may have used up what may be logged in a while.
        thread::sleep(Duration::from_millis(200));
    }
    // What is refused may be logged, too.
    let _ = device::walk(&fd, u64::MAX);
    let _ = Map::new(&fd, 1 << 40, PAGE, PROT_READ, MAP_SHARED);
    drop((map, fd));
    loaded.unload()?;
    let _ = module::insert(module::NAME, "size=0");
    let _ = module::insert(module::NAME, "size=9000000000000000000");
    lines.append(&mut log.lines()?);
    let ours = lines
        .iter()
        .filter(|line| line.contains("map_driver: "))
        .count();
    ensure(format!("only {ours} lines"), ours >= 5)?;
    let traced = lines.iter().any(|line| line.contains(" fault in page "));
    ensure("no fault was traced", traced)?;
    // A kernel that checks kobjects logs where they are: hashed, had it not been told otherwise.
    lines.retain(|line| !line.starts_with("kobject: "));
    for line in &lines {
        secrets.check("in the log", line)?;
        let frames = secrets.frames(&line.replace(['(', ')'], " "));
        // Sizes and counts are few, and given.
        let hidden = frames
            .iter()
            .filter(|word| !line.contains("page") || word.len() > 5);
        equal(
            "frames in the log",
            hidden.collect::<Vec<_>>(),
            Vec::<&String>::new(),
        )?;
    }
    Ok(())
}

fn root(setup: &Setup) -> Outcome {
    let (_loaded, fd, _map) = used(setup)?;
    let secrets = Secrets::new(setup)?;
    let mut found = files(&SYSFS);
    found.extend(files(&[DEBUGFS]));
    found.extend(own_proc(&fd)?);
    for wanted in ["/stats", "/trace", "/faults", "/refcnt", "/uevent"] {
        let there = found.iter().any(|(path, _)| path.ends_with(wanted));
        ensure(format!("{wanted} was not read"), there)?;
    }
    for (path, text) in found {
        secrets.check(&path, &text)?;
    }
    let bytes = answers(&fd, setup, &[IOC_NR_INFO, IOC_NR_STATS])?;
    equal("in answers", secrets.raw(&bytes), Vec::new())
}

fn nobody(setup: &Setup) -> Outcome {
    let (_loaded, _, _) = used(setup)?;
    let mut secrets = Secrets::new(setup)?;
    process::in_child(|| {
        process::become_nobody()?;
        let fd = device::open(O_RDONLY)?;
        let map = Map::new(&fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
        map.touch();
        secrets.publish(&fd)?;
        let mut found = files(&SYSFS);
        let sections = Path::new("/sys/module/map_driver/sections/.text");
        ensure(
            "nobody can read where sections are",
            fs::read(sections).is_err(),
        )?;
        let fdinfo = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let fdinfo = fs::read_to_string(fdinfo)?;
        // What counts only for this opener is published there, and in the opener's own words.
        let ours = fdinfo.lines().skip_while(|line| !line.starts_with("size:"));
        for line in ours.clone() {
            secrets
                .known
                .extend(numbers(line).map(|(_, number)| number.to_owned()));
        }
        ensure("fdinfo has more than it should", ours.count() == 3)?;
        for name in [
            "devices",
            "modules",
            "kallsyms",
            "misc",
            "iomem",
            "vmallocinfo",
        ] {
            let text = fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains("map"));
            let ours = lines.filter(|line| line.contains("mapdrv") || line.contains("map_driver"));
            found.push((format!("/proc/{name}"), ours.collect::<Vec<_>>().join("\n")));
        }
        for (path, text) in &found {
            secrets.check(path, text)?;
            if path.contains("/mapdrv/") {
                equal(
                    format!("frames in {path}"),
                    secrets.frames(text),
                    Vec::new(),
                )?;
            }
        }
        equal("frames in fdinfo", secrets.frames(&fdinfo), Vec::new())?;
        for (path, text) in own_proc(&fd)? {
            secrets.check(&path, &text)?;
        }
        let bytes = answers(&fd, setup, &[IOC_NR_INFO, IOC_NR_STATS, IOC_NR_WALK])?;
        equal("in answers", secrets.raw(&bytes), Vec::new())?;
        for page in 0..setup.pages() {
            let offset = (page * PAGE) as u64;
            let walk = device::walk(&fd, offset)?;
            let silent = Walk {
                levels: walk
                    .levels
                    .map(|level| crate::uapi::WalkLevel { index: 0, ..level }),
                pfn: 0,
                ..walk
            };
            equal(format!("walk of page {page}"), walk, silent)?;
        }
        Ok(())
    })
}

fn debugfs(setup: &Setup) -> Outcome {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let (_loaded, _fd, _map) = used(setup)?;
    let top = "/sys/kernel/debug";
    let before = fs::metadata(top)?.permissions();
    for entry in fs::read_dir(format!("{DEBUGFS}/mapdrv0"))? {
        let path = entry?.path();
        let file = fs::metadata(&path)?;
        equal(
            format!("{} is root's", path.display()),
            (file.uid(), file.gid()),
            (0, 0),
        )?;
        equal(
            format!("{} for others", path.display()),
            file.mode() & 0o177,
            0,
        )?;
    }
    let look = || {
        process::in_child(|| {
            process::become_nobody()?;
            equal("files read", files(&[DEBUGFS]).len(), 0)
        })
    };
    look()?;
    fs::set_permissions(top, fs::Permissions::from_mode(0o755))?;
    let found = look().and_then(|()| {
        process::in_child(|| {
            super::become_user(NOBODY, NOBODY, &[], 0)?;
            let seen = fs::read_dir(format!("{DEBUGFS}/mapdrv0"))?.count();
            ensure("nobody has come so far", seen > 0)?;
            let trace = format!("{DEBUGFS}/mapdrv0/trace");
            ensure("nobody can write to trace", fs::write(trace, "1").is_err())
        })
    });
    fs::set_permissions(top, before)?;
    found
}

fn file(setup: &Setup) -> Outcome {
    let _loaded = Loaded::new(&setup.params)?;
    let secrets = Secrets::new(setup)?;
    let bytes = fs::read("map_driver.ko")?;
    let text = |byte: &u8| (b' '..=b'~').contains(byte);
    let strings: Vec<&str> = bytes
        .split(|byte| !text(byte))
        .filter_map(|run| std::str::from_utf8(run).ok())
        .filter(|run| run.len() >= 4)
        .collect();
    for wanted in ["license=GPL", "description=Maps"] {
        let there = strings.iter().any(|string| string.contains(wanted));
        ensure(format!("no {wanted}"), there)?;
    }
    for string in strings {
        secrets.check("in the module's file", string)?;
    }
    Ok(())
}

fn pagemap(setup: &Setup) -> Outcome {
    let (_loaded, _fd, map) = used(setup)?;
    let known = map.pfn(0)?;
    ensure(
        "root's pagemap has none",
        known.is_some_and(|frame| frame != 0),
    )?;
    process::in_child(|| {
        process::become_nobody()?;
        map.touch();
        for page in 0..map.pages() {
            equal(format!("page {page}"), map.pfn(page)?, Some(0))?;
        }
        // Nor is there another way to ask.
        for path in [
            "/proc/kpageflags",
            "/proc/kpagecount",
            "/proc/kcore",
            "/dev/mem",
        ] {
            ensure(
                format!("{path} can be opened"),
                sys::open(path, O_RDONLY).is_err(),
            )?;
        }
        // SAFETY: No pointers.
        equal("user", check(unsafe { libc::getuid() })?, NOBODY.into())
    })
}
