// SPDX-License-Identifier: GPL-2.0

//! Memory that user space may map and write while the kernel uses it.
//!
//! Such memory changes at any time and under anyone's hands, so no Rust reference ever points into
//! it: it is reached through raw pointers and the kernel's own copy functions only.
//!
//! C header: [`include/linux/vmalloc.h`](srctree/include/linux/vmalloc.h)

use super::{
    arithmetic::clip,
    folio::OwnedFolio,
    inode::PrivateInode,
    page_table::{
        KernelAddr,
        KernelRange, //
    }, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    bindings,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    fs::file::Offset,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
};

extern "C" {
    // `linux/vmalloc.h` wraps this function in a macro, which bindgen does not see.
    fn __vmalloc_noprof(size: usize, gfp_mask: bindings::gfp_t) -> *mut c_void;
    // Only the `kernel` crate's allocator has this one, through `vrealloc()`.
    fn vfree(addr: *const c_void);
    fn vm_map_ram(pages: *const *mut c_void, count: c_uint, node: c_int) -> *mut c_void;
    fn vm_unmap_ram(mem: *const c_void, count: c_uint);
}

/// No OOM killer, no warning in the log: the size is the user's choice, and so is the failure.
///
/// [`___GFP_RETRY_MAYFAIL`](srctree/include/linux/gfp_types.h) has no value of its own in the
/// bindings.
const GFP: bindings::gfp_t = bindings::GFP_KERNEL
    | bindings::__GFP_ZERO
    | bindings::__GFP_NOWARN
    | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;

/// For folios that something smaller can stand in for: no long search.
const GFP_TRY: bindings::gfp_t = bindings::GFP_KERNEL
    | bindings::__GFP_ZERO
    | bindings::__GFP_NOWARN
    | 1 << bindings::___GFP_NORETRY_BIT;

/// The orders of folios that a buffer is made of, from the best down.
const ORDERS: [u32; 5] = [bindings::PMD_ORDER, 8, 6, 4, 0];

/// A buffer of whole pages that lie one after the other in the kernel's virtual memory.
///
/// # Invariants
///
/// - `addr` is the page-aligned start of an area of `pages` pages in the vmalloc range, which is
///   mapped to what `memory` owns, all of it initialised.
/// - `pages` is not zero, and `pages` pages are at most `isize::MAX` bytes.
pub(crate) struct Buffer {
    addr: NonNull<u8>,
    pages: usize,
    memory: Memory,
}

/// What a [`Buffer`] is made of.
enum Memory {
    /// Pages that vmalloc has found, and keeps account of.
    Vmalloc,
    /// The folios of an inode.
    Folios(PrivateInode),
}

// SAFETY: The memory belongs to no thread.
unsafe impl Send for Buffer {}
// SAFETY: Through a shared reference the memory is accessed only by functions that expect it to
// change at any time.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates a zeroed buffer of `pages` pages. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `pages` is zero. `ENOMEM` if that is more than the machine has available; neither
    /// the OOM killer nor a warning says so as well.
    pub(crate) fn new(pages: usize) -> Result<Self> {
        let size = Self::check(pages)?;
        // SAFETY: Just an FFI call, from a context that may sleep.
        let addr = unsafe { __vmalloc_noprof(size, GFP) };
        // INVARIANT: vmalloc returns page-aligned memory; `__GFP_ZERO` has initialised it; `size`
        // has been checked above.
        Ok(Self {
            addr: NonNull::new(addr.cast()).ok_or(ENOMEM)?,
            pages,
            memory: Memory::Vmalloc,
        })
    }

    /// Allocates a zeroed buffer of `pages` pages, in folios as large as can be had. May sleep.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub(crate) fn new_huge(pages: usize) -> Result<Self> {
        let size = Self::check(pages)?;
        let mut inode = PrivateInode::new(size as Offset)?;
        let mut array = KVVec::with_capacity(pages, GFP_KERNEL | __GFP_NOWARN)?;
        while array.len() < pages {
            let pgoff = array.len();
            let folio = ORDERS
                .into_iter()
                .filter(|order| {
                    let nr = 1usize << order;
                    pgoff % nr == 0 && nr <= pages.wrapping_sub(pgoff)
                })
                .find_map(|order| {
                    let gfp = if order == 0 { GFP } else { GFP_TRY };
                    OwnedFolio::alloc(order, gfp)
                })
                .ok_or(ENOMEM)?;
            for n in 0..1usize << folio.order() {
                array.push(folio.page(n), GFP_KERNEL | __GFP_NOWARN)?;
            }
            inode.add(folio, pgoff)?;
            if current!().signal_pending() {
                return Err(EINTR);
            }
        }
        // SAFETY: The array holds pointers to as many pages, which are allocated.
        let addr = unsafe {
            vm_map_ram(
                array.as_ptr().cast(),
                c_uint::try_from(pages)?,
                bindings::NUMA_NO_NODE,
            )
        };
        // INVARIANT: The area is mapped to the folios; `__GFP_ZERO` has initialised them; `size` has
        // been checked above.
        Ok(Self {
            addr: NonNull::new(addr.cast()).ok_or(ENOMEM)?,
            pages,
            memory: Memory::Folios(inode),
        })
    }

    /// Returns the size in bytes of `pages` pages, if a buffer of so many can be.
    fn check(pages: usize) -> Result<usize> {
        if pages == 0 {
            return Err(EINVAL);
        }
        // Asking first leaves the page cache of the machine alone when the answer must be no.
        //
        // SAFETY: Just an FFI call.
        let available = unsafe { bindings::si_mem_available() };
        if usize::try_from(available).map_or(true, |available| pages > available) {
            return Err(ENOMEM);
        }
        pages
            .checked_mul(PAGE_SIZE)
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(ENOMEM)
    }

    /// Returns the inode that the folios belong to; [`None`] if the buffer is not made of folios.
    pub(crate) fn inode(&self) -> Option<&PrivateInode> {
        match &self.memory {
            Memory::Vmalloc => None,
            Memory::Folios(inode) => Some(inode),
        }
    }

    /// Returns how many folios there are of each order that there are any of, from the largest.
    pub(crate) fn folios(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        let folios = self.inode().map_or(&[][..], PrivateInode::folios);
        let count = |order| folios.iter().filter(|folio| folio.order() == order).count();
        ORDERS
            .into_iter()
            .map(move |order| (order, count(order)))
            .filter(|&(_, count)| count > 0)
    }

    /// Returns the number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Returns where the page with index `pgoff` lies, or [`None`] if there is no such page.
    #[inline]
    pub(crate) fn addr(&self, pgoff: usize) -> Option<KernelAddr<'_>> {
        if pgoff >= self.pages {
            return None;
        }
        let addr =
            (self.addr.as_ptr() as usize).wrapping_add(pgoff.wrapping_shl(PAGE_SHIFT as u32));
        // SAFETY: The address lies in the vmalloc area that by the type invariants `self` owns, so
        // it stays mapped, unchanged, as long as `self` is borrowed. vmalloc's pages are ordinary
        // memory.
        Some(unsafe { KernelAddr::new(addr) })
    }

    /// Returns where the pages with the indices in `pgoffs` lie, or [`None`] if not all exist.
    #[inline]
    pub(crate) fn addrs(&self, pgoffs: Range<usize>) -> Option<KernelRange<'_>> {
        let start = self.addr(pgoffs.start)?;
        let len = pgoffs.end.checked_sub(pgoffs.start)?;
        if pgoffs.end > self.pages {
            return None;
        }
        // SAFETY: All of these pages are the buffer's, which is one area.
        Some(unsafe { KernelRange::new(start, len) })
    }

    /// Overwrites the words from number `start` on with the items of `words`, up to the buffer's
    /// end.
    pub(crate) fn write_words(&mut self, start: usize, words: impl Iterator<Item = u64>) {
        let len = self.pages.wrapping_mul(PAGE_SIZE / size_of::<u64>());
        for (index, word) in (start..len).zip(words) {
            // SAFETY: `index` is below `len`, so by the type invariants the word lies inside the
            // area, aligned. `&mut self` keeps other kernel code out; user space cannot map what
            // is borrowed mutably.
            unsafe { self.addr.cast::<u64>().add(index).write(word) };
        }
    }

    /// Overwrites the bytes from offset `start` to the end of the buffer with zeroes.
    pub(crate) fn zero_from(&mut self, start: usize) {
        let len = self.pages.wrapping_mul(PAGE_SIZE);
        if start < len {
            // SAFETY: `start` is below `len`, so by the type invariants the range lies inside the
            // area. `&mut self` keeps everybody else out.
            unsafe { self.addr.add(start).write_bytes(0, len.wrapping_sub(start)) };
        }
    }

    /// Copies bytes from the buffer, starting at `offset`, into `iov`. May sleep.
    ///
    /// Copies at most `len` bytes, not beyond the end of the buffer, and fewer if `iov` is full or
    /// its memory cannot be written. Returns how many.
    pub(crate) fn copy_to_iter(
        &self,
        iov: &mut IovIterDest<'_>,
        offset: usize,
        len: usize,
    ) -> usize {
        let (addr, len) = self.range(offset, len);
        // SAFETY: `addr` and `len` are a range inside the area; by the type invariants it is
        // initialised. The C side copies it bytewise and does not mind that user space may be
        // changing it.
        unsafe { bindings::_copy_to_iter(addr.cast(), len, iov.as_raw()) }
    }

    /// Copies bytes from `iov` into the buffer, starting at `offset`. May sleep.
    ///
    /// Copies at most `len` bytes, not beyond the end of the buffer, and fewer if `iov` runs out or
    /// its memory cannot be read. Returns how many.
    pub(crate) fn copy_from_iter(
        &self,
        iov: &mut IovIterSource<'_>,
        offset: usize,
        len: usize,
    ) -> usize {
        let (addr, len) = self.range(offset, len);
        // SAFETY: As in `copy_to_iter`; no reference to the memory exists that a write could
        // invalidate.
        unsafe { bindings::_copy_from_iter(addr.cast(), len, iov.as_raw()) }
    }

    /// Clips `len` bytes at `offset` to the buffer.
    fn range(&self, offset: usize, len: usize) -> (*mut u8, usize) {
        let (offset, len) = clip(offset, len, self.pages.wrapping_mul(PAGE_SIZE));
        (self.addr.as_ptr().wrapping_add(offset), len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let addr = self.addr.as_ptr().cast();
        // Pages that somebody still holds a reference to, say for direct I/O in flight, outlive
        // the buffer: this only drops its own reference to each.
        match self.memory {
            // SAFETY: By the type invariants the area is vmalloc's, and ours.
            Memory::Vmalloc => unsafe { vfree(addr) },
            // SAFETY: By the type invariants the area is ours; `new_huge` has mapped it so.
            // CAST: `new_huge` has checked that the number fits.
            Memory::Folios(..) => unsafe { vm_unmap_ram(addr, self.pages as c_uint) },
        }
    }
}
