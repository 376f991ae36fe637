// SPDX-License-Identifier: GPL-2.0

//! Mappings of a file into user space: what to set up at `mmap`, and what to answer to a fault.
//!
//! A driver's `mmap_prepare` is handed a [`VmAreaDesc`], checks it, restricts it, and gives it
//! [`VmOperations`]. From then on the mapping lives without the driver, but for the faults.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)
//!
//! Reference: `Documentation/filesystems/mmap_prepare.rst`

use super::{
    arithmetic,
    folio::Folio, //
};
use core::{
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ops::{
        Deref,
        Range, //
    }, //
};
use kernel::{
    bindings,
    error::VTABLE_DEFAULT_ERROR,
    ffi::{
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    },
    mm::{
        virt::{
            flags,
            VmaRef, //
        },
        Mm, //
    },
    page::{
        BorrowedPage,
        Page,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

/// Pages in a huge page, one that an entry of the second-lowest level maps.
pub(crate) const HPAGE_PAGES: usize = 1 << bindings::PMD_ORDER;
const HPAGE_MASK: usize = HPAGE_PAGES - 1;
const HPAGE_SIZE: usize = HPAGE_PAGES * PAGE_SIZE;

/// Entries in a lowest page table: `PTRS_PER_PTE` on every architecture that this is built for.
pub(crate) const PTRS_PER_PTE: usize = PAGE_SIZE / size_of::<u64>();

/// A mapping that is about to be made, of a file whose private data is a `P`.
///
/// # Invariants
///
/// - The wrapped `vm_area_desc` is the one of a running `mmap_prepare` call.
/// - The private data of its file points to a `P` that is valid until the file is released.
#[repr(transparent)]
pub(crate) struct VmAreaDesc<P> {
    desc: Opaque<bindings::vm_area_desc>,
    _private: PhantomData<P>,
}

impl<P> VmAreaDesc<P> {
    /// Wraps the descriptor of a running `mmap_prepare` call.
    ///
    /// # Safety
    ///
    /// For the lifetime `'a`, `desc` must be valid and used through the returned reference only.
    /// The private data of its file must point to a `P`, and do so until the file is released.
    pub(crate) unsafe fn from_raw<'a>(desc: *mut bindings::vm_area_desc) -> &'a mut Self {
        // SAFETY: The caller promises validity and uniqueness; the layouts are the same.
        // INVARIANT: The caller promises them.
        unsafe { &mut *desc.cast() }
    }

    /// Returns the index, within the file, of the first page to be mapped.
    pub(crate) fn pgoff(&self) -> usize {
        // SAFETY: By the type invariants the descriptor is valid.
        unsafe { (*self.desc.get()).pgoff }
    }

    /// Returns the number of pages to be mapped.
    pub(crate) fn pages(&self) -> usize {
        // SAFETY: By the type invariants the descriptor is valid.
        let (start, end) = unsafe { ((*self.desc.get()).start, (*self.desc.get()).end) };
        end.wrapping_sub(start) >> PAGE_SHIFT
    }

    /// Refuses a mapping that is executable, and any later attempt to make it so.
    ///
    /// # Errors
    ///
    /// `EPERM` if execution is asked for now.
    pub(crate) fn forbid_exec(&mut self) -> Result {
        if self.test(bindings::VMA_EXEC_BIT) {
            return Err(EPERM);
        }
        *self.flags() &= !(1 << bindings::VMA_MAYEXEC_BIT);
        Ok(())
    }

    /// Makes `mremap` refuse to grow the mapping.
    ///
    /// This also keeps the kernel from merging it with a neighbour.
    pub(crate) fn set_dont_expand(&mut self) {
        *self.flags() |= 1 << bindings::VMA_DONTEXPAND_BIT;
    }

    /// Leaves the mapping out of core dumps.
    pub(crate) fn set_dont_dump(&mut self) {
        *self.flags() |= 1 << bindings::VMA_DONTDUMP_BIT;
    }

    /// Lets [`VmFault::insert_pages`] be used in the mapping.
    ///
    /// This makes `fork` copy the page tables.
    pub(crate) fn set_mixedmap(&mut self) {
        *self.flags() |= 1 << bindings::VMA_MIXEDMAP_BIT;
    }

    /// Says that what is mapped is in no order of recent use, so that unmapping need not keep it.
    ///
    /// To the kernel this is what `MADV_RANDOM` says. It holds for all pages that are on none of
    /// the lists that reclaim goes by.
    pub(crate) fn set_no_recency(&mut self) {
        *self.flags() |= 1 << bindings::VMA_RAND_READ_BIT;
    }

    /// Lets `P` answer for the mapping from now on.
    pub(crate) fn set_vm_ops(&mut self)
    where
        P: VmOperations,
    {
        let desc = self.desc.get();
        // SAFETY: By the type invariants the descriptor and its file are valid. The mapping will
        // hold a reference to the file, whose private data is a `P` until it is released: just
        // what the callbacks in the table ask for.
        unsafe {
            (*desc).private_data = (*(*desc).file).private_data;
            (*desc).vm_ops = &VmOperationsVTable::<P>::VTABLE;
        }
    }

    fn test(&mut self, bit: c_uint) -> bool {
        *self.flags() & 1 << bit != 0
    }

    fn flags(&mut self) -> &mut c_ulong {
        // SAFETY: By the type invariants the descriptor is valid, and it is borrowed mutably. All
        // the flags used here are in the first word.
        unsafe { &mut (*self.desc.get()).vma_flags.__vma_flags[0] }
    }
}

/// What the private data of a file does for the file's mappings.
///
/// All methods are called with the mmap lock or the VMA lock held.
#[vtable]
pub(crate) trait VmOperations: Sized + Sync {
    /// A mapping has come to be, by `mmap`. May sleep.
    fn mapped(&self) {}

    /// A mapping has come to be, by `fork`, by a split, or by being moved. May sleep.
    fn open(&self) {}

    /// A mapping is going away. May sleep.
    fn close(&self) {}

    /// A page of a mapping is missing. May sleep.
    fn fault(&self, vmf: &VmFault) -> VmFaultOutcome;

    /// A page of a mapping is missing, and others may be mapped along with it if that does not take
    /// long. Atomic context.
    ///
    /// Returns whether the missing page has been mapped. If not, [`Self::fault`] is next.
    fn map_pages(&self, _vmf: &VmFault) -> bool {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// All of a huge page of a mapping is missing, or is not writable and should be. May sleep.
    fn huge_fault(&self, _vmf: &VmFault) -> VmFaultOutcome {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A page fault, the kernel's `struct vm_fault`.
///
/// # Invariants
///
/// The wrapped `vm_fault` belongs to a running call of `vm_operations_struct::fault`,
/// `huge_fault` or `map_pages`, and its VMA is locked, at least for reading.
#[repr(transparent)]
pub(crate) struct VmFault {
    vmf: Opaque<bindings::vm_fault>,
}

impl VmFault {
    /// Wraps the argument of a running fault callback.
    ///
    /// # Safety
    ///
    /// For the lifetime `'a`, `vmf` must be the argument of a running `fault` callback.
    unsafe fn from_raw<'a>(vmf: *mut bindings::vm_fault) -> &'a Self {
        // SAFETY: The caller promises validity; the layouts are the same.
        // INVARIANT: A fault callback runs with the VMA locked.
        unsafe { &*vmf.cast() }
    }

    /// Returns the index, within the file, of the page that is missing.
    ///
    /// This stays right whatever has been done to the mapping since; an index computed from the
    /// VMA's bounds does not.
    #[inline]
    pub(crate) fn pgoff(&self) -> usize {
        // SAFETY: By the type invariants the structure is valid.
        unsafe { (*self.vmf.get()).__bindgen_anon_1.pgoff }
    }

    #[inline]
    fn has_flag(&self, flag: bindings::fault_flag) -> bool {
        // SAFETY: By the type invariants the structure is valid.
        unsafe { (*self.vmf.get()).flags & flag != 0 }
    }

    /// Returns whether the fault is for writing.
    pub(crate) fn is_write(&self) -> bool {
        self.has_flag(bindings::fault_flag_FAULT_FLAG_WRITE)
    }

    /// Returns whether the process is to get a copy of the page: a write to a private mapping.
    #[inline]
    pub(crate) fn is_cow(&self) -> bool {
        self.is_write() && self.vma().flags() & flags::SHARED == 0
    }

    /// Returns whether the process is to get a copy of the page, but for reading: a private mapping
    /// that a device is to read for long.
    #[inline]
    fn is_unshare(&self) -> bool {
        self.has_flag(bindings::fault_flag_FAULT_FLAG_UNSHARE)
    }

    /// Returns which pages of the file could be mapped along with the missing one: those in the
    /// naturally aligned window of `window` pages, a power of two, as far as the VMA and one page
    /// table reach.
    ///
    /// The missing page itself is always among them.
    #[inline]
    pub(crate) fn around(&self, window: usize) -> Range<usize> {
        let page = self.address() >> PAGE_SHIFT;
        arithmetic::window(
            page,
            self.pgoff(),
            window.min(PTRS_PER_PTE),
            self.vma_pages(),
        )
    }

    /// Maps `pages`, the first of which is page `first` of the file, and which should lie in what
    /// [`Self::around`] returns. May sleep.
    ///
    /// Pages that are mapped already are left alone. Stops early if a page table cannot be had, or
    /// is taken away by somebody else at the same time.
    ///
    /// Returns how many of the pages are mapped now, and how many of these by this call. Does
    /// nothing if the VMA lacks [`VmAreaDesc::set_mixedmap`].
    #[inline]
    pub(crate) fn insert_pages<'a>(
        &self,
        first: usize,
        pages: impl Iterator<Item = BorrowedPage<'a>>,
    ) -> (usize, usize) {
        /// How many pages are handed to the core at a time; bounds the stack that is used.
        const BATCH: usize = 128;

        let mut inserted = Inserted::default();
        let mut batch = [const { MaybeUninit::uninit() }; BATCH];
        let mut len = 0usize;
        pages.for_each(|page| {
            if let Some(slot) = batch.get_mut(len) {
                slot.write(page.as_ptr());
                len = len.wrapping_add(1);
            }
            if len == BATCH {
                // SAFETY: All `len` pointers have been written, to pages that are borrowed.
                unsafe { self.insert_batch(first, batch.as_mut_ptr().cast(), len, &mut inserted) };
                len = 0;
            }
        });
        // SAFETY: As above.
        unsafe { self.insert_batch(first, batch.as_mut_ptr().cast(), len, &mut inserted) };
        (inserted.present, inserted.new)
    }

    /// Does the work of [`Self::insert_pages`] for the `len` pages that come after those that
    /// `inserted` counts.
    ///
    /// # Safety
    ///
    /// `batch` must point to `len` pointers to pages that are alive.
    unsafe fn insert_batch(
        &self,
        first: usize,
        batch: *mut *mut bindings::page,
        len: usize,
        inserted: &mut Inserted,
    ) {
        let vma = self.vma();
        let mut done = 0;
        while done < len && !inserted.stopped && vma.flags() & flags::MIXEDMAP != 0 {
            // OVERFLOW: If this is no page of the VMA, the core finds that out.
            let page = first.wrapping_add(inserted.present);
            let offset = self.pgoff().wrapping_sub(page).wrapping_mul(PAGE_SIZE);
            let addr = (self.address() & PAGE_MASK).wrapping_sub(offset);
            let mut left = len.wrapping_sub(done);
            // SAFETY: By the type invariants the VMA is valid and locked for reading, which is enough
            // as it has `VM_MIXEDMAP`. The caller promises that `batch` has `left` pointers from
            // `done` on, to pages that are alive.
            let err = unsafe {
                bindings::vm_insert_pages(vma.as_ptr(), addr, batch.wrapping_add(done), &mut left)
            };
            // OVERFLOW: `left` is at most what it was before.
            let new = len.wrapping_sub(done).wrapping_sub(left);
            // One that is mapped already stops the core, but not us.
            let skip = err == EBUSY.to_errno();
            let present = new.wrapping_add(skip.into());
            done = done.wrapping_add(present);
            inserted.present = inserted.present.wrapping_add(present);
            inserted.new = inserted.new.wrapping_add(new);
            inserted.stopped = err != 0 && !skip;
        }
    }

    /// Returns the user address that is missing.
    #[inline]
    fn address(&self) -> usize {
        // SAFETY: By the type invariants the structure is valid.
        unsafe { (*self.vmf.get()).__bindgen_anon_1.address }
    }

    /// Returns the bounds of the VMA that the fault is in, as page numbers.
    #[inline]
    fn vma_pages(&self) -> Range<usize> {
        let vma = self.vma();
        vma.start() >> PAGE_SHIFT..vma.end() >> PAGE_SHIFT
    }

    /// Returns the VMA that the fault is in.
    #[inline]
    fn vma(&self) -> &VmaRef {
        // SAFETY: By the type invariants the VMA is valid and locked.
        unsafe { VmaRef::from_raw((*self.vmf.get()).__bindgen_anon_1.vma) }
    }

    /// Returns the address space that the fault is in.
    ///
    /// It need not be the current task's: a debugger faults in that of its debuggee.
    #[inline]
    pub(crate) fn mm(&self) -> &Mm {
        self.vma().mm().deref()
    }

    /// Answers the fault with `page`.
    ///
    /// The user's page table gets a reference to it of its own. If the page is part of a larger
    /// folio, the core maps the rest of that along with it where it can.
    #[inline]
    pub(crate) fn map_page(&self, page: &Page) -> VmFaultOutcome {
        if self.is_unshare() {
            return self.map_copy(page);
        }
        Folio::of(page).get();
        // SAFETY: By the type invariants the structure is that of a running `fault` callback, whose
        // place for the answer this is.
        unsafe { (*self.vmf.get()).page = page.as_ptr() };
        VmFaultOutcome(0)
    }

    /// Answers the fault with a copy of `page`, which may sleep.
    ///
    /// The core makes a page the process's own only where it finds it in a page table. So it splits a
    /// huge entry, and lets the page be mapped again. By way of its folio that would be with a huge
    /// entry, again and again until the process is killed; a copy has none. The core makes another
    /// of it and frees this one.
    #[cold]
    fn map_copy(&self, page: &Page) -> VmFaultOutcome {
        let Ok(copy) = Page::alloc_page(GFP_KERNEL_ACCOUNT) else {
            return VmFaultOutcome::OOM;
        };
        // The reference is for the core.
        let copy = ManuallyDrop::new(copy);
        // SAFETY: Both pages are allocated, and unmapped in reverse order. Nobody else has `copy`
        // yet. User space may be writing to `page`, which is why it is read so; any mixture will
        // do. By the type invariants the structure is that of a running `fault` callback, whose
        // place for the answer this is.
        unsafe {
            let from = bindings::kmap_local_page(page.as_ptr());
            let to = bindings::kmap_local_page(copy.as_ptr());
            for n in 0..PAGE_SIZE / size_of::<u64>() {
                let word = from.cast::<u64>().add(n).read_volatile();
                to.cast::<u64>().add(n).write(word);
            }
            bindings::kunmap_local(to);
            bindings::kunmap_local(from);
            (*self.vmf.get()).page = copy.as_ptr();
        }
        VmFaultOutcome(0)
    }

    /// Maps the pages of the file's inode in `pgoffs`, which must lie in what [`Self::around`]
    /// returns. For use in [`VmOperations::map_pages`].
    ///
    /// Returns whether the missing page is among those that have been mapped.
    pub(crate) fn map_inode_pages(&self, pgoffs: Range<usize>) -> bool {
        let around = self.around(PTRS_PER_PTE);
        let (start, end) = (pgoffs.start.max(around.start), pgoffs.end.min(around.end));
        if start >= end || self.is_unshare() {
            return false;
        }
        // SAFETY: By the type invariants this is the argument of a running fault callback. The range
        // lies in the VMA and in one page table, as the C side expects.
        let outcome =
            unsafe { bindings::filemap_map_pages(self.vmf.get(), start, end.wrapping_sub(1)) };
        outcome & bindings::vm_fault_reason_VM_FAULT_NOPAGE != 0
    }

    /// Returns which huge pages of the file could be mapped along with the missing one, as a range of
    /// pages: those in the naturally aligned window of `window` huge pages, a power of two, as far as
    /// the VMA and one table of huge entries reach.
    ///
    /// Returns [`None`] if the missing page itself cannot be mapped as part of a huge one, because
    /// the VMA has not got all of that, or has it at an address that is not aligned as the file is.
    pub(crate) fn huge_around(&self, window: usize) -> Option<Range<usize>> {
        let page = self.address() >> PAGE_SHIFT;
        let window = window.min(PTRS_PER_PTE);
        arithmetic::huge_window(page, self.pgoff(), HPAGE_PAGES, window, self.vma_pages())
    }

    /// Returns whether there is an entry for the huge page with the missing page in it. It may point
    /// to a table of small ones.
    pub(crate) fn has_pmd(&self) -> bool {
        // SAFETY: By the type invariants the structure is valid; during a huge fault it points to
        // the entry. Others may change it at any time.
        unsafe { (*self.vmf.get()).pmd.cast::<u64>().read_volatile() != 0 }
    }

    /// Maps a huge page: `folio`, as page `pgoff` of the file and those that follow it.
    ///
    /// What is mapped there already is left alone. Returns whether `folio` has been mapped by this
    /// call; it has not if it is not of just the right size, if the range is not one that
    /// [`Self::huge_around`] could return, or if somebody else was first.
    pub(crate) fn insert_huge(&self, pgoff: usize, folio: &Folio) -> bool {
        // SAFETY: By the type invariants the structure is valid.
        let mut vmf = unsafe { *self.vmf.get() };
        // How many huge pages away from the missing one.
        let huge = self.pgoff() & !HPAGE_MASK;
        // CAST: A difference of page offsets, of either sign.
        let delta = pgoff.wrapping_sub(huge) as isize >> bindings::PMD_ORDER;
        let index =
            self.address() >> (PAGE_SHIFT as u32 + bindings::PMD_ORDER) & (PTRS_PER_PTE - 1);
        let in_table = index
            .checked_add_signed(delta)
            .is_some_and(|index| index < PTRS_PER_PTE);
        let offset = delta.wrapping_mul(HPAGE_SIZE as isize);
        let addr = (self.address() & !(HPAGE_SIZE - 1)).wrapping_add_signed(offset);
        let (start, end) = (self.vma().start(), self.vma().end());
        let in_vma = addr >= start && addr <= end && end.wrapping_sub(addr) >= HPAGE_SIZE;
        if !in_table || !in_vma || pgoff & HPAGE_MASK != 0 || folio.order() != bindings::PMD_ORDER {
            return false;
        }
        vmf.__bindgen_anon_1.address = addr;
        vmf.pmd = vmf.pmd.wrapping_offset(delta);
        // SAFETY:
        // - The entry is in the table that the fault's own is in, which is there as long as the VMA
        //   is locked, and belongs to the address, which is in the VMA.
        // - The folio is borrowed, and of the right order.
        // - Not asking for write access keeps the core from expecting that an entry that is present
        //   is ours; if the VMA is writable and shared, the new one is so as well.
        unsafe {
            if vmf.pmd.cast::<u64>().read_volatile() != 0 {
                return false;
            }
            bindings::vmf_insert_folio_pmd(&mut vmf, folio.as_ptr(), false)
                == bindings::vm_fault_reason_VM_FAULT_NOPAGE
        }
    }
}

/// How far [`VmFault::insert_pages`] has come.
#[derive(Default)]
struct Inserted {
    /// Pages that are mapped now.
    present: usize,
    /// Those among them that were not before.
    new: usize,
    stopped: bool,
}

/// The answer to a fault, the kernel's `vm_fault_t`.
pub(crate) struct VmFaultOutcome(bindings::vm_fault_t);

impl VmFaultOutcome {
    /// There is no memory for it.
    const OOM: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// There is nothing to map at this address.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// The page is mapped already.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);

    /// A huge fault is to be taken as a small one.
    pub(crate) const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);
}

/// Builds the table of callbacks of a `P`.
///
/// Every callback below is only ever called for a mapping made by [`VmAreaDesc::set_vm_ops`] of
/// the same `P`, because nothing else hands out this table.
struct VmOperationsVTable<P>(PhantomData<P>);

impl<P: VmOperations> VmOperationsVTable<P> {
    /// # Safety
    ///
    /// `private` must be the `vm_private_data` of a mapping made by [`VmAreaDesc::set_vm_ops`], and
    /// the mapping must exist for all of `'a`.
    #[inline]
    unsafe fn private<'a>(private: *const c_void) -> &'a P {
        // SAFETY: `set_vm_ops` has stored a pointer to a `P` that is valid until the file is
        // released. The mapping holds a reference to the file.
        unsafe { &*private.cast() }
    }

    /// # Safety
    ///
    /// See [`Self::private`]; `private` must be valid to read.
    unsafe extern "C" fn mapped(
        _start: c_ulong,
        _end: c_ulong,
        _pgoff: c_ulong,
        _file: *const bindings::file,
        private: *mut *mut c_void,
    ) -> c_int {
        // SAFETY: The caller promises both.
        unsafe { Self::private(*private) }.mapped();
        0
    }

    /// # Safety
    ///
    /// `vma` must be a valid VMA made by [`VmAreaDesc::set_vm_ops`] and locked.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises what is asked for.
        unsafe { Self::private((*vma).vm_private_data) }.open();
    }

    /// # Safety
    ///
    /// As for [`Self::open`].
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: The caller promises what is asked for.
        unsafe { Self::private((*vma).vm_private_data) }.close();
    }

    /// # Safety
    ///
    /// `vmf` must describe a fault in a VMA made by [`VmAreaDesc::set_vm_ops`] and locked.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The caller promises what is asked for.
        let private = unsafe { Self::private((*(*vmf).__bindgen_anon_1.vma).vm_private_data) };
        // SAFETY: This is a running `fault` callback.
        let vmf = unsafe { VmFault::from_raw(vmf) };
        P::fault(private, vmf).0
    }

    /// # Safety
    ///
    /// As for [`Self::fault`]; `order` says what entry of the page table `vmf` has found.
    unsafe extern "C" fn huge_fault(
        vmf: *mut bindings::vm_fault,
        order: c_uint,
    ) -> bindings::vm_fault_t {
        if order != bindings::PMD_ORDER {
            return VmFaultOutcome::FALLBACK.0;
        }
        // SAFETY: The caller promises what is asked for.
        let private = unsafe { Self::private((*(*vmf).__bindgen_anon_1.vma).vm_private_data) };
        // SAFETY: This is a running fault callback.
        let vmf = unsafe { VmFault::from_raw(vmf) };
        P::huge_fault(private, vmf).0
    }

    /// Without this callback, the core gives up the VMA lock and takes every fault a second time under
    /// the mmap lock. So there is one, even if `P` has none.
    ///
    /// # Safety
    ///
    /// As for [`Self::fault`].
    unsafe extern "C" fn map_pages(
        vmf: *mut bindings::vm_fault,
        _start_pgoff: c_ulong,
        _end_pgoff: c_ulong,
    ) -> bindings::vm_fault_t {
        if !P::HAS_MAP_PAGES {
            return 0;
        }
        // SAFETY: The caller promises what is asked for.
        let private = unsafe { Self::private((*(*vmf).__bindgen_anon_1.vma).vm_private_data) };
        // SAFETY: This is a running fault callback.
        let vmf = unsafe { VmFault::from_raw(vmf) };
        if P::map_pages(private, vmf) {
            VmFaultOutcome::NOPAGE.0
        } else {
            0
        }
    }

    const VTABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        mapped: if P::HAS_MAPPED {
            Some(Self::mapped)
        } else {
            None
        },
        open: if P::HAS_OPEN { Some(Self::open) } else { None },
        close: if P::HAS_CLOSE {
            Some(Self::close)
        } else {
            None
        },
        fault: Some(Self::fault),
        huge_fault: if P::HAS_HUGE_FAULT {
            Some(Self::huge_fault)
        } else {
            None
        },
        map_pages: Some(Self::map_pages),
        ..pin_init::zeroed()
    };
}
