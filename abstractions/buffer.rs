// SPDX-License-Identifier: GPL-2.0

//! Memory that user space may map and write while the kernel uses it.
//!
//! Such memory changes at any time and under anyone's hands, so no Rust reference ever points into
//! it: it is reached through raw pointers and the kernel's own copy functions only.
//!
//! C header: [`include/linux/vmalloc.h`](srctree/include/linux/vmalloc.h)

use super::page_table::{
    KernelAddr,
    KernelRange, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::c_void,
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
}

/// No OOM killer, no warning in the log: the size is the user's choice, and so is the failure.
///
/// [`___GFP_RETRY_MAYFAIL`](srctree/include/linux/gfp_types.h) has no value of its own in the
/// bindings.
const GFP: bindings::gfp_t = bindings::GFP_KERNEL
    | bindings::__GFP_ZERO
    | bindings::__GFP_NOWARN
    | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;

/// A vmalloc'ed buffer of whole pages.
///
/// # Invariants
///
/// - `addr` is the page-aligned start of a vmalloc area of `pages` pages that `self` owns, all of
///   it initialised.
/// - `pages` is not zero, and `pages` pages are at most `isize::MAX` bytes.
pub(crate) struct Buffer {
    addr: NonNull<u8>,
    pages: usize,
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
        let size = pages
            .checked_mul(PAGE_SIZE)
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(ENOMEM)?;
        // SAFETY: Just an FFI call, from a context that may sleep.
        let addr = unsafe { __vmalloc_noprof(size, GFP) };
        // INVARIANT: vmalloc returns page-aligned memory; `__GFP_ZERO` has initialised it; `size`
        // has been checked above.
        Ok(Self {
            addr: NonNull::new(addr.cast()).ok_or(ENOMEM)?,
            pages,
        })
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
        let size = self.pages.wrapping_mul(PAGE_SIZE);
        let offset = offset.min(size);
        // OVERFLOW: `offset` is at most `size`.
        let len = len.min(size.wrapping_sub(offset));
        (self.addr.as_ptr().wrapping_add(offset), len)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Pages that somebody still holds a reference to, say for direct I/O in flight, outlive
        // this call: it only drops the buffer's own reference to each.
        //
        // SAFETY: By the type invariants `self` owns the area.
        unsafe { vfree(self.addr.as_ptr().cast()) };
    }
}
