// SPDX-License-Identifier: GPL-2.0

//! Many at once: each race by itself, for a number of rounds. What breaks here often breaks the
//! kernel, which the machine's log tells.

pub mod cpus;
pub mod fault;
pub mod kill;
pub mod memory;
pub mod mixed;
pub mod oom;
pub mod unload;

use crate::check::{Outcome, equal, same_bytes, wrong};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, Map, O_RDWR, RW};
use crate::uapi::{HEADER_LEN, Stats};
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// How many rounds to go where `n` do for one run.
fn rounds(n: usize) -> usize {
    n * process::times() as usize
}

/// The same for rounds that unload the driver. Where the kernel frees its objects late, to catch who
/// still uses them, each takes seconds.
fn loads(n: usize) -> usize {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let late = symbols.contains(" kobject_delayed_cleanup\n");
    rounds(if late { n.div_ceil(8) } else { n })
}

/// A generator of numbers, another sequence each time: no race can be had twice.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let mut seed = 0u64;
        // SAFETY: The buffer is as long as said.
        unsafe { libc::getrandom((&raw mut seed).cast(), 8, 0) };
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Waits for less than that long.
    fn pause(&mut self, micros: usize) {
        thread::sleep(Duration::from_micros(self.below(micros) as u64));
    }

    /// Some of `pages` pages that follow one another, as an offset and a length in bytes.
    fn piece(&mut self, pages: usize) -> (usize, usize) {
        let first = self.below(pages);
        let count = match self.below(3) {
            0 => 1,
            1 => (1 + self.below(64)).min(pages - first),
            _ => 1 + self.below(pages - first),
        };
        (first * PAGE, count * PAGE)
    }
}

/// What of a page is written here: the same bytes in every page.
const SCRATCH: std::ops::Range<usize> = 2048..2056;

/// Does `body` with device 0, and sees that the counters are consistent and the contents what they
/// were.
fn with_device(setup: &Setup, body: impl FnOnce(&OwnedFd) -> Outcome) -> Outcome {
    let fd = device::open(O_RDWR)?;
    body(&fd)?;
    let stats = settled(&fd)?;
    let found = (stats.open_files, stats.mappings, stats.faults_sigbus);
    equal("files, mappings, SIGBUSes in the end", found, (1, 0, 0))?;
    let expected = setup.pattern(0).all();
    let mut bytes = sys::pread(&fd, 0, expected.len())?;
    for (page, expected) in bytes.chunks_mut(PAGE).zip(expected.chunks(PAGE)) {
        if page.len() >= SCRATCH.end {
            page[SCRATCH].copy_from_slice(&expected[SCRATCH]);
        }
    }
    same_bytes("contents in the end", &bytes, &expected)
}

/// The counters, once those who are gone have let go of everything: the kernel may be late in that.
fn settled(fd: &impl AsRawFd) -> Outcome<Stats> {
    for _ in 0..500 {
        let stats = device::stats(fd)?;
        if (stats.open_files, stats.mappings) == (1, 0) {
            return Ok(stats);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(device::stats(fd)?)
}

/// The word of page `page` that is looked at. It is never zero.
fn word(setup: &Setup, page: usize) -> u64 {
    let bytes = setup.pattern(0).page(page as u64);
    u64::from_ne_bytes(bytes[LOOK..LOOK + 8].try_into().expect("8 bytes"))
}

/// That of every page.
fn words(setup: &Setup) -> Vec<u64> {
    (0..setup.pages()).map(|page| word(setup, page)).collect()
}

/// Where in a page that word is.
const LOOK: usize = HEADER_LEN + 64;

/// Addresses where mappings come and go, and that nobody else uses: the kernel chooses others.
///
/// Whoever touches a hole in it finds a page of zeroes there instead of an end.
#[derive(Clone, Copy)]
struct Place {
    addr: usize,
    len: usize,
    flags: c_int,
}

impl Place {
    /// Place number `number`, for all of a device, mapped with `flags`.
    fn new(setup: &Setup, number: usize, flags: c_int) -> io::Result<Self> {
        let place = Self {
            addr: START + number * APART,
            len: setup.span(),
            flags,
        };
        assert!(number < PLACES && place.len <= APART);
        // SAFETY: All zero is valid; the handler does only what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = fill_hole as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            sys::check(libc::sigaction(
                libc::SIGSEGV,
                &raw const action,
                std::ptr::null_mut(),
            ))?;
        }
        Ok(place)
    }

    /// Maps a piece of a device, where that is as far from the start as in the device.
    fn map(self, fd: &OwnedFd, (offset, len): (usize, usize)) -> io::Result<()> {
        let at = self.addr + offset;
        let flags = self.flags | libc::MAP_FIXED;
        std::mem::forget(Map::at(at, fd.as_raw_fd(), offset as u64, len, RW, flags)?);
        Ok(())
    }

    fn map_all(self, fd: &OwnedFd) -> io::Result<()> {
        self.map(fd, (0, self.len))
    }

    /// A piece as something that has methods. It is not unmapped when dropped.
    fn piece(self, (offset, len): (usize, usize)) -> std::mem::ManuallyDrop<Map> {
        let addr = self.addr + offset;
        std::mem::ManuallyDrop::new(Map { addr, len })
    }

    fn whole(self) -> std::mem::ManuallyDrop<Map> {
        self.piece((0, self.len))
    }

    /// Removes all that is there.
    fn clear(self) -> io::Result<()> {
        self.whole().unmap(0, self.len)
    }
}

const START: usize = 1 << 36;
const APART: usize = 1 << 30;
const PLACES: usize = 4;

/// On SIGSEGV: puts an empty page where nothing is.
extern "C" fn fill_hole(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: The kernel has filled it in.
    let addr = unsafe { (*info).si_addr() } as usize;
    // SAFETY: In a place nobody minds another page; calls are such as a handler may make.
    unsafe {
        if !(START..START + PLACES * APART).contains(&addr) {
            // It happens again, and is the end.
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            return;
        }
        let errno = *libc::__errno_location();
        let flags = sys::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let page = (addr & !(PAGE - 1)) as *mut c_void;
        if libc::mmap(page, PAGE, RW, flags, -1, 0) == libc::MAP_FAILED {
            // Somebody else has put something there; it may not be accessible yet.
            libc::sched_yield();
        }
        *libc::__errno_location() = errno;
    }
}

/// Reads pages of `places` at random until `done`; they are to be what the device has there, or
/// empty. Returns what is wrong.
fn look(words: &[u64], places: &[Place], done: &AtomicBool) -> Result<(), String> {
    let mut random = Random::new();
    while !done.load(Relaxed) {
        let place = places[random.below(places.len())];
        let page = random.below(words.len());
        let found = place.whole().get(page * PAGE + LOOK);
        if found != 0 && found != words[page] {
            return Err(format!(
                "page {page}: expected {:#x} or none, found {found:#x}",
                words[page]
            ));
        }
    }
    Ok(())
}

/// Goes through rounds of `disturb` while two threads look at all there is in `places`.
fn while_looking(
    setup: &Setup,
    places: &[Place],
    count: usize,
    mut disturb: impl FnMut(&mut Random) -> Outcome,
) -> Outcome {
    let words = words(setup);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| look(&words, places, &done)));
        let mut random = Random::new();
        let outcome = (0..rounds(count)).try_for_each(|_| disturb(&mut random));
        done.store(true, Relaxed);
        for reader in readers {
            reader
                .join()
                .map_err(|_| wrong("a thread panicked"))?
                .map_err(wrong)?;
        }
        outcome
    })?;
    places.iter().try_for_each(|place| Ok(place.clear()?))
}
