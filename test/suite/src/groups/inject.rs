// SPDX-License-Identifier: GPL-2.0

//! Failures on demand: of all the allocations and copies to and from user space that a call makes,
//! each is made to fail once.
//!
//! With `INJECT=N` in the environment, up to N allocations that follow it fail as well, and every
//! failure of loading is followed by a second try.

use crate::check::{Fail, Outcome, ensure, equal, same_bytes, wrong};
use crate::device::{self, Setup};
use crate::gup_test::{self, Pins};
use crate::module;
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{
    self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW, pread, pwrite,
};
use crate::uapi::Stats;
use libc::{EAGAIN, EFAULT, ENOMEM, c_int};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

tests! {
    "a failure in open changes nothing, and the next open succeeds": open,
    "so does one that finds no memory for its counters": open_percpu,
    "close has nothing to fail with": close,
    "a failure in mmap changes nothing, and the next mmap succeeds": mmap,
    "a failure in a page fault costs time, but no byte and no life": touch,
    "a failure in populating a mapping harms no page of it": populate,
    "a failure in reading is EFAULT or a short count, and no wrong byte": reads,
    "a failure in writing is EFAULT or a short count, and no wrong byte": writes,
    "a failure in splice moves nothing, or right bytes": splice,
    "a failure in an ioctl is EFAULT, and changes nothing": ioctls,
    "a failure in poll and epoll changes nothing": polls,
    "lseek has nothing to fail with": lseek,
    "a failure in fork leaves the mapping, and what is counted of it, alone": fork,
    "a failure in mremap leaves the mapping where it was": mremap,
    "a failure in munmap leaves all of the mapping": munmap,
    "a failure in mprotect leaves all of the mapping": mprotect,
    "a failure in process_vm_readv is an error or a short count, and no wrong byte": process_vm,
    "a failure in pinning pages for long leaves the mapping alone": pins,
    "a failure in reading debugfs, sysfs or fdinfo shows nothing wrong": files,
    "a failure in turning trace on or off leaves it as it was": trace,
    "after all these failures, no memory is lost": unreferenced,
}

/// How many more allocations are to fail, if there is time for it.
fn more() -> Option<u32> {
    std::env::var("INJECT").ok()?.parse().ok()
}

const DEBUG: &str = "/sys/kernel/debug";
const KINDS: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];

/// What makes the calls of this thread fail.
struct Injector {
    nth: OwnedFd,
    /// Allocations that fail after the first failure.
    more: u32,
}

impl Injector {
    fn new(more: u32) -> Outcome<Self> {
        if !fs::exists(format!("{DEBUG}/failslab"))? {
            return Err(Fail::Skip("this kernel cannot be made to fail".to_owned()));
        }
        let set = |kind: &str, name: &str, value: &str| {
            fs::write(format!("{DEBUG}/{kind}/{name}"), value)
        };
        for kind in KINDS {
            set(kind, "verbose", "0")?;
            set(kind, "task-filter", "Y")?;
            let copies = kind == "fail_usercopy";
            let probability = if more > 0 && !copies { "100" } else { "0" };
            set(kind, "probability", probability)?;
            if !copies {
                set(kind, "ignore-gfp-wait", "N")?;
            }
        }
        set("fail_page_alloc", "ignore-gfp-highmem", "N")?;
        set("fail_page_alloc", "min-order", "0")?;
        set("failslab", "cache-filter", "N")?;
        Ok(Self {
            nth: sys::open("/proc/thread-self/fail-nth", O_RDWR)?,
            more,
        })
    }

    /// Lets only allocations of objects fail, and copies; or only those of pages.
    ///
    /// How many pages a call allocates depends on what the caches of objects have left. Without them
    /// it is the same failure each time.
    fn only(&self, objects: bool) -> Outcome {
        let yes_no = if objects { "N" } else { "Y" };
        fs::write(format!("{DEBUG}/failslab/cache-filter"), yes_no)?;
        let order = if objects { "99" } else { "0" };
        Ok(fs::write(
            format!("{DEBUG}/fail_page_alloc/min-order"),
            order,
        )?)
    }

    /// Has the kernel print the stack of each failure to its log.
    fn verbose(&self) -> Outcome {
        for kind in KINDS {
            fs::write(format!("{DEBUG}/{kind}/verbose"), "2")?;
            let interval = format!("{DEBUG}/{kind}/verbose_ratelimit_interval_ms");
            fs::write(interval, "0")?;
        }
        Ok(())
    }

    /// Does `act` while its `n`th call that can fail does so. Returns how many calls were missing
    /// until that, too.
    fn fail<T>(&self, n: u32, act: impl FnOnce() -> T) -> Outcome<(u32, T)> {
        if self.more > 0 {
            for kind in &KINDS[..2] {
                fs::write(format!("{DEBUG}/{kind}/times"), self.more.to_string())?;
            }
            fs::write("/proc/thread-self/make-it-fail", "1")?;
        }
        let (nth, text) = (self.nth.as_raw_fd(), n.to_string());
        let mut left = [0u8; 16];
        // SAFETY: The buffers are as long as said. Reading and writing copies, so these calls may be
        // the ones that fail.
        let (armed, result, got) = unsafe {
            let armed = libc::pwrite(nth, text.as_ptr().cast(), text.len(), 0);
            let result = act();
            let got = libc::pread(nth, left.as_mut_ptr().cast(), left.len(), 0);
            libc::pwrite(nth, c"0".as_ptr().cast(), 1, 0);
            (armed, result, got)
        };
        if self.more > 0 {
            fs::write("/proc/thread-self/make-it-fail", "0")?;
        }
        equal("fail-nth", armed, text.len() as isize)?;
        let Ok(got) = usize::try_from(got) else {
            return Ok((1, result));
        };
        let left = String::from_utf8_lossy(&left[..got]);
        Ok((left.trim().parse().map_err(wrong)?, result))
    }
}

/// More failures than any call can meet.
const LIMIT: u32 = 20_000;

/// A walk along the failures of a call.
struct Walk<'a> {
    what: &'a str,
    /// What the call may fail with.
    errors: &'a [c_int],
    /// It is tried again after every so many failures.
    retry: u32,
    /// Each of these failures, and of the others only multiples of `stride`.
    closely: Range<u32>,
    stride: u32,
    /// The failure that is being tried.
    at: Rc<Cell<u32>>,
    injector: Injector,
    failures: u32,
    failed: BTreeMap<c_int, u32>,
}

impl<'a> Walk<'a> {
    fn new(what: &'a str, errors: &'a [c_int]) -> Outcome<Self> {
        Ok(Self {
            what,
            errors,
            retry: 1,
            closely: 1..LIMIT,
            stride: 1,
            at: Rc::default(),
            injector: Injector::new(more().unwrap_or(0))?,
            failures: 0,
            failed: BTreeMap::new(),
        })
    }

    /// Makes the first failure of `act` the only one, then the second, and so on until there is
    /// none left.
    ///
    /// `act` starts from what `prepare` returns. If it fails, `unchanged` checks that it has done
    /// nothing else; it is tried again and must succeed. `check` looks at what it has done; it is
    /// told whether something failed on the way all the same.
    fn run<S, T>(
        &mut self,
        mut prepare: impl FnMut() -> Outcome<S>,
        mut act: impl FnMut(&mut S) -> io::Result<T>,
        mut unchanged: impl FnMut(&S) -> Outcome,
        mut check: impl FnMut(S, T, bool) -> Outcome,
    ) -> Outcome {
        let (closely, stride) = (self.closely.clone(), self.stride);
        for n in (1..LIMIT).filter(|n| closely.contains(n) || n % stride == 0) {
            self.at.set(n);
            let place = |fail| match fail {
                Fail::Wrong(text) => Fail::Wrong(format!("{}, failure {n}: {text}", self.what)),
                skip => skip,
            };
            let mut state = prepare().map_err(place)?;
            let (left, result) = self.injector.fail(n, || act(&mut state)).map_err(place)?;
            let injected = left == 0;

            let done = match result {
                Ok(done) => Some((done, injected)),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    if !injected || !self.errors.contains(&errno) {
                        let why = if injected {
                            ""
                        } else {
                            ", though nothing failed"
                        };
                        return Err(place(wrong(format!("{error}{why}"))));
                    }
                    *self.failed.entry(errno).or_default() += 1;
                    unchanged(&state).map_err(place)?;
                    if n % self.retry == 0 {
                        let again = act(&mut state);
                        Some((again.map_err(|error| place(wrong(error)))?, false))
                    } else {
                        None
                    }
                }
            };
            if let Some((done, injected)) = done {
                check(state, done, injected).map_err(place)?;
            }
            if injected {
                self.failures += 1;
            } else if self.stride < LIMIT {
                self.report();
                return Ok(());
            }
        }
        self.report();
        let some = self.stride == LIMIT;
        ensure(format!("{}: it never succeeds", self.what), some)
    }

    fn report(&self) {
        let failed: Vec<String> = self
            .failed
            .iter()
            .map(|(&errno, times)| format!("{times}: {}", io::Error::from_raw_os_error(errno)))
            .collect();
        let (what, failures) = (self.what, self.failures);
        println!("  # {what}: {failures} failures; {}", failed.join(", "));
    }
}

/// The device, from the side.
struct Control {
    fd: OwnedFd,
    expected: Vec<u8>,
    span: usize,
    before: Stats,
}

impl Control {
    fn new(setup: &Setup) -> Outcome<Self> {
        let fd = device::open(O_RDWR)?;
        let before = device::stats(&fd)?;
        let mut expected = setup.pattern(0).all();
        expected.resize(setup.span(), 0);
        Ok(Self {
            fd,
            expected,
            span: setup.span(),
            before,
        })
    }

    /// How many mappings and open files there are more than at first.
    fn counts(&self, mappings: u64, files: u64) -> Outcome {
        let now = device::stats(&self.fd)?;
        let more = (
            now.mappings - self.before.mappings,
            now.open_files - self.before.open_files,
        );
        equal("mappings and open files", more, (mappings, files))?;
        equal("SIGBUS", now.faults_sigbus, self.before.faults_sigbus)
    }

    /// All of a mapping is there, in one piece or several, and each piece is counted.
    fn whole(&self, map: &Map) -> Outcome {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let pieces = maps.lines().filter(|line| line.ends_with("/dev/mapdrv0"));
        self.counts(pieces.count() as u64, 0)?;
        self.same(map)
    }

    /// A mapping where there are no page tables yet.
    fn map_with(&self, flags: c_int) -> io::Result<Map> {
        Map::at(
            PLACE,
            self.fd.as_raw_fd(),
            0,
            self.span,
            RW,
            flags | libc::MAP_FIXED_NOREPLACE,
        )
    }

    fn map(&self, flags: c_int) -> Outcome<Map> {
        Ok(self.map_with(flags)?)
    }

    /// All of a mapping is as it should be.
    fn same(&self, map: &Map) -> Outcome {
        const PIECE: usize = 16 * PAGE;

        equal("bytes", map.len, self.span)?;
        for (number, piece) in self.expected.chunks(PIECE).enumerate() {
            let found = map.bytes(number * PIECE, piece.len());
            same_bytes(format!("piece {number} of the mapping"), &found, piece)?;
        }
        Ok(())
    }

    /// All of the device is as it should be.
    fn intact(&self) -> Outcome {
        let bytes = pread(&self.fd, 0, self.span)?;
        same_bytes("device", &bytes, &self.expected[..bytes.len()])
    }
}

/// Addresses far from all others.
const PLACE: usize = 1 << 40;
const OTHER_PLACE: usize = 1 << 41;

fn open(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let mut walk = Walk::new("open", &[ENOMEM, EFAULT])?;
    walk.run(
        || Ok(()),
        |()| device::open(O_RDWR),
        |()| control.counts(0, 0),
        |(), fd, _| {
            control.counts(0, 1)?;
            equal("size", device::info(&fd)?.size, setup.size)?;
            drop(fd);
            control.counts(0, 0)
        },
    )?;
    ensure(
        "open has nothing to fail with",
        walk.failed.contains_key(&ENOMEM),
    )
}

/// Room for a file's counters is in memory that each CPU has already, unless so many are allocated
/// that more is needed before the kernel's worker can provide it.
fn open_percpu(_: &Setup) -> Outcome {
    const FILES: usize = 4000;

    urgent()?;
    let limit = libc::rlimit {
        rlim_cur: FILES as u64 + 100,
        rlim_max: FILES as u64 + 100,
    };
    // SAFETY: The structure is valid for the call.
    sys::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    let mut files = Vec::with_capacity(FILES);
    let mut usual = u32::MAX;
    while files.len() < FILES {
        let before = percpu()?;
        let mut walk = Walk::new("open", &[ENOMEM, EFAULT])?;
        walk.run(
            || Ok(()),
            |()| device::open(O_RDWR),
            |()| Ok(()),
            |(), fd, _| {
                files.push(fd);
                Ok(())
            },
        )?;
        let failed = walk.failed.get(&ENOMEM).copied().unwrap_or(0);
        usual = usual.min(failed);
        // If nothing failed in between, it was the worker all the same.
        if percpu()? > before && failed > usual {
            println!(
                "  # file {}: {failed} x ENOMEM, usually {usual}",
                files.len()
            );
            return Ok(());
        }
    }
    Err(wrong("there was always room"))
}

/// Lets none of the kernel's workers run before this process sleeps.
fn urgent() -> Outcome {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: The structure is valid for the call.
    sys::check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) })?;
    Ok(())
}

/// How much memory, in KiB, is each CPU's own.
fn percpu() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Percpu:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    size.ok_or_else(|| wrong("no Percpu in meminfo"))
}

fn close(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    Walk::new("close", &[])?.run(
        || Ok(device::open(O_RDWR)?.into_raw_fd()),
        // SAFETY: The descriptor is this test's.
        |&mut fd| sys::check(unsafe { libc::close(fd) }),
        |_| Ok(()),
        |_, _, _| control.counts(0, 0),
    )
}

fn mmap(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    for (what, flags) in [("mmap, shared", MAP_SHARED), ("mmap, private", MAP_PRIVATE)] {
        let mut walk = Walk::new(what, &[ENOMEM])?;
        walk.run(
            || Ok(()),
            |()| control.map_with(flags),
            |()| control.counts(0, 0),
            |(), map, _| {
                control.counts(1, 0)?;
                control.same(&map)
            },
        )?;
        ensure(
            "mmap has nothing to fail with",
            walk.failed.contains_key(&ENOMEM),
        )?;
    }
    control.counts(0, 0)
}

fn touch(setup: &Setup) -> Outcome {
    const WORD: u64 = 0x0123_4567_89ab_cdef;

    let control = Control::new(setup)?;
    let old = u64::from_ne_bytes(control.expected[..8].try_into().expect("eight bytes"));
    // How many pages a fault has mapped.
    let mut installed = BTreeMap::<u64, u32>::new();
    for (what, flags, write) in [
        ("touch, shared", MAP_SHARED, false),
        ("touch, private", MAP_PRIVATE, false),
        ("write, shared", MAP_SHARED, true),
        ("write, private", MAP_PRIVATE, true),
    ] {
        // A fault that runs out of memory is taken again.
        let mut walk = Walk::new(what, &[])?;
        walk.run(
            || {
                Ok((
                    control.map(flags)?,
                    device::stats(&control.fd)?.pages_installed,
                ))
            },
            |(map, _)| {
                if write {
                    map.put(0, WORD);
                }
                Ok(map.get(0))
            },
            |_| Ok(()),
            |(map, before), word, _| {
                let pages = device::stats(&control.fd)?.pages_installed - before;
                if flags == MAP_SHARED {
                    *installed.entry(pages).or_default() += 1;
                }
                if write {
                    equal("what was written", word, WORD)?;
                    let here = u64::from_ne_bytes(
                        pread(&control.fd, 0, 8)?.try_into().expect("eight bytes"),
                    );
                    equal("device", here, if flags == MAP_SHARED { WORD } else { old })?;
                    map.put(0, old);
                }
                equal("contents", map.get(0), old)?;
                control.same(&map)
            },
        )?;
        ensure("a fault has nothing to fail with", walk.failures > 0)?;
    }
    println!("  # pages mapped by a fault, and how often: {installed:?}");
    // A window for which there is no page table is given up, but for the page that is missing.
    let info = device::info(&control.fd)?;
    if info.mode == crate::uapi::MODE_VMALLOC {
        ensure(
            "no fault was served by one page",
            installed.contains_key(&1),
        )?;
        let window = info.fault_around / PAGE as u64;
        ensure(
            "no fault was served by a window",
            installed.contains_key(&window),
        )?;
    }
    control.counts(0, 0)
}

fn populate(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    // A process that writes takes a page of its own for each of a private mapping.
    let many = setup.pages() > 100;
    for (what, flags) in [
        ("MAP_POPULATE, shared", MAP_SHARED),
        ("MAP_POPULATE, private", MAP_PRIVATE),
    ] {
        if flags == MAP_PRIVATE && many {
            continue;
        }
        let mut walk = Walk::new(what, &[ENOMEM])?;
        walk.run(
            || Ok(()),
            |()| control.map_with(flags | libc::MAP_POPULATE),
            |()| control.counts(0, 0),
            |(), map, _| {
                control.counts(1, 0)?;
                control.same(&map)
            },
        )?;
    }
    for (what, advice) in [
        ("MADV_POPULATE_READ", libc::MADV_POPULATE_READ),
        ("MADV_POPULATE_WRITE", libc::MADV_POPULATE_WRITE),
    ] {
        for flags in [MAP_SHARED, MAP_PRIVATE] {
            if flags == MAP_PRIVATE && many {
                continue;
            }
            Walk::new(what, &[ENOMEM])?.run(
                || control.map(flags),
                |map| map.advise(0, map.len, advice),
                |map| control.same(map),
                |map, (), _| control.same(&map),
            )?;
        }
    }
    Walk::new("mlock", &[ENOMEM, EAGAIN])?.run(
        || control.map(MAP_SHARED),
        // SAFETY: The place is ours.
        |map| sys::check(unsafe { libc::mlock(map.addr as *const _, map.len) }),
        |map| control.same(map),
        |map, _, _| control.same(&map),
    )?;
    control.counts(0, 0)
}

/// What no device has.
const NOTHING: u8 = 0xa5;

/// Pieces that a buffer is read to and written from.
fn pieces(buffer: &mut [u8]) -> [libc::iovec; 3] {
    let third = buffer.len() / 3;
    let start = buffer.as_mut_ptr();
    [0, 1, 2].map(|piece| libc::iovec {
        iov_base: start.wrapping_add(piece * third).cast(),
        iov_len: third,
    })
}

type Transfer = fn(&OwnedFd, &mut [u8]) -> isize;

fn reads(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let calls: [(&str, Transfer); 3] = [
        // SAFETY: The buffer is as long as said.
        ("read", |fd, buffer| unsafe {
            libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
        }),
        // SAFETY: As above.
        ("pread", |fd, buffer| unsafe {
            libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        }),
        // SAFETY: As above, in pieces.
        ("readv", |fd, buffer| unsafe {
            libc::readv(fd.as_raw_fd(), pieces(buffer).as_ptr(), 3)
        }),
    ];
    for (what, call) in calls {
        let mut walk = Walk::new(what, &[EFAULT])?;
        walk.run(
            || Ok((device::open(O_RDONLY)?, vec![NOTHING; 3 * PAGE])),
            |(fd, buffer)| sys::count(call(fd, buffer)),
            |(fd, buffer)| {
                equal("position", sys::lseek(fd, 0, libc::SEEK_CUR)?, 0)?;
                ensure(
                    "something was read",
                    buffer.iter().all(|&byte| byte == NOTHING),
                )
            },
            |(fd, buffer), got, injected| {
                ensure(format!("{got} bytes"), got == buffer.len() || injected)?;
                let position = if what == "pread" { 0 } else { got };
                equal(
                    "position",
                    sys::lseek(&fd, 0, libc::SEEK_CUR)?,
                    position as i64,
                )?;
                same_bytes(what, &buffer[..got], &control.expected[..got])?;
                let rest = &buffer[got..];
                ensure("more was read", rest.iter().all(|&byte| byte == NOTHING))
            },
        )?;
        ensure(
            "reading has nothing to fail with",
            walk.failed.contains_key(&EFAULT),
        )?;
    }
    Ok(())
}

fn writes(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let calls: [(&str, Transfer); 3] = [
        // SAFETY: The buffer is as long as said.
        ("write", |fd, buffer| unsafe {
            libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len())
        }),
        // SAFETY: As above.
        ("pwrite", |fd, buffer| unsafe {
            libc::pwrite(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len(), 0)
        }),
        // SAFETY: As above, in pieces.
        ("writev", |fd, buffer| unsafe {
            libc::writev(fd.as_raw_fd(), pieces(buffer).as_ptr(), 3)
        }),
    ];
    for (what, call) in calls {
        let mut walk = Walk::new(what, &[EFAULT])?;
        walk.run(
            || {
                let generation = device::info(&control.fd)?.generation;
                Ok((device::open(O_RDWR)?, vec![NOTHING; 3 * PAGE], generation))
            },
            |(fd, buffer, _)| sys::count(call(fd, buffer)),
            |(fd, _, generation)| {
                equal(
                    "generation",
                    device::info(&control.fd)?.generation,
                    *generation,
                )?;
                equal("position", sys::lseek(fd, 0, libc::SEEK_CUR)?, 0)?;
                control.intact()
            },
            |(fd, buffer, before), got, injected| {
                ensure(format!("{got} bytes"), got == buffer.len() || injected)?;
                equal(
                    "generation",
                    device::info(&control.fd)?.generation,
                    before + 1,
                )?;
                let position = if what == "pwrite" { 0 } else { got };
                equal(
                    "position",
                    sys::lseek(&fd, 0, libc::SEEK_CUR)?,
                    position as i64,
                )?;
                same_bytes(what, &pread(&fd, 0, got)?, &buffer[..got])?;
                equal("restored", pwrite(&fd, 0, &control.expected[..got])?, got)?;
                control.intact()
            },
        )?;
        ensure(
            "writing has nothing to fail with",
            walk.failed.contains_key(&EFAULT),
        )?;
    }
    Ok(())
}

fn splice(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let mut walk = Walk::new("splice", &[ENOMEM, EFAULT])?;
    walk.run(
        || {
            let mut ends = [0; 2];
            // SAFETY: There is room for both ends, which are ours.
            let ends = unsafe {
                sys::check(libc::pipe(ends.as_mut_ptr()))?;
                ends.map(|end| OwnedFd::from_raw_fd(end))
            };
            Ok((device::open(O_RDONLY)?, ends))
        },
        |(from, [_, into])| {
            let (from, into, none) = (from.as_raw_fd(), into.as_raw_fd(), ptr::null_mut());
            // SAFETY: No pointers.
            sys::count(unsafe { libc::splice(from, none, into, none, 2 * PAGE, 0) })
        },
        |(from, _)| equal("position", sys::lseek(from, 0, libc::SEEK_CUR)?, 0),
        |(from, [out, into]), got, _| {
            ensure("nothing was moved", got > 0)?;
            equal(
                "position",
                sys::lseek(&from, 0, libc::SEEK_CUR)?,
                got as i64,
            )?;
            drop(into);
            let bytes = sys::read_all(&out, PAGE)?;
            same_bytes("splice", &bytes, &control.expected[..got])
        },
    )?;
    ensure(
        "splice has nothing to fail with",
        walk.failed.contains_key(&ENOMEM),
    )
}

fn events(fd: &impl AsRawFd) -> io::Result<i16> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN | libc::POLLPRI,
        revents: 0,
    };
    // SAFETY: The structure is valid for the call.
    sys::check(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    Ok(poll.revents)
}

fn ioctls(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    // Whoever was not told of a write must be told of it later.
    let mut walk = Walk::new("ioctl INFO", &[EFAULT])?;
    walk.run(
        || {
            let fd = device::open(O_RDONLY)?;
            pwrite(&control.fd, 0, &control.expected[..1])?;
            Ok(fd)
        },
        |fd| device::info(fd),
        |fd| equal("events", events(fd)?, libc::POLLIN | libc::POLLPRI),
        |fd, info, _| {
            equal("events", events(&fd)?, libc::POLLIN)?;
            equal("size", info.size, setup.size)?;
            equal("generation", info.generation, device::info(&fd)?.generation)
        },
    )?;
    ensure(
        "INFO has nothing to fail with",
        walk.failed.contains_key(&EFAULT),
    )?;
    let expected = device::walk(&control.fd, 1)?;
    Walk::new("ioctl WALK", &[EFAULT])?.run(
        || Ok(()),
        |()| device::walk(&control.fd, 1),
        |()| Ok(()),
        |(), walk, _| equal("walk", walk, expected),
    )?;
    let expected = device::stats(&control.fd)?;
    Walk::new("ioctl STATS", &[EFAULT])?.run(
        || Ok(()),
        |()| device::stats(&control.fd),
        |()| Ok(()),
        |(), stats, _| equal("stats", stats, expected),
    )
}

fn polls(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let mut walk = Walk::new("poll", &[ENOMEM, EFAULT])?;
    walk.run(
        || Ok(()),
        |()| events(&control.fd),
        |()| Ok(()),
        |(), events, _| equal("events", events & libc::POLLIN, libc::POLLIN),
    )?;
    ensure("poll has nothing to fail with", walk.failures > 0)?;
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 7,
    };
    Walk::new("epoll_ctl", &[ENOMEM, EFAULT])?.run(
        || {
            // SAFETY: No pointers; the descriptor is ours.
            let set = unsafe { OwnedFd::from_raw_fd(sys::check(libc::epoll_create1(0))? as c_int) };
            Ok((set, device::open(O_RDONLY)?))
        },
        // SAFETY: The event is valid for the call.
        |(set, fd)| {
            sys::check(unsafe {
                let (set, fd) = (set.as_raw_fd(), fd.as_raw_fd());
                libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event)
            })
        },
        |_| control.counts(0, 1),
        |(set, fd), _, _| {
            let mut found = MaybeUninit::<libc::epoll_event>::uninit();
            // SAFETY: There is room for one event.
            let got =
                sys::check(unsafe { libc::epoll_wait(set.as_raw_fd(), found.as_mut_ptr(), 1, 0) })?;
            equal("events", got, 1)?;
            drop(fd);
            control.counts(0, 0)
        },
    )
}

fn lseek(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    Walk::new("lseek", &[])?.run(
        || Ok(()),
        |()| sys::lseek(&control.fd, 0, libc::SEEK_END),
        |()| Ok(()),
        |(), at, _| equal("position", at, setup.size as i64),
    )
}

fn fork(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    for (what, flags) in [("fork, shared", MAP_SHARED), ("fork, private", MAP_PRIVATE)] {
        let mut walk = Walk::new(what, &[ENOMEM, EAGAIN])?;
        walk.run(
            || {
                let map = control.map(flags)?;
                // A page of the process's own, if private.
                map.put(0, map.get(0));
                map.touch();
                Ok(map)
            },
            |map| process::fork(|| i32::from(control.same(map).is_err())),
            |map| {
                control.counts(1, 0)?;
                control.same(map)
            },
            |map, pid, _| {
                equal("the child's status", process::wait(pid)?, 0)?;
                control.counts(1, 0)?;
                control.same(&map)
            },
        )?;
        ensure(
            "fork has nothing to fail with",
            walk.failed.contains_key(&ENOMEM),
        )?;
    }
    control.counts(0, 0)
}

fn mremap(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        let mut walk = Walk::new("mremap, moving", &[ENOMEM, EFAULT])?;
        walk.run(
            || {
                let map = control.map(flags)?;
                map.touch();
                Ok(map)
            },
            |map| {
                let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                map.remap(map.len, how, OTHER_PLACE)
            },
            |map| {
                equal("place", map.addr, PLACE)?;
                control.counts(1, 0)?;
                control.same(map)
            },
            |map, (), _| {
                equal("place", map.addr, OTHER_PLACE)?;
                control.counts(1, 0)?;
                control.same(&map)?;
                ensure(
                    "something is where it was",
                    Map::at(
                        PLACE,
                        -1,
                        0,
                        map.len,
                        PROT_READ,
                        MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                    )
                    .is_ok(),
                )
            },
        )?;
        ensure(
            "mremap has nothing to fail with",
            walk.failed.contains_key(&ENOMEM),
        )?;
    }
    Walk::new("mremap, shrinking", &[ENOMEM])?.run(
        || control.map(MAP_SHARED),
        |map| map.remap(PAGE, 0, 0),
        |map| {
            control.counts(1, 0)?;
            control.same(map)
        },
        |map, (), _| {
            control.counts(1, 0)?;
            same_bytes("first page", &map.bytes(0, PAGE), &control.expected[..PAGE])
        },
    )?;
    control.counts(0, 0)
}

fn munmap(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    Walk::new("munmap", &[ENOMEM])?.run(
        || {
            let map = control.map(MAP_SHARED)?;
            map.touch();
            Ok(map)
        },
        |map| map.unmap(0, map.len),
        |map| {
            control.counts(1, 0)?;
            control.same(map)
        },
        |_, (), _| control.counts(0, 0),
    )?;
    let mut walk = Walk::new("munmap in the middle", &[ENOMEM])?;
    walk.run(
        || {
            let map = control.map(MAP_SHARED)?;
            map.touch();
            Ok(map)
        },
        |map| map.unmap(2 * PAGE, PAGE),
        // What was split may stay so.
        |map| control.whole(map),
        |map, (), _| {
            control.counts(2, 0)?;
            same_bytes(
                "before",
                &map.bytes(0, 2 * PAGE),
                &control.expected[..2 * PAGE],
            )?;
            let rest = map.bytes(3 * PAGE, map.len - 3 * PAGE);
            same_bytes("after", &rest, &control.expected[3 * PAGE..])
        },
    )?;
    ensure(
        "a split has nothing to fail with",
        walk.failed.contains_key(&ENOMEM),
    )?;
    control.counts(0, 0)
}

fn mprotect(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let mut walk = Walk::new("mprotect in the middle", &[ENOMEM])?;
    walk.run(
        || control.map(MAP_PRIVATE),
        |map| map.protect(2 * PAGE, PAGE, PROT_READ),
        |map| control.whole(map),
        |map, (), _| {
            control.counts(3, 0)?;
            control.same(&map)
        },
    )?;
    ensure(
        "a split has nothing to fail with",
        walk.failed.contains_key(&ENOMEM),
    )?;
    control.counts(0, 0)
}

fn process_vm(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let mut walk = Walk::new("process_vm_readv", &[ENOMEM, EFAULT])?;
    walk.run(
        || Ok((control.map(MAP_SHARED)?, vec![NOTHING; 3 * PAGE])),
        |(map, buffer)| {
            let there = libc::iovec {
                iov_base: map.addr as *mut _,
                iov_len: buffer.len(),
            };
            // SAFETY: The process is this one; both places are as long as said.
            sys::count(unsafe {
                let pid = libc::getpid();
                libc::process_vm_readv(pid, pieces(buffer).as_ptr(), 3, &raw const there, 1, 0)
            })
        },
        |(map, _)| control.same(map),
        |(map, buffer), got, injected| {
            ensure(format!("{got} bytes"), got == buffer.len() || injected)?;
            same_bytes("read", &buffer[..got], &control.expected[..got])?;
            control.same(&map)
        },
    )?;
    ensure(
        "process_vm_readv has nothing to fail with",
        walk.failures > 0,
    )
}

fn pins(setup: &Setup) -> Outcome {
    gup_test::there()?;
    let control = Control::new(setup)?;
    for flags in [MAP_PRIVATE, MAP_SHARED] {
        let mut walk = Walk::new("pin", &[ENOMEM, EFAULT])?;
        walk.run(
            || {
                let map = control.map(flags)?;
                map.touch();
                Ok((map, Pins::new()?))
            },
            |(map, pins)| pins.pin(map.addr, 2 * PAGE, false),
            |(map, _)| control.same(map),
            |(map, pins), (), _| {
                control.same(&map)?;
                Ok(pins.unpin()?)
            },
        )?;
        ensure(
            "pinning has nothing to fail with",
            walk.failed.contains_key(&ENOMEM),
        )?;
    }
    control.counts(0, 0)
}

/// Reads all of a file that fits the buffer.
fn slurp(path: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: The path is a C string; the descriptor is ours; the buffer is as long as said.
    unsafe {
        let fd = sys::check(libc::open(path.as_ptr(), O_RDONLY | libc::O_CLOEXEC))?;
        let fd = OwnedFd::from_raw_fd(fd as c_int);
        sys::count(libc::read(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        ))
    }
}

const TRACE: &CStr = c"/sys/kernel/debug/mapdrv/mapdrv0/trace";

fn files(setup: &Setup) -> Outcome {
    let control = Control::new(setup)?;
    let fdinfo = std::ffi::CString::new(format!("/proc/self/fdinfo/{}", control.fd.as_raw_fd()));
    let fdinfo = fdinfo.expect("no zero in it");
    for path in [
        c"/sys/kernel/debug/mapdrv/mapdrv0/stats",
        TRACE,
        c"/sys/class/mapdrv/mapdrv0/size",
        c"/sys/class/mapdrv/mapdrv0/pages_installed",
        c"/sys/class/mapdrv/mapdrv0/dev",
        &fdinfo,
    ] {
        let what = path.to_string_lossy();
        let mut buffer = [0; 4096];
        let len = slurp(path, &mut buffer)?;
        let expected = buffer[..len].to_vec();
        ensure(format!("{what} is empty"), len > 0)?;
        for objects in [true, false] {
            let mut walk = Walk::new(&what, &[ENOMEM, EFAULT])?;
            walk.injector.only(objects)?;
            walk.run(
                || Ok([0; 4096]),
                |buffer| slurp(path, buffer),
                |_| Ok(()),
                |buffer, got, _| same_bytes(&*what, &buffer[..got], &expected),
            )?;
            // The pages that are needed differ from one time to the next, and so do their failures.
            ensure(
                format!("{what} has nothing to fail with"),
                walk.failed.len() == 2 || !objects,
            )?;
        }
    }
    Ok(())
}

fn trace(_: &Setup) -> Outcome {
    let state = || -> Outcome<u8> {
        let mut buffer = [0; 16];
        slurp(TRACE, &mut buffer)?;
        Ok(buffer[0])
    };
    // SAFETY: The byte is valid for the call.
    let put = |fd: &OwnedFd, byte: u8| {
        sys::count(unsafe { libc::write(fd.as_raw_fd(), (&raw const byte).cast(), 1) })
    };
    for value in [b'1', b'0'] {
        let mut walk = Walk::new("trace", &[ENOMEM, EFAULT])?;
        let other = b'0' + b'1' - value;
        walk.run(
            || {
                let fd = sys::open(&TRACE.to_string_lossy(), libc::O_WRONLY)?;
                equal("written", put(&fd, other)?, 1)?;
                Ok(fd)
            },
            |fd| put(fd, value),
            |_| equal("trace", state()?, other),
            |_, _, _| equal("trace", state()?, value),
        )?;
        ensure(
            "trace has nothing to fail with",
            walk.failed.contains_key(&EFAULT),
        )?;
    }
    Ok(())
}

/// The leak detector knows of nothing that was lost.
fn unreferenced(_: &Setup) -> Outcome {
    const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

    if !fs::exists(KMEMLEAK)? {
        return Err(Fail::Skip("this kernel has no kmemleak".to_owned()));
    }
    // It passes over what is young.
    std::thread::sleep(std::time::Duration::from_secs(7));
    for _ in 0..2 {
        fs::write(KMEMLEAK, "scan")?;
    }
    let found = fs::read_to_string(KMEMLEAK)?;
    ensure(format!("lost:\n{found}"), found.is_empty())
}

/// Loading and unloading.
pub mod load {
    use super::*;
    use crate::kmsg::Log;
    use std::ffi::CString;
    use std::fs::File;

    tests! {
        "a failure in loading leaves nothing behind, and the next load succeeds": insert,
        "a failure in unloading changes nothing, or nothing is left": remove,
        "after all these failures, no page is lost": pages,
        "after all these failures, no memory is lost": unreferenced,
    }

    struct Module {
        file: File,
        params: CString,
    }

    impl Module {
        fn new(setup: &Setup) -> Outcome<Self> {
            // The patience of tests is not for waits without end, but with failures there are many
            // short ones.
            //
            // SAFETY: No pointers.
            unsafe { libc::alarm(0) };
            Ok(Self {
                file: File::open(format!("{}.ko", module::NAME))?,
                params: CString::new(setup.params.as_str()).expect("no zero in it"),
            })
        }

        fn insert(&self) -> io::Result<()> {
            // SAFETY: The parameters are a C string.
            sys::check(unsafe {
                let (file, params) = (self.file.as_raw_fd(), self.params.as_ptr());
                libc::syscall(libc::SYS_finit_module, file, params, 0)
            })
            .map(drop)
        }
    }

    /// Nothing of the driver is there.
    fn gone() -> Outcome {
        let modules = fs::read_to_string("/proc/modules")?;
        ensure("it is listed", !modules.contains(module::NAME))?;
        equal("traces", module::traces()?, vec![])
    }

    /// All devices are there.
    fn there(setup: &Setup) -> Outcome {
        for minor in 0..setup.devices {
            let fd = sys::open(&device::path(minor), O_RDONLY)?;
            equal("minor", device::info(&fd)?.minor, minor)?;
            let len = PAGE.min(setup.size as usize);
            let expected = setup.pattern(minor).page(0);
            same_bytes("first page", &pread(&fd, 0, len)?, &expected[..len])?;
        }
        Ok(())
    }

    fn unload() -> Outcome {
        module::remove(module::NAME)?;
        gone()
    }

    /// Where failures were, by what the log says.
    struct Places {
        log: Log,
        /// Functions of the kernel's that the driver has called, and which failures were there.
        callees: BTreeMap<String, Vec<u32>>,
        /// How many failures the driver has put down to a device that could not be allocated.
        devices: u32,
    }

    impl Places {
        fn new() -> Outcome<Self> {
            Ok(Self {
                log: Log::from_now()?,
                callees: BTreeMap::new(),
                devices: 0,
            })
        }

        fn look(&mut self, n: u32) -> Outcome {
            let mut callee = None;
            for line in self.log.lines()? {
                if line.contains("forcing a failure") {
                    callee = Some(String::new());
                } else if line.contains("cannot allocate device") {
                    self.devices += 1;
                } else if let Some(inner) = &mut callee {
                    if line.ends_with("[map_driver]") {
                        self.callees.entry(inner.clone()).or_default().push(n);
                        callee = None;
                    } else if !line.trim_start().starts_with('?') {
                        *inner = line.split('+').next().unwrap_or_default().trim().to_owned();
                    }
                }
            }
            Ok(())
        }
    }

    /// The failures at which the driver begins: before them, the kernel loads any module so.
    fn start(module: &Module, injector: &Injector) -> Outcome<u32> {
        const MANY: u32 = 1_000_000;

        // With a parameter that the driver refuses, loading ends there.
        let refused = Module {
            file: module.file.try_clone()?,
            params: c"devices=0".to_owned(),
        };
        let mut start = MANY;
        // Caches may be empty the first time.
        for _ in 0..3 {
            let (left, result) = injector.fail(MANY, || refused.insert())?;
            ensure("devices=0 is accepted", result.is_err())?;
            start = start.min(MANY - left);
        }
        Ok(start)
    }

    /// Areas of the kernel's address space that folios are mapped to.
    fn areas() -> Outcome<usize> {
        let areas = fs::read_to_string("/proc/vmallocinfo")?;
        Ok(areas.matches("vm_map_ram").count())
    }

    /// Walks along the failures of loading that have been chosen, and looks where they are. Each load
    /// comes after one that went well, if `after_good`.
    fn walk(
        setup: &Setup,
        module: &Module,
        after_good: bool,
        walk: &mut Walk,
        places: &mut Places,
    ) -> Outcome {
        walk.injector.verbose()?;
        let at = walk.at.clone();
        let places = RefCell::new(places);
        walk.run(
            || {
                if after_good {
                    module.insert()?;
                    unload()?;
                }
                Ok(())
            },
            |()| module.insert(),
            |()| {
                places.borrow_mut().look(at.get())?;
                gone()
            },
            |(), (), _| {
                places.borrow_mut().look(at.get())?;
                there(setup)?;
                unload()
            },
        )
    }

    fn insert(setup: &Setup) -> Outcome {
        let module = Module::new(setup)?;
        let huge = setup.params.contains("huge=1");
        module.insert()?;
        unload()?;
        let before = areas()?;
        let mut places = Places::new()?;
        // Pages first: what is searched for again are objects.
        for objects in [false, true] {
            let what = if objects { "objects" } else { "pages" };
            let what = format!("finit_module, {what}");
            let mut pass = Walk::new(&what, &[ENOMEM, EFAULT])?;
            pass.injector.only(objects)?;
            if more().is_none() {
                // The kernel's own part of it is not looked at so closely.
                let start = start(&module, &pass.injector)?;
                let (less, more) = match (objects, huge) {
                    (true, false) => (40, 200),
                    (true, true) => (40, 30),
                    (false, false) => (10, 15),
                    (false, true) => (10, 30),
                };
                pass.closely = start.saturating_sub(less)..start + more;
                pass.stride = if huge { LIMIT } else { 32 };
                pass.retry = 16;
            }
            if objects {
                places.callees.clear();
            }
            walk(setup, &module, false, &mut pass, &mut places)?;
        }
        // In the order in which they are called.
        let names: &[&str] = if huge {
            &["kern_mount", "alloc_anon_inode", "vm_map_ram"]
        } else {
            &[
                "alloc_chrdev_region",
                "class_create",
                "device_create",
                "cdev_alloc",
                "cdev_add",
                "debugfs_create_dir",
                "debugfs_create_file_full",
            ]
        };
        // A load finds in the kernel's caches and trees what the one before has left, which may be an
        // allocation less, so some may have been passed over.
        for (number, name) in names.iter().enumerate() {
            for round in 0..8 {
                if places.callees.contains_key(*name) {
                    break;
                }
                let of = |names: &[&str]| -> Vec<u32> {
                    let found = names.iter().filter_map(|name| places.callees.get(*name));
                    found.flatten().copied().collect()
                };
                let (above, below) = (of(&names[number + 1..]), of(&names[..number]));
                let least = above.iter().min().copied();
                let most = below.iter().max().copied();
                let first = most.or(least.map(|least| least.saturating_sub(10)));
                let last = least.or(most.map(|most| most + 10));
                let (Some(first), Some(last)) = (first, last) else {
                    return Err(wrong("nothing of the driver's has failed"));
                };
                let mut pass = Walk::new("finit_module, again", &[ENOMEM, EFAULT])?;
                pass.injector.only(true)?;
                pass.closely = first.saturating_sub(3)..last + 4;
                (pass.stride, pass.retry) = (LIMIT, LIMIT);
                walk(setup, &module, round % 2 == 0, &mut pass, &mut places)?;
            }
            ensure(
                format!("{name} never failed; {:?}", places.callees),
                places.callees.contains_key(*name),
            )?;
        }
        let often = places.callees.iter().map(|(name, at)| (name, at.len()));
        println!("  # failures in: {:?}", often.collect::<Vec<_>>());
        equal("areas of folios", areas()?, before)?;
        ensure("no device failed", places.devices > 0)
    }

    fn remove(setup: &Setup) -> Outcome {
        let module = Module::new(setup)?;
        let mut walk = Walk::new("delete_module", &[ENOMEM, EFAULT])?;
        walk.run(
            || Ok(module.insert()?),
            |()| module::remove(module::NAME),
            |()| there(setup),
            |(), (), _| gone(),
        )
    }

    /// No page belongs to the driver any more.
    fn pages(_: &Setup) -> Outcome {
        const OWNERS: &str = "/sys/kernel/debug/page_owner_stacks/show_stacks";
        /// Those that the kernel keeps, for everyone: of slabs, of each CPU, of its own page tables
        /// and of those who watch it.
        const KEPT: [&str; 6] = [
            "allocate_slab",
            "pcpu_",
            "_alloc_kernel",
            "__pmd_alloc",
            "kasan_",
            "stack_depot_",
        ];

        if !fs::exists(OWNERS)? {
            return Err(Fail::Skip("this kernel keeps no page owners".to_owned()));
        }
        // A function of a module that is gone has an address, but no name.
        let unnamed = |line: &str| {
            let address = line.trim().strip_prefix("0x");
            address.is_some_and(|digits| digits >= "ffffffffa0000000")
        };
        let owners = fs::read_to_string(OWNERS)?;
        let lost: Vec<&str> = owners
            .split("\n\n")
            .filter(|stack| stack.lines().any(unnamed))
            .filter(|stack| !KEPT.iter().any(|name| stack.contains(name)))
            .collect();
        ensure(format!("lost:\n{}", lost.join("\n\n")), lost.is_empty())
    }
}
