// SPDX-License-Identifier: GPL-2.0

//! Doing operations, and knowing what they must do.
//!
//! An [`Exec`] is one actor: its descriptors, its arena (a range of addresses that nothing else is
//! ever mapped in) and what must be at each page of that. While it is the only actor, it also knows
//! every byte of the devices. Otherwise it knows which values a byte can have: the one it was loaded
//! with, and one for each salt that anybody writes with; pages that nobody has written are as
//! loaded.

mod files;
mod maps;
pub mod others;

use crate::kcov::Kcov;
use crate::seq::{Kind, Op};
use crate::sys::{self, Answer, PAGE};
use crate::world::{self, Board, SALTS, World};
use std::cell::Cell;
use std::fs::File;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// Fails with the sentence that says why the kernel has not done as it should.
pub type Outcome<T = ()> = Result<T, String>;

macro_rules! wrong {
    ($($text:tt)*) => { return Err(format!($($text)*)) };
}
use wrong;

/// Where the arena of the first actor starts: far from where the kernel puts anything by itself.
const ARENA: usize = 1 << 36;
/// Pages in an arena.
const PAGES: usize = 2560;
/// From one arena to the next.
const STRIDE: usize = 1 << 30;
const SLOTS: usize = 4;
/// Bytes in the buffer that is read into and written from; nothing is mapped behind it.
const SCRATCH: usize = 40 * PAGE;

/// In place of a minor: memory that is nobody's but this process's.
const ANON: u8 = 255;

const R: u8 = libc::PROT_READ as u8;
const W: u8 = libc::PROT_WRITE as u8;
const X: u8 = libc::PROT_EXEC as u8;

/// What is mapped at a page of the arena.
#[derive(Clone)]
struct Page {
    minor: u8,
    pgoff: u32,
    shared: bool,
    prot: u8,
    may_write: bool,
    inherited: bool,
    /// What a private page holds once it has been written.
    copy: Option<Box<[u8]>>,
}

/// An open file.
#[derive(Clone)]
struct Open {
    fd: i32,
    minor: usize,
    read: bool,
    write: bool,
    /// The position, which descriptors made by dup share.
    pos: Rc<Cell<usize>>,
    /// Whether the opener could see frame numbers.
    admin: bool,
    /// Whether it is good for more than its path.
    usable: bool,
}

pub struct Exec<'a> {
    world: &'a mut World,
    board: &'static Board,
    /// Whether others write at the same time.
    weak: bool,
    /// Whether others share the address space.
    threads: bool,
    number: usize,
    arena: usize,
    pages: Vec<Option<Page>>,
    slots: [Option<Open>; SLOTS],
    privileged: bool,
    scratch: usize,
    pagemap: File,
    verbose: bool,
    said: String,
}

impl<'a> Exec<'a> {
    pub fn new(world: &'a mut World, number: usize, weak: bool, threads: bool) -> Outcome<Self> {
        let board = world.board;
        let scratch = sys::memory(SCRATCH + 16 * PAGE, libc::MAP_PRIVATE).as_ptr() as usize;
        sys::forbid(scratch + SCRATCH, 16 * PAGE);
        let open = |path: &str| {
            File::options()
                .read(true)
                .write(path.ends_with("/mem"))
                .open(path)
                .map_err(|error| format!("{path}: {error}"))
        };
        Ok(Self {
            board,
            weak,
            threads,
            number,
            arena: ARENA + number * STRIDE,
            pages: vec![None; PAGES],
            slots: Default::default(),
            privileged: true,
            scratch,
            pagemap: open("/proc/self/pagemap")?,
            verbose: false,
            said: String::new(),
            world,
        })
    }

    /// A random range in the arena of an actor.
    pub fn somewhere(number: usize, rng: &mut crate::seq::Rng) -> (usize, usize) {
        let first = rng.below(PAGES);
        (
            ARENA + number * STRIDE + first * PAGE,
            1 + rng.below((PAGES - first).min(600)),
        )
    }

    /// Does all of it. What is wrong is on the board.
    pub fn run(mut self, ops: &[Op], kcov: Option<&Kcov>, verbose: bool) -> bool {
        self.verbose = verbose;
        let base = crate::kcov::base();
        if let Some(kcov) = kcov {
            kcov.enable();
        }
        let mut outcome = Ok(());
        for (i, op) in ops.iter().enumerate() {
            if self.board.failed.load(Relaxed) != 0 {
                return false;
            }
            self.board.at[self.number % 8].store(i as u32 + 1, Relaxed);
            outcome = self
                .step(op)
                .map_err(|text| format!("operation {} ({op}): {text}", i + 1));
            self.board.ops.fetch_add(1, Relaxed);
            if verbose {
                println!("#   {}. {op}: {}", i + 1, std::mem::take(&mut self.said));
            }
            if let Some(kcov) = kcov {
                kcov.harvest(base, self.board);
            }
            if outcome.is_err() {
                break;
            }
        }
        let outcome =
            outcome.and_then(|()| self.check().map_err(|text| format!("at the end: {text}")));
        if let Err(text) = outcome {
            self.board.fail(&text);
            return false;
        }
        true
    }

    fn step(&mut self, op: &Op) -> Outcome {
        let a = op.args;
        match op.kind {
            Kind::Open => self.open(a),
            Kind::Close => self.close(a),
            Kind::Dup => self.dup(a),
            Kind::Read => self.read(a),
            Kind::Write => self.write(a),
            Kind::Seek => self.seek(a),
            Kind::Poll => self.poll(a),
            Kind::Ioctl => self.ioctl(a),
            Kind::Fcntl => self.fcntl(a),
            Kind::Move => self.splice(a),
            Kind::Map => self.map(a),
            Kind::Unmap => self.unmap(a),
            Kind::Protect => self.protect(a),
            Kind::Remap => self.remap(a),
            Kind::Advise => self.advise(a),
            Kind::Lock => self.lock(a),
            Kind::Sync => self.sync(a),
            Kind::Load => self.load(a),
            Kind::Store => self.store(a),
            Kind::Fork => self.fork(a),
            Kind::Exec => self.exec(a),
            Kind::Trace => self.trace(a),
            Kind::Vm => self.vm(a),
            Kind::Mem => self.mem(a),
            Kind::Look => self.look(a),
            Kind::Place => self.place(a),
            Kind::Futex => self.futex(a),
            Kind::Uffd => self.uffd(a),
            Kind::Drop => self.drop(),
            Kind::Probe => self.probe(a),
            Kind::Check => self.check(),
            Kind::Seal => self.seal(a),
        }
    }

    /// Notes what a call returned: for people, and as something that this sequence can make happen.
    fn note(&mut self, what: &str, answer: &Answer) {
        let code = match *answer {
            Ok(0) => 0,
            Ok(_) => 200,
            Err(errno) => errno as u64,
        };
        let hash = what.bytes().fold(code, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        self.board.results[(hash ^ hash >> 20) as usize % world::MAP_LEN].store(1, Relaxed);
        if self.verbose {
            let answer = match answer {
                Ok(value) => format!("{value:#x}"),
                Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
            };
            self.said += &format!(" {what} = {answer}");
        }
    }

    /// Fails unless the answer is an error if there must be one, and one of those.
    fn expect(
        &mut self,
        what: &str,
        answer: Answer,
        errors: &[i32],
        others: &[i32],
    ) -> Outcome<Option<usize>> {
        self.note(what, &answer);
        let fine = match &answer {
            Ok(_) => errors.is_empty(),
            Err(errno) => errors.contains(errno) || others.contains(errno),
        };
        if !fine {
            let name = |errno: &i32| std::io::Error::from_raw_os_error(*errno).to_string();
            let got = answer.map_or_else(|errno| name(&errno), |value| format!("{value:#x}"));
            let errors: Vec<String> = errors.iter().map(name).collect();
            let wanted = if errors.is_empty() {
                "success".into()
            } else {
                errors.join(" or ")
            };
            wrong!("{what}: expected {wanted}, got {got}");
        }
        Ok(answer.ok())
    }

    fn salt(&self, arg: u32) -> u32 {
        if self.weak { arg % SALTS } else { arg % 4096 }
    }

    fn dev(&self, minor: usize) -> world::Dev {
        self.world.devs[minor]
    }

    // --- Contents ---------------------------------------------------------------------------------

    /// Somebody is about to write to a device.
    fn will_write(&mut self, minor: usize, offset: usize, len: usize) -> Outcome {
        if len == 0 {
            return Ok(());
        }
        if self.weak {
            for page in offset / PAGE..(offset + len).div_ceil(PAGE).min(self.dev(minor).pages()) {
                self.board.written(minor, page).store(1, Relaxed);
            }
            return Ok(());
        }
        self.settle(0, PAGES)
    }

    /// Somebody has written to a device.
    fn has_written(&mut self, minor: usize, offset: usize, bytes: &[u8]) {
        if !self.weak {
            self.world.now[minor][offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Fails unless `bytes` can be what a device holds at `offset`.
    fn agree(
        &self,
        what: &str,
        minor: usize,
        offset: usize,
        bytes: &[u8],
        copied: bool,
    ) -> Outcome {
        let initial = &self.world.initial[minor][offset..offset + bytes.len()];
        if !self.weak {
            let now = &self.world.now[minor][offset..offset + bytes.len()];
            return same(what, bytes, now);
        }
        if bytes == initial {
            return Ok(());
        }
        let mut at = 0;
        while at < bytes.len() {
            let len = (PAGE - (offset + at) % PAGE).min(bytes.len() - at);
            let (found, loaded) = (&bytes[at..at + len], &initial[at..at + len]);
            if found != loaded {
                let page = (offset + at) / PAGE;
                if !copied && self.board.written(minor, page).load(Relaxed) == 0 {
                    same(
                        &format!("{what}: page {page}, which nobody has written"),
                        found,
                        loaded,
                    )?;
                }
                let salted: Vec<Vec<u8>> = (0..SALTS)
                    .map(|salt| world::data(minor, offset + at, len, salt))
                    .collect();
                for i in 0..len {
                    let byte = found[i];
                    if byte != loaded[i] && !salted.iter().any(|data| data[i] == byte) {
                        wrong!(
                            "{what}: byte {:#x} of device {minor} is {byte:#04x}, which nobody wrote",
                            offset + at + i
                        );
                    }
                }
            }
            at += len;
        }
        Ok(())
    }

    /// What must be at a page of the arena, if that is known.
    fn content<'b>(&'b self, page: &'b Page) -> Option<&'b [u8]> {
        if let Some(copy) = &page.copy {
            return (!copy.is_empty()).then_some(copy);
        }
        if self.weak {
            return None;
        }
        let offset = page.pgoff as usize * PAGE;
        Some(&self.world.now[usize::from(page.minor)][offset..offset + PAGE])
    }

    /// Fails unless `bytes` can be what is at `offset` of page `index` of the arena.
    fn agree_page(&self, what: &str, index: usize, offset: usize, bytes: &[u8]) -> Outcome {
        let Some(page) = &self.pages[index] else {
            wrong!("{what}: something was found at page {index} of the arena, where nothing is");
        };
        let what = format!("{what}: page {index} of the arena");
        match self.content(page) {
            Some(known) => same(&what, bytes, &known[offset..offset + bytes.len()]),
            None => {
                let at = page.pgoff as usize * PAGE + offset;
                self.agree(
                    &what,
                    usize::from(page.minor),
                    at,
                    bytes,
                    page.copy.is_some(),
                )
            }
        }
    }

    /// A private page is written: from now on it is a copy.
    fn copied(&mut self, index: usize) -> &mut [u8] {
        let page = self.pages[index].as_ref().expect("mapped");
        let copy = match (&page.copy, self.content(page)) {
            (Some(_), _) => None,
            (None, Some(bytes)) => Some(Box::from(bytes)),
            (None, None) => Some(Box::from([])),
        };
        let page = self.pages[index].as_mut().expect("mapped");
        if copy.is_some() {
            page.copy = copy;
        }
        page.copy.as_mut().expect("set")
    }

    /// Bytes have been stored to the arena; those of shared pages have been announced.
    fn stored(&mut self, start: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (index, offset) = ((start + at) / PAGE, (start + at) % PAGE);
            let len = (PAGE - offset).min(bytes.len() - at);
            let page = self.pages[index].as_ref().expect("mapped");
            if page.shared {
                let (minor, to) = (usize::from(page.minor), page.pgoff as usize * PAGE + offset);
                self.has_written(minor, to, &bytes[at..at + len]);
            } else {
                let copy = self.copied(index);
                if !copy.is_empty() {
                    copy[offset..offset + len].copy_from_slice(&bytes[at..at + len]);
                }
            }
            at += len;
        }
    }

    /// Bytes are about to be stored to the arena.
    fn will_store(&mut self, start: usize, len: usize) -> Outcome {
        for index in start / PAGE..(start + len).div_ceil(PAGE) {
            if let Some(page) = &self.pages[index] {
                if page.shared {
                    let (minor, offset) = (usize::from(page.minor), page.pgoff as usize * PAGE);
                    self.will_write(minor, offset, PAGE)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes to store at an address of the arena: those that belong there, if anybody asks.
    fn to_store(&self, start: usize, len: usize, salt: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = start + bytes.len();
            let (index, offset) = (at / PAGE, at % PAGE);
            let part = (PAGE - offset).min(len - bytes.len());
            let place = self.pages.get(index).and_then(Option::as_ref);
            let (minor, to) = place.map_or((0, 0), |page| {
                (usize::from(page.minor), page.pgoff as usize * PAGE)
            });
            bytes.extend(world::data(minor, to + offset, part, salt));
        }
        bytes
    }

    /// Finds out which private pages have become copies, by whatever way: they are copies of what
    /// the device holds now, since it has not changed since.
    fn settle(&mut self, first: usize, len: usize) -> Outcome {
        let unsettled = |page: &Option<Page>| {
            page.as_ref()
                .is_some_and(|page| !page.shared && page.copy.is_none())
        };
        let Some(skip) = self.pages[first..first + len].iter().position(unsettled) else {
            return Ok(());
        };
        let last = self.pages[first..first + len]
            .iter()
            .rposition(unsettled)
            .expect("found");
        let first = first + skip;
        for (i, entry) in self
            .entries(first, last + 1 - skip)?
            .into_iter()
            .enumerate()
        {
            if unsettled(&self.pages[first + i]) && is_copy(entry) {
                self.copied(first + i);
            }
        }
        Ok(())
    }

    /// The entries of pagemap for pages of the arena.
    fn entries(&self, first: usize, len: usize) -> Outcome<Vec<u64>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; len * 8];
        let at = (self.arena / PAGE + first) as u64 * 8;
        self.pagemap
            .read_exact_at(&mut bytes, at)
            .map_err(|error| format!("pagemap: {error}"))?;
        Ok(bytes
            .chunks_exact(8)
            .map(|b| u64::from_ne_bytes(b.try_into().expect("8")))
            .collect())
    }

    // --- Looking at everything --------------------------------------------------------------------

    /// Compares all that can be seen with the model.
    fn check(&mut self) -> Outcome {
        self.check_structure()?;
        self.settle(0, PAGES)?;
        let mut bytes = vec![0; PAGE];
        for index in 0..PAGES {
            let Some(page) = &self.pages[index] else {
                continue;
            };
            let addr = self.arena + index * PAGE;
            // What can be written can be read here; at the rest nobody can look.
            if page.prot & (R | W) == 0 {
                continue;
            }
            bytes.copy_from_slice(&sys::peek(addr, PAGE));
            self.agree_page("contents", index, 0, &bytes)?;
        }
        for minor in 0..self.world.devs.len() {
            let open = self
                .slots
                .iter()
                .flatten()
                .find(|open| open.minor == minor && open.read);
            let Some(fd) = open.map(|open| open.fd) else {
                continue;
            };
            let size = self.dev(minor).size;
            let bytes = read_all(fd, size)?;
            self.agree("read", minor, 0, &bytes, false)?;
        }
        Ok(())
    }
}

/// All of a device, by pread.
pub(crate) fn read_all(fd: i32, size: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; size + 1];
    let args = [fd as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0];
    let got = sys::call(libc::SYS_pread64, &args);
    if got != Ok(size) {
        wrong!("pread of all {size} bytes and one more: {got:?}");
    }
    bytes.truncate(size);
    Ok(bytes)
}

/// Whether an entry of pagemap is that of a private page: in memory and no file's, or swapped out.
fn is_copy(entry: u64) -> bool {
    let bit = |n: u32| entry >> n & 1 == 1;
    bit(62) || bit(63) && !bit(61)
}

/// Fails unless the bytes are the same; says where they differ first.
pub fn same(what: &str, found: &[u8], expected: &[u8]) -> Outcome {
    if found == expected {
        return Ok(());
    }
    if found.len() != expected.len() {
        wrong!("{what}: {} bytes, not {}", found.len(), expected.len());
    }
    let at = found
        .iter()
        .zip(expected)
        .position(|(a, b)| a != b)
        .unwrap_or(0);
    let wrong = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    wrong!(
        "{what}: byte {at:#x} is {:#04x}, not {:#04x} ({wrong} of {} bytes differ)",
        found[at],
        expected[at],
        found.len()
    )
}

// --- What numbers mean ----------------------------------------------------------------------------

/// A number near the borders that matter below and around `limit`.
fn near(arg: u32, limit: usize) -> usize {
    let small = (arg >> 4 & 7) as usize;
    let big = (arg >> 8) as usize;
    let border = match arg & 15 {
        0 => 0,
        1..=4 => big % (limit / PAGE + 1) * PAGE,
        5 => big % (limit / 65_536 + 1) * 65_536,
        6 => big % (limit / (2 << 20) + 1) * (2 << 20),
        7 | 8 => limit,
        9 => limit.next_multiple_of(PAGE),
        _ => return big % (limit + 1),
    };
    (border + small).saturating_sub(3)
}

/// A page near the borders that matter.
fn near_page(arg: u32, pages: usize) -> usize {
    let big = (arg >> 4) as usize;
    match arg & 15 {
        0 => 0,
        1 | 2 => big % (pages / 512 + 1) * 512,
        3 | 4 => (big % (pages / 16 + 1) * 16 + (big >> 16 & 3)).saturating_sub(1),
        5 => pages.saturating_sub(1 + big % 4),
        6 => pages,
        _ => big % (pages + 1),
    }
}

/// A number of pages.
fn some_pages(arg: u32, left: usize) -> usize {
    let big = (arg >> 4) as usize;
    let pages = match arg & 15 {
        0 | 1 => 1,
        2 => 2,
        3..=6 => 1 + big % 20,
        7..=9 => left,
        10 => left + 1,
        11 => 512,
        12 => 1 + big % 600,
        13 => left.saturating_sub(1),
        _ => 1 + big % left.max(1),
    };
    pages.max(1)
}
