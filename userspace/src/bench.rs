// SPDX-License-Identifier: GPL-2.0

//! What it costs to map memory, touch it and give it back: the same measurements for a device and
//! for whatever else can be mapped.
//!
//! All costs are nanoseconds of `CLOCK_MONOTONIC`. In a virtual machine whose clock counts
//! instructions, QEMU's `-icount shift=0`, they are instructions.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::device::Device;

/// Bytes that a huge page has where this is measured.
pub const HUGE: usize = 2 << 20;

/// How many pages [`Costs::random`] touches.
pub const RANDOM: usize = 1024;

/// What a run is in when it executes a [`mark`]; the numbers are known to whoever traces it.
pub mod phase {
    /// Nothing that is measured.
    pub const NONE: u32 = 0;
    /// [`Costs::map`](super::Costs::map).
    pub const MAP: u32 = 1;
    /// [`Costs::first`](super::Costs::first).
    pub const FIRST: u32 = 2;
    /// [`Costs::second`](super::Costs::second).
    pub const SECOND: u32 = 3;
    /// [`Costs::unmap`](super::Costs::unmap).
    pub const UNMAP: u32 = 4;
    /// [`Costs::random`](super::Costs::random).
    pub const RANDOM: u32 = 5;
    /// [`Costs::sparse`](super::Costs::sparse).
    pub const SPARSE: u32 = 6;
    /// [`Costs::write`](super::Costs::write).
    pub const WRITE: u32 = 7;
    /// [`Costs::fork`](super::Costs::fork).
    pub const FORK: u32 = 8;
    /// [`Memory::read`](super::Memory::read).
    pub const READ: u32 = 9;
    /// [`Memory::concurrent`](super::Memory::concurrent) with one thread.
    pub const ALONE: u32 = 10;
    /// The same with two threads and the same pages.
    pub const TWO: u32 = 11;
    /// The same with four.
    pub const FOUR: u32 = 12;
    /// The same with two threads, apart.
    pub const TWO_APART: u32 = 13;
    /// The same with four.
    pub const FOUR_APART: u32 = 14;
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// The file to map; `None` is anonymous memory.
    pub file: Option<BorrowedFd<'a>>,
    /// Whether writing is allowed.
    pub writable: bool,
    /// What to tell the kernel about huge pages, if anything.
    pub huge: Option<bool>,
    /// Where to map it; 0 leaves the choice to the kernel.
    pub address: usize,
    /// By how many bytes the address is to miss a multiple of [`HUGE`], if it is to do so.
    pub skew: Option<usize>,
}

/// What each step has cost, in nanoseconds.
///
/// Every step but [`second`](Self::second), [`unmap`](Self::unmap) and [`fork`](Self::fork) is done
/// in a mapping in which nothing has been touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Costs {
    /// Mapping.
    pub map: u64,
    /// Reading one byte of each page, in order.
    pub first: u64,
    /// Doing that again.
    pub second: u64,
    /// Unmapping, with all pages touched.
    pub unmap: u64,
    /// Reading one byte of each of [`RANDOM`] pages that a fixed generator picks.
    pub random: u64,
    /// Reading one byte in every [`HUGE`].
    pub sparse: u64,
    /// Writing to each page, in order, what it holds already. 0 if that is not allowed.
    pub write: u64,
    /// `fork`, and waiting for the child to exit, with all pages touched.
    pub fork: u64,
}

impl Costs {
    /// Mapping, reading all, unmapping.
    pub fn total(&self) -> u64 {
        self.map + self.first + self.unmap
    }
}

impl<'a> Memory<'a> {
    /// A file, writable.
    pub fn of_file(file: &'a impl AsFd) -> Self {
        Self {
            file: Some(file.as_fd()),
            ..Self::anonymous(None)
        }
    }

    /// Anonymous memory.
    pub fn anonymous(huge: Option<bool>) -> Self {
        Self {
            file: None,
            writable: true,
            huge,
            address: 0,
            skew: None,
        }
    }

    /// Measures every step for `len` bytes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn costs(&self, len: usize) -> io::Result<Costs> {
        let mut costs = self.sequential(len)?;

        let area = self.map(len)?.0;
        let pages = random_pages(len / page_size());
        costs.random = timed::<{ phase::RANDOM }, _>(|| {
            for &page in &pages {
                area.read_at(page * page_size());
            }
        })
        .0;
        area.unmap();

        let area = self.map(len)?.0;
        costs.sparse = timed::<{ phase::SPARSE }, _>(|| area.read(HUGE)).0;
        area.unmap();

        let area = self.map(len)?.0;
        if self.writable {
            costs.write = timed::<{ phase::WRITE }, _>(|| area.write()).0;
        } else {
            area.read(page_size());
        }
        let (fork, result) = timed::<{ phase::FORK }, _>(fork_and_wait);
        result?;
        costs.fork = fork;
        Ok(costs)
    }

    /// Measures mapping, reading in order, and unmapping; the other costs are 0.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn sequential(&self, len: usize) -> io::Result<Costs> {
        let (area, map) = self.map(len)?;
        let first = timed::<{ phase::FIRST }, _>(|| area.read(page_size())).0;
        let second = timed::<{ phase::SECOND }, _>(|| area.read(page_size())).0;
        let unmap = timed::<{ phase::UNMAP }, _>(|| area.unmap()).0;
        Ok(Costs {
            map,
            first,
            second,
            unmap,
            ..Costs::default()
        })
    }

    /// Reads one byte of each page of `len` bytes, so that memory which comes to be when it is first
    /// touched is there.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn populate(&self, len: usize) -> io::Result<()> {
        self.map(len)?.0.read(page_size());
        Ok(())
    }

    /// Measures reading `len` bytes of the file by pread(2), `block` bytes at a time.
    ///
    /// # Errors
    ///
    /// The kernel's; `UnexpectedEof` if the file is shorter, or if there is none.
    pub fn read(&self, len: usize, block: usize) -> io::Result<u64> {
        let file = self.file.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut buffer = vec![1; block];
        let (cost, result) = timed::<{ phase::READ }, _>(|| {
            for offset in (0..len).step_by(block) {
                if rustix::io::pread(file, &mut buffer, offset as u64)? != block {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        });
        result.map(|()| cost)
    }

    /// Measures reading one byte of each page of `len` bytes in `threads` threads at once, each on a
    /// CPU and in a mapping of its own.
    ///
    /// All map the same pages, unless they are to be `apart`. Gives what it cost each thread.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn concurrent(&self, len: usize, threads: usize, apart: bool) -> io::Result<Vec<u64>> {
        let barrier = Barrier::new(threads);
        let allowed = sched_getaffinity(None)?;
        let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
        thread::scope(|scope| {
            let threads: Vec<_> = cpus
                .cycle()
                .take(threads)
                .enumerate()
                .map(|(number, cpu)| {
                    let offset = if apart { number * len } else { 0 };
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut only = CpuSet::new();
                        only.set(cpu);
                        let area = sched_setaffinity(None, &only)
                            .map_err(io::Error::from)
                            .and_then(|()| self.map_at(offset, len));
                        barrier.wait();
                        let (area, _) = area?;
                        let touch = || area.read(page_size());
                        let (cost, ()) = match (threads, apart) {
                            (1, _) => timed::<{ phase::ALONE }, _>(touch),
                            (2, false) => timed::<{ phase::TWO }, _>(touch),
                            (4, false) => timed::<{ phase::FOUR }, _>(touch),
                            (2, true) => timed::<{ phase::TWO_APART }, _>(touch),
                            (4, true) => timed::<{ phase::FOUR_APART }, _>(touch),
                            _ => timed::<{ phase::FIRST }, _>(touch),
                        };
                        barrier.wait();
                        Ok(cost)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it does not panic"))
                .collect()
        })
    }

    fn map(&self, len: usize) -> io::Result<(Area, u64)> {
        self.map_at(0, len)
    }

    /// Maps `len` bytes from `offset` on, and says what that cost.
    fn map_at(&self, offset: usize, len: usize) -> io::Result<(Area, u64)> {
        let room = self
            .skew
            .map(|_| Area::reserve(len + 2 * HUGE))
            .transpose()?;
        let (address, fixed) = match (&room, self.skew) {
            (Some(room), Some(skew)) => {
                let start = room.start.addr().get().next_multiple_of(HUGE);
                (start + skew % HUGE, MapFlags::FIXED)
            }
            _ => (self.address, MapFlags::empty()),
        };
        let address = ptr::without_provenance_mut(address);
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, self.writable);
        let (cost, start) = timed::<{ phase::MAP }, _>(|| {
            // SAFETY: Without `MAP_FIXED` the kernel picks a range that nothing else uses; with it
            // the range is part of one that we have reserved.
            unsafe {
                match self.file {
                    Some(file) => {
                        let flags = MapFlags::SHARED | fixed;
                        mmap(address, len, prot, flags, file, offset as u64)
                    }
                    None => mmap_anonymous(address, len, prot, MapFlags::PRIVATE | fixed),
                }
            }
        });
        let area = Area::new(start?, len, room);
        if let Some(huge) = self.huge {
            let advice = [Advice::LinuxNoHugepage, Advice::LinuxHugepage][usize::from(huge)];
            // SAFETY: The range is ours, and this advice changes no contents.
            unsafe { madvise(area.start.as_ptr().cast(), len, advice) }?;
        }
        Ok((area, cost))
    }
}

impl Device {
    /// The device's memory, to be measured.
    pub fn memory(&self, writable: bool) -> Memory<'_> {
        Memory {
            writable,
            ..Memory::of_file(&self.file)
        }
    }
}

/// A range of addresses, mapped until dropped.
struct Area {
    start: NonNull<u8>,
    len: usize,
    /// What is unmapped in the end: this range, or a larger one around it.
    whole: (NonNull<u8>, usize),
}

// SAFETY: The memory is not tied to the thread that mapped it.
unsafe impl Send for Area {}

impl Area {
    /// Takes over `len` bytes from `start` on, and the `room` that they may lie in.
    fn new(start: *mut c_void, len: usize, room: Option<Area>) -> Self {
        let start = NonNull::new(start.cast()).expect("page 0 is never mapped");
        let whole = room.map_or((start, len), |room| ManuallyDrop::new(room).whole);
        Self { start, len, whole }
    }

    /// Finds room for `len` bytes.
    fn reserve(len: usize) -> io::Result<Self> {
        // SAFETY: With a null hint and without `MAP_FIXED` the kernel picks addresses that nothing
        // else uses.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) };
        Ok(Self::new(start?, len, None))
    }

    /// Reads one byte in every `stride`.
    fn read(&self, stride: usize) {
        // SAFETY: The range is mapped, and may be read.
        unsafe { read_every(self.start.as_ptr(), self.len, stride) }
    }

    /// Writes to one byte of every page what it holds.
    fn write(&self) {
        // SAFETY: The range is mapped, and callers make it writable.
        unsafe { write_every(self.start.as_ptr(), self.len, page_size()) }
    }

    fn read_at(&self, offset: usize) {
        assert!(offset < self.len);
        // SAFETY: This byte is in the range.
        unsafe { self.start.add(offset).read_volatile() };
    }

    fn unmap(self) {}
}

impl Drop for Area {
    fn drop(&mut self) {
        let (start, len) = self.whole;
        // SAFETY: The range is ours, and nobody has a reference into it.
        let result = unsafe { munmap(start.as_ptr().cast(), len) };
        debug_assert!(result.is_ok());
    }
}

/// Does `work`; gives what it cost, and its result.
fn timed<const PHASE: u32, T>(work: impl FnOnce() -> T) -> (u64, T) {
    mark::<PHASE>();
    let start = Instant::now();
    let result = work();
    let cost = start.elapsed().as_nanos() as u64;
    mark::<{ phase::NONE }>();
    (cost, result)
}

/// Tells a tracer of this program's instructions what they do from here on: see [`phase`].
///
/// To the processor this is a no-operation, the one with a displacement of `0x6d617000 + PHASE`.
pub fn mark<const PHASE: u32>() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: The instruction does nothing.
    unsafe {
        std::arch::asm!(
            "nop dword ptr [rax + {}]",
            const 0x6d61_7000 + PHASE,
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// A loop of five instructions with `$access` in it, so that no compiler changes what is measured.
#[cfg(target_arch = "x86_64")]
macro_rules! every {
    ($access:literal, $start:ident, $len:ident, $stride:ident) => {
        std::arch::asm!(
            "2:",
            $access,
            "add {sum}, {byte}",
            "add {at}, {stride}",
            "cmp {at}, {end}",
            "jb 2b",
            byte = inout(reg) 0u64 => _,
            sum = inout(reg) 0u64 => _,
            at = inout(reg) $start => _,
            stride = in(reg) $stride,
            end = in(reg) $start.wrapping_add($len),
            options(nostack)
        )
    };
}

/// # Safety
///
/// The `len` bytes from `start` on, at least one, must be mapped and readable.
unsafe fn read_every(start: *mut u8, len: usize, stride: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: The caller promises that the memory can be read.
    unsafe {
        every!("movzx {byte:e}, byte ptr [{at}]", start, len, stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for offset in (0..len).step_by(stride) {
        // SAFETY: The caller promises that the memory can be read.
        unsafe { start.add(offset).read_volatile() };
    }
}

/// Writes atomically, so that what others write at the same time stays.
///
/// # Safety
///
/// The `len` bytes from `start` on, at least one, must be mapped and writable.
unsafe fn write_every(start: *mut u8, len: usize, stride: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: The caller promises that the memory can be written; it keeps its value.
    unsafe {
        every!("lock or byte ptr [{at}], 0", start, len, stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for offset in (0..len).step_by(stride) {
        use std::sync::atomic::{AtomicU8, Ordering};
        // SAFETY: The caller promises that the memory can be written; it keeps its value.
        unsafe { AtomicU8::from_ptr(start.add(offset)) }.fetch_or(0, Ordering::Relaxed);
    }
}

/// The pages, of `pages`, that [`Costs::random`] touches.
fn random_pages(pages: usize) -> Vec<usize> {
    let Some(pages) = NonZero::new(pages) else {
        return Vec::new();
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..RANDOM)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % pages
        })
        .collect()
}

/// Has a child that does nothing, and waits for its end.
fn fork_and_wait() -> io::Result<()> {
    // SAFETY: The child calls nothing but `_exit`, which is async-signal-safe.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: Always sound.
        0 => unsafe { libc::_exit(0) },
        child => {
            let mut status = 0;
            // SAFETY: `status` may be written.
            if unsafe { libc::waitpid(child, &mut status, 0) } == child {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured() {
        let len = 2 * HUGE;
        for skew in [None, Some(page_size())] {
            let memory = Memory {
                skew,
                ..Memory::anonymous(Some(false))
            };
            let costs = memory.costs(len).unwrap();
            for cost in [
                costs.map,
                costs.first,
                costs.unmap,
                costs.random,
                costs.fork,
            ] {
                assert_ne!(cost, 0, "{costs:?}");
            }
            assert!(costs.write > 0 && costs.total() > costs.first);
        }
    }

    #[test]
    fn reading_and_writing_touch_every_page() {
        let area = Memory::anonymous(None).map(8 * page_size()).unwrap().0;
        // SAFETY: The range is ours; nobody else writes it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(area.start.as_ptr(), area.len) };
        bytes.fill(7);
        area.read(page_size());
        area.write();
        assert!(bytes.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn random_pages_are_the_same_each_time() {
        let pages = random_pages(512);
        assert_eq!(pages, random_pages(512));
        assert_eq!(pages.len(), RANDOM);
        assert!(pages.iter().all(|&page| page < 512));
        assert!(random_pages(0).is_empty());
    }

    #[test]
    fn a_short_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let memory = Memory::of_file(&file);
        assert!(memory.read(4096, 4096).is_ok());
        assert_eq!(
            memory.read(8192, 4096).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn threads_each_say_what_it_cost() {
        let memory = Memory::anonymous(Some(false));
        for apart in [false, true] {
            let costs = memory.concurrent(HUGE, 3, apart).unwrap();
            assert!(costs.len() == 3 && costs.iter().all(|&cost| cost > 0));
        }
    }
}
