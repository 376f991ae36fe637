// SPDX-License-Identifier: GPL-2.0

//! Folios: pages that are allocated, counted and mapped as one.
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/page-flags.h`](srctree/include/linux/page-flags.h)

use core::{
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    bindings,
    ffi::c_ulong,
    page::Page,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    types::Opaque,
};

/// A folio: a power of two of pages, aligned to its size.
///
/// # Invariants
///
/// The wrapped folio is allocated.
#[repr(transparent)]
pub(crate) struct Folio(Opaque<bindings::folio>);

impl Folio {
    /// Returns the folio that `page` belongs to.
    #[inline]
    pub(crate) fn of(page: &Page) -> &Self {
        let page = page.as_ptr();
        // This is `page_folio()`, which C has inline only.
        //
        // SAFETY: The page is borrowed, so it is valid. The field does not change while it is
        // allocated; the kernel reads it just so.
        let info = unsafe {
            (&raw const (*page).__bindgen_anon_1.__bindgen_anon_3.compound_info).read_volatile()
        };
        let head = if info & 1 == 0 {
            page
        } else if cfg!(CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP)
            && size_of::<bindings::page>().is_power_of_two()
        {
            page.map_addr(|addr| addr & info)
        } else {
            ptr::with_exposed_provenance_mut(info.wrapping_sub(1))
        };
        // SAFETY: A tail page names its head, which is allocated with it, as a folio of which it is
        // the first page.
        // INVARIANT: It is allocated.
        unsafe { &*head.cast() }
    }

    /// Returns the order: the folio has two to this power pages.
    pub(crate) fn order(&self) -> u32 {
        let folio = self.0.get();
        // SAFETY: By the type invariants the folio is allocated, and has a second page, with the
        // order in it, if it has the flag. Neither changes in that time.
        unsafe {
            let flags = (*folio).__bindgen_anon_1.__bindgen_anon_1.flags.f;
            if flags & 1 << bindings::pageflags_PG_head == 0 {
                0
            } else {
                // CAST: Only eight bits are left.
                ((*folio).__bindgen_anon_2.__bindgen_anon_1._flags_1 & 0xff) as u32
            }
        }
    }

    /// Returns a pointer to the folio.
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.get()
    }

    /// Takes a reference, which somebody has to drop.
    #[inline]
    pub(crate) fn get(&self) {
        self.refcount().add(1, Relaxed);
    }

    #[inline]
    fn refcount(&self) -> &Atomic<i32> {
        let folio = self.0.get();
        // SAFETY: By the type invariants the folio is allocated. Its count is only ever accessed
        // atomically.
        unsafe {
            Atomic::from_ptr(&raw mut (*folio).__bindgen_anon_1.__bindgen_anon_1._refcount.counter)
        }
    }
}

/// A reference to a folio of one's own.
///
/// # Invariants
///
/// The folio is allocated, and `self` owns a reference to it.
pub(crate) struct OwnedFolio(NonNull<Folio>);

// SAFETY: A folio belongs to no thread.
unsafe impl Send for OwnedFolio {}
// SAFETY: Through a shared reference only atomic operations and reads of what does not change are
// possible.
unsafe impl Sync for OwnedFolio {}

impl OwnedFolio {
    /// Allocates a folio of `2^order` pages. Whether this may sleep, and the rest, is up to `gfp`.
    ///
    /// Returns [`None`] if there is no memory.
    pub(crate) fn alloc(order: u32, gfp: bindings::gfp_t) -> Option<Self> {
        // SAFETY: Just an FFI call; what it may do is the caller's choice.
        let folio = unsafe { bindings::folio_alloc_noprof(gfp, order) };
        // INVARIANT: A new folio has one reference, which is handed over.
        NonNull::new(folio.cast()).map(Self)
    }

    /// Sets what the folio belongs to: the address space `mapping`, from page `pgoff` on.
    ///
    /// A page cache has a reference to each of its pages, and the kernel knows: it splits, moves or
    /// removes a folio when it finds no other but those that it can account for. So `mapping` has its
    /// references here, and that of `self` is always one too many. Without them, user space could make
    /// up for what is missing, with references from pipes or direct I/O.
    ///
    /// # Safety
    ///
    /// `mapping` must be valid as long as it is set, or null.
    pub(super) unsafe fn set_mapping(
        &mut self,
        mapping: *mut bindings::address_space,
        pgoff: usize,
    ) {
        let folio = self.as_ptr();
        let pages = 1i32 << self.order();
        if !mapping.is_null() {
            self.refcount().add(pages, Relaxed);
        }
        // SAFETY: By the type invariants the folio is allocated; with its lock held, these fields
        // are its owner's to set. Some read them without the lock.
        let old = unsafe {
            bindings::__folio_lock(folio);
            let fields = &raw mut (*folio).__bindgen_anon_1.__bindgen_anon_1;
            (&raw mut (*fields).__bindgen_anon_2.index).write_volatile(pgoff);
            let field = &raw mut (*fields).mapping;
            let old = field.read_volatile();
            field.write_volatile(mapping);
            bindings::folio_unlock(folio);
            old
        };
        if !old.is_null() {
            // This is not the last one: `self` has its own.
            self.refcount().add(-pages, Relaxed);
        }
    }

    /// Says that the contents are what they should be.
    pub(super) fn mark_uptodate(&mut self) {
        let folio = self.as_ptr();
        // SAFETY: By the type invariants the folio is allocated. Flags are changed atomically.
        unsafe {
            bindings::set_bit(
                bindings::pageflags_PG_uptodate as c_ulong,
                &raw mut (*folio).__bindgen_anon_1.__bindgen_anon_1.flags.f,
            )
        };
    }

    /// Returns the page with index `n`, which must be in the folio.
    pub(crate) fn page(&self, n: usize) -> *mut bindings::page {
        self.as_ptr().cast::<bindings::page>().wrapping_add(n)
    }
}

impl Deref for OwnedFolio {
    type Target = Folio;

    fn deref(&self) -> &Folio {
        // SAFETY: By the type invariants the folio is allocated.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for OwnedFolio {
    fn drop(&mut self) {
        // Others that hold a reference may outlive the inode, and a folio that belongs to one cannot
        // be freed.
        //
        // SAFETY: Null is allowed.
        unsafe { self.set_mapping(ptr::null_mut(), 0) };
        // This is `folio_put()`, which C has inline only.
        if self.refcount().fetch_sub(1, Full) == 1 {
            // SAFETY: The last reference has been dropped just now.
            unsafe { bindings::__folio_put(self.as_ptr()) };
        }
    }
}
