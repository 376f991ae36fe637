// SPDX-License-Identifier: GPL-2.0

//! A device's pages in this process.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::device::Device;
use crate::error::{Error, Operation, Result};
use crate::pagemap::{self, Extent};
use crate::sigbus::Watch;

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// What a mapping allows, and who sees what is written through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing; writes reach the kernel's memory and every other mapping.
    ReadWrite,
    /// Reading and writing; a written page becomes this mapping's own copy.
    Private,
}

/// Pages of a device, mapped into this process until dropped.
///
/// All offsets are offsets in the device. The memory belongs to the kernel and others may write it
/// at any time, so safe code gets no reference into it: words are read one at a time, volatile or
/// atomic, or bytes copied out.
///
/// # Examples
///
/// ```
/// # fn main() -> mapdrv::Result<()> {
/// use mapdrv::{Access, Device, Error};
///
/// let device = match Device::open("/dev/mapdrv0") {
///     Err(Error::System { .. } | Error::NoModule { .. }) => return Ok(()), // not on this machine
///     device => device?,
/// };
/// let mapping = device.map(0..1, Access::Read)?;
/// let mut text = [0; 20];
/// mapping.copy_to(0, &mut text)?;
/// println!("{}", text.escape_ascii());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mapping {
    /// Page-aligned; `len` bytes from here are ours until drop.
    base: NonNull<u8>,
    len: usize,
    offset: u64,
    page_size: usize,
    access: Access,
    path: Arc<Path>,
    watch: Watch,
}

// SAFETY: The memory is not tied to the thread that mapped it.
unsafe impl Send for Mapping {}

// SAFETY: Through a shared reference the memory is only read volatile, or used atomically.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the pages that hold the bytes of `range`.
    pub(crate) fn new(device: &Device, range: Range<u64>, access: Access) -> Result<Self> {
        let page_size = u64::from(device.page_size());
        let limit = device.mappable();
        let out_of_range = || Error::OutOfRange {
            path: device.path().to_owned(),
            start: range.start,
            end: range.end,
            limit_start: 0,
            limit_end: limit,
        };
        if range.is_empty() || range.end > limit {
            return Err(out_of_range());
        }
        let offset = range.start / page_size * page_size;
        let len = (range.end.div_ceil(page_size) * page_size - offset)
            .try_into()
            .map_err(|_| out_of_range())?;

        let (prot, flags) = match access {
            Access::Read => (ProtFlags::READ, MapFlags::SHARED),
            Access::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Access::Private => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE),
        };
        // SAFETY: With a null hint and without `MAP_FIXED` the kernel picks addresses that nothing
        // else uses.
        let base = unsafe { mmap(ptr::null_mut(), len, prot, flags, &device.file, offset) }
            .map_err(Error::system(device.path(), Operation::Map))?;
        let base = NonNull::new(base.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self {
            base,
            len,
            offset,
            page_size: page_size as usize,
            access,
            path: device.path.clone(),
            // SAFETY: The range was just mapped. It stays ours until `drop`; the one method that
            // gives a reference into it is `as_slice`, whose caller promises that it is not lost.
            watch: unsafe { Watch::new(base, len) },
        })
    }

    /// The offsets that are mapped: whole pages.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len as u64
    }

    /// Bytes in a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// The indices of the pages that are mapped.
    pub fn pages(&self) -> Range<u64> {
        let page_size = self.page_size as u64;
        self.offset / page_size..(self.offset + self.len as u64) / page_size
    }

    /// The pages that are mapped, one by one.
    pub fn iter(&self) -> impl Iterator<Item = Page<'_>> {
        self.pages().map(|index| Page {
            mapping: self,
            index,
        })
    }

    /// The address at which it begins.
    pub fn address(&self) -> usize {
        self.base.addr().get()
    }

    /// Reads the word at `offset`, volatile.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Lost`] after
    /// [`catch_sigbus`](crate::catch_sigbus).
    pub fn word(&self, offset: u64) -> Result<u64> {
        let word = self.word_pointer(offset)?;
        // SAFETY: `word_pointer` gives aligned pointers into the mapping.
        self.touch(|| unsafe { word.read_volatile() })
    }

    /// Reads the word at `offset`, atomically.
    ///
    /// # Errors
    ///
    /// As [`Mapping::word`].
    ///
    /// # Panics
    ///
    /// If `ordering` is one for stores.
    pub fn load(&self, offset: u64, ordering: Ordering) -> Result<u64> {
        let word = self.word_pointer(offset)?;
        // SAFETY: As in `word`; a load changes nothing, so the pages may be read-only.
        self.touch(|| unsafe { AtomicU64::from_ptr(word.as_ptr()) }.load(ordering))
    }

    /// Writes the word at `offset`, atomically.
    ///
    /// # Errors
    ///
    /// As [`Mapping::word`], and [`Error::ReadOnly`] for a mapping made with [`Access::Read`].
    ///
    /// # Panics
    ///
    /// If `ordering` is one for loads.
    pub fn store(&self, offset: u64, value: u64, ordering: Ordering) -> Result<()> {
        let word = self.word_pointer(offset)?;
        if self.access == Access::Read {
            return Err(Error::ReadOnly {
                path: self.path.to_path_buf(),
            });
        }
        // SAFETY: As in `word`, and the pages may be written.
        self.touch(|| unsafe { AtomicU64::from_ptr(word.as_ptr()) }.store(value, ordering))
    }

    /// Reads words from `offset` on, each once and volatile.
    ///
    /// # Errors
    ///
    /// As [`Mapping::word`].
    pub fn read_words(&self, offset: u64, words: &mut [u64]) -> Result<()> {
        self.checked(offset, size_of_val(words))?;
        let start = self.word_pointer(offset)?;
        self.touch(|| {
            for (i, word) in words.iter_mut().enumerate() {
                // SAFETY: `checked` found as many bytes as `words` has inside the mapping.
                *word = unsafe { start.add(i).read_volatile() };
            }
        })
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::Lost`] after [`catch_sigbus`](crate::catch_sigbus).
    pub fn copy_to(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let start = self.checked(offset, bytes.len())?;
        let head = (start.next_multiple_of(WORD) - start).min(bytes.len());
        let (head, rest) = bytes.split_at_mut(head);
        let parts = [head].into_iter().chain(rest.chunks_mut(WORD));
        self.touch(|| {
            let mut at = start;
            for part in parts.filter(|part| !part.is_empty()) {
                // SAFETY: `checked` found all bytes inside the mapping, which is whole pages, so
                // that the aligned word around any of them is inside, too.
                let word = unsafe {
                    self.base
                        .add(at / WORD * WORD)
                        .cast::<u64>()
                        .read_volatile()
                };
                part.copy_from_slice(&word.to_ne_bytes()[at % WORD..][..part.len()]);
                at += part.len();
            }
        })
    }

    /// The memory itself.
    ///
    /// # Safety
    ///
    /// For as long as the slice lives,
    ///
    /// - nobody writes the device, through a mapping or its file, in any process;
    /// - the device is not removed and its memory does not fail. (The module cannot be unloaded
    ///   while this mapping exists.)
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: The range is mapped while `self` is borrowed, and as the caller promises it is
        // not written.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The frame number of page `page`, which must have been touched.
    ///
    /// `None` if it is not present, or if the kernel hides the number, as it does from callers
    /// without `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], or [`Error::System`] if the pagemap cannot be read.
    pub fn pfn(&self, page: u64) -> Result<Option<u64>> {
        let start = page.saturating_mul(self.page_size as u64);
        let at = self.checked(start, self.page_size)?;
        pagemap::pfn((self.address() + at) / self.page_size)
    }

    /// Which pages are present in this process's page table, and by which size of entry.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the pagemap cannot be read.
    pub fn present(&self) -> Result<Vec<Extent>> {
        let start = self.address() as u64;
        let addresses = start..start + self.len as u64;
        pagemap::present(None, addresses, self.offset, self.page_size as u64)
    }

    /// Writes the bytes of `range`, straight from the mapping, to the start of `file`.
    pub(crate) fn write_to(&self, range: Range<u64>, file: &File) -> io::Result<()> {
        let len = (range.end - range.start) as usize;
        let start = self
            .checked(range.start, len)
            .expect("the range is in the mapping");
        // SAFETY: `checked` found all bytes inside the mapping. The kernel reads them by itself: a
        // page that is gone is an error, not a signal.
        let written = unsafe {
            let start = self.base.add(start).as_ptr().cast();
            libc::pwrite(file.as_raw_fd(), start, len, 0)
        };
        match usize::try_from(written) {
            Ok(written) if written == len => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Does `access`, which touches the mapping.
    fn touch<R>(&self, access: impl FnOnce() -> R) -> Result<R> {
        self.watch.touch(access).map_err(|at| Error::Lost {
            path: self.path.to_path_buf(),
            offset: self.offset + at as u64,
        })
    }

    /// The word at `offset`.
    fn word_pointer(&self, offset: u64) -> Result<NonNull<u64>> {
        if offset % WORD as u64 != 0 {
            return Err(Error::Misaligned {
                path: self.path.to_path_buf(),
                offset,
            });
        }
        let start = self.checked(offset, WORD)?;
        // SAFETY: `checked` found the word inside the mapping.
        Ok(unsafe { self.base.add(start) }.cast())
    }

    /// How far from the start of the mapping `offset` is, if `len` bytes from there are mapped.
    fn checked(&self, offset: u64, len: usize) -> Result<usize> {
        let range = self.range();
        match offset.checked_add(len as u64) {
            Some(end) if offset >= range.start && end <= range.end => {
                Ok((offset - range.start) as usize)
            }
            end => Err(Error::OutOfRange {
                path: self.path.to_path_buf(),
                start: offset,
                end: end.unwrap_or(u64::MAX),
                limit_start: range.start,
                limit_end: range.end,
            }),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The range is ours, whole, since `new`, and all references into it have ended.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok());
    }
}

/// One page of a [`Mapping`].
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    mapping: &'a Mapping,
    index: u64,
}

impl Page<'_> {
    /// Its index in the device.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Its offset in the device.
    pub fn offset(&self) -> u64 {
        self.index * self.mapping.page_size as u64
    }

    /// Its words.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] after [`catch_sigbus`](crate::catch_sigbus).
    pub fn words(&self) -> Result<Vec<u64>> {
        let mut words = vec![0; self.mapping.page_size / WORD];
        self.mapping.read_words(self.offset(), &mut words)?;
        Ok(words)
    }

    /// Its frame number.
    ///
    /// # Errors
    ///
    /// As [`Mapping::pfn`].
    pub fn pfn(&self) -> Result<Option<u64>> {
        self.mapping.pfn(self.index)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::stand_in::StandIn;

    fn bytes(stand_in: &StandIn, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let file = stand_in.file.as_file();
        file.read_exact_at(&mut bytes, range.start).unwrap();
        bytes
    }

    #[test]
    fn bytes_are_copied_from_any_offset() {
        let stand_in = StandIn::new(3 * 4096);
        let mapping = stand_in.device.map_all(Access::Read).unwrap();
        for start in (0..16).chain(4090..4100) {
            for len in 0..20 {
                let mut copied = vec![0; len as usize];
                mapping.copy_to(start, &mut copied).unwrap();
                assert_eq!(
                    copied,
                    bytes(&stand_in, start..start + len),
                    "{start} {len}"
                );
            }
        }
    }

    #[test]
    fn words_are_read_each_way() {
        let stand_in = StandIn::new(2 * 4096);
        let mapping = stand_in.device.map_all(Access::Read).unwrap();
        let mut words = [0; 4];
        mapping.read_words(4088, &mut words).unwrap();
        for (word, offset) in words.into_iter().zip((4088..).step_by(8)) {
            let expected = bytes(&stand_in, offset..offset + 8);
            assert_eq!(word.to_ne_bytes()[..], expected);
            assert_eq!(mapping.word(offset).unwrap(), word);
            assert_eq!(mapping.load(offset, Ordering::Acquire).unwrap(), word);
        }
    }

    #[test]
    fn whole_pages_are_mapped() {
        let stand_in = StandIn::new(4 * 4096);
        let mapping = stand_in.device.map(4097..8193, Access::Read).unwrap();
        assert_eq!(mapping.range(), 4096..12288);
        assert_eq!(mapping.pages(), 1..3);
        let pages: Vec<_> = mapping.iter().map(|page| page.index()).collect();
        assert_eq!(pages, [1, 2]);
        let last = mapping.iter().last().unwrap();
        assert_eq!(last.offset(), 8192);
        assert_eq!(last.words().unwrap()[13], 2, "the header's page index");
    }

    #[test]
    fn what_is_outside_is_refused() {
        let stand_in = StandIn::new(4 * 4096);
        let device = &stand_in.device;
        let empty = Range { start: 5, end: 5 };
        for range in [empty, 0..16385, 16384..16385, u64::MAX - 1..u64::MAX] {
            let result = device.map(range.clone(), Access::Read);
            assert!(matches!(result, Err(Error::OutOfRange { .. })), "{range:?}");
        }

        let mapping = device.map(4096..8192, Access::Read).unwrap();
        for offset in [0, 4088, 8192, u64::MAX - 7] {
            let result = mapping.word(offset);
            assert!(matches!(result, Err(Error::OutOfRange { .. })), "{offset}");
        }
        let result = mapping.copy_to(8190, &mut [0; 3]);
        assert!(matches!(result, Err(Error::OutOfRange { .. })));
        let result = mapping.read_words(8184, &mut [0; 2]);
        assert!(matches!(result, Err(Error::OutOfRange { .. })));
        assert!(matches!(mapping.pfn(0), Err(Error::OutOfRange { .. })));
        assert!(matches!(
            mapping.pfn(u64::MAX),
            Err(Error::OutOfRange { .. })
        ));
        assert!(matches!(mapping.word(4097), Err(Error::Misaligned { .. })));
    }

    #[test]
    fn stores_go_where_the_access_says() {
        let stand_in = StandIn::new(4096);
        let shared = stand_in.device.map_all(Access::ReadWrite).unwrap();
        let private = stand_in.device.map_all(Access::Private).unwrap();
        let reader = stand_in.device.map_all(Access::Read).unwrap();

        let before = reader.word(256).unwrap();
        private.store(256, 1, Ordering::Relaxed).unwrap();
        assert_eq!(private.word(256).unwrap(), 1);
        assert_eq!(reader.word(256).unwrap(), before);

        shared.store(512, 2, Ordering::Relaxed).unwrap();
        assert_eq!(reader.word(512).unwrap(), 2);
        assert_eq!(bytes(&stand_in, 512..520), 2_u64.to_ne_bytes());

        let result = reader.store(512, 3, Ordering::Relaxed);
        assert!(matches!(result, Err(Error::ReadOnly { .. })));
    }

    #[test]
    fn a_slice_is_the_same_memory() {
        let stand_in = StandIn::new(4096);
        let mapping = stand_in.device.map_all(Access::Read).unwrap();
        // SAFETY: Nobody else knows the file.
        assert_eq!(unsafe { mapping.as_slice() }, bytes(&stand_in, 0..4096));
    }

    #[test]
    fn a_lost_page_is_an_error() {
        crate::catch_sigbus().unwrap();
        let stand_in = StandIn::new(4 * 4096);
        let mapping = stand_in.device.map_all(Access::Read).unwrap();
        let other = stand_in.device.map_all(Access::Read).unwrap();
        mapping.word(8192).unwrap();
        stand_in.file.as_file().set_len(4096).unwrap();

        let lost = |result: Result<u64>| match result {
            Err(Error::Lost { offset, .. }) => offset,
            other => panic!("{other:?}"),
        };
        assert_eq!(lost(mapping.word(8200)), 8200);
        assert_eq!(lost(mapping.load(0, Ordering::Relaxed)), 8200, "for ever");
        assert!(matches!(
            mapping.copy_to(0, &mut [0; 8192]),
            Err(Error::Lost { .. })
        ));
        // The other mapping is not affected, until it is.
        assert!(other.word(0).is_ok());
        assert_eq!(lost(other.word(4096)), 4096);
    }
}
