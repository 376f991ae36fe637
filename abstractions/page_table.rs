// SPDX-License-Identifier: GPL-2.0

//! Walks of the kernel's half of the page tables.
//!
//! An address inside a vmalloc'ed area says nothing about where its page lies in physical memory;
//! only the page tables know. [`walk`] descends them as `vmalloc_to_page()` in C does, and returns
//! what it saw on the way; [`leaf`] is the same descent for callers that only want its end.
//!
//! The functions here may be called from any context and take no locks: what keeps the tables in
//! place is the ownership of the mapped area, which [`KernelAddr`] stands for.
//!
//! C headers: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h),
//! [`mm/vmalloc.c`](srctree/mm/vmalloc.c)

use super::arithmetic::{
    leaf_offset,
    table_index, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    mm::Mm,
    page::{
        BorrowedPage,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

#[cfg_attr(CONFIG_X86_64, path = "page_table/x86_64.rs")]
mod arch;

/// Most levels that a page table of a supported architecture has.
pub(crate) const MAX_LEVELS: usize = 5;

/// A virtual address in the kernel's half of the address space.
///
/// # Invariants
///
/// For the lifetime `'a` the address lies in an area that is mapped in the kernel's page tables,
/// whose mapping does not change, and whose memory has a `struct page`.
#[derive(Clone, Copy)]
pub(crate) struct KernelAddr<'a> {
    addr: usize,
    _area: PhantomData<&'a ()>,
}

impl<'a> KernelAddr<'a> {
    /// Vouches for the address `addr`.
    ///
    /// # Safety
    ///
    /// For the lifetime `'a`, `addr` must lie in an area such as `vmalloc()` or `vmap()` returns:
    /// mapped for all of `'a` without change, and backed by memory that has a `struct page`.
    pub(crate) unsafe fn new(addr: usize) -> Self {
        // INVARIANT: The caller promises what the type asks for.
        Self {
            addr,
            _area: PhantomData,
        }
    }
}

/// Pages in the kernel's half of the address space, one after the other.
///
/// # Invariants
///
/// `start` and the `len` pages from there on lie in one area as [`KernelAddr`] describes it.
pub(crate) struct KernelRange<'a> {
    start: KernelAddr<'a>,
    len: usize,
}

impl<'a> KernelRange<'a> {
    /// Vouches for `len` pages from that at `start` on.
    ///
    /// # Safety
    ///
    /// They must lie in the area that `start` lies in.
    pub(crate) unsafe fn new(start: KernelAddr<'a>, len: usize) -> Self {
        // INVARIANT: The caller promises what the type asks for.
        Self { start, len }
    }
}

/// A level of the page table, by the kernel's name for its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Page global directory, the root.
    Pgd,
    /// Page 4th-level directory; only in page tables of five levels.
    P4d,
    /// Page upper directory.
    Pud,
    /// Page middle directory.
    Pmd,
    /// Page table proper.
    Pte,
}

impl Level {
    /// Returns the kernel's name of this level.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Level::Pgd => "pgd",
            Level::P4d => "p4d",
            Level::Pud => "pud",
            Level::Pmd => "pmd",
            Level::Pte => "pte",
        }
    }
}

/// What an entry says, in terms that do not depend on the architecture.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EntryFlags {
    /// The entry leads somewhere.
    pub(crate) present: bool,
    /// The entry maps memory; otherwise it points to the next table.
    pub(crate) leaf: bool,
    /// Writing is allowed.
    pub(crate) write: bool,
    /// Execution is not forbidden.
    pub(crate) exec: bool,
    /// The processor has used the entry.
    pub(crate) accessed: bool,
    /// The processor has written through the entry.
    pub(crate) dirty: bool,
    /// User mode may use the entry.
    pub(crate) user: bool,
    /// The translation belongs to every address space.
    pub(crate) global: bool,
}

/// One entry passed on the way down.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// The level of the table that holds the entry.
    pub(crate) level: Level,
    /// Index of the entry in its table.
    pub(crate) index: usize,
    /// What the entry said.
    pub(crate) flags: EntryFlags,
}

/// Where a walk ended: the page that holds the address.
pub(crate) struct Leaf<'a> {
    pfn: usize,
    size: usize,
    _area: PhantomData<&'a ()>,
}

impl<'a> Leaf<'a> {
    /// Returns the frame number of the page that holds the address.
    pub(crate) fn pfn(&self) -> usize {
        self.pfn
    }

    /// Returns how many bytes the leaf entry maps: the page size, or that of a huge page.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Returns the page that holds the address.
    pub(crate) fn page(&self) -> BorrowedPage<'a> {
        // SAFETY: `self` comes from a walk for a `KernelAddr<'a>`. By its invariants the memory
        // found there has a `struct page`, which stays valid for `'a`.
        unsafe { BorrowedPage::from_raw(arch::pfn_to_page(self.pfn)) }
    }
}

/// The record of a walk.
pub(crate) struct Walk<'a> {
    steps: [Option<Step>; MAX_LEVELS],
    leaf: Option<Leaf<'a>>,
}

impl<'a> Walk<'a> {
    /// Returns the entries passed, from the root.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// Returns where the walk ended, or [`None`] if it ended in a hole.
    pub(crate) fn leaf(&self) -> Option<&Leaf<'a>> {
        self.leaf.as_ref()
    }
}

/// Checks that this machine's page tables are what the functions here take them for.
///
/// # Errors
///
/// `ENODEV` if they are not.
pub(crate) fn supported() -> Result {
    arch::supported()
}

/// Returns the number of levels of this machine's page tables, 4 or 5.
pub(crate) fn levels() -> usize {
    if arch::five_levels() {
        arch::FIVE.len()
    } else {
        arch::FOUR.len()
    }
}

/// Walks the kernel's page tables for `addr` and records every entry passed.
///
/// `mm` is where the walk may start on architectures whose user page tables hold the kernel's
/// half as well. It does not matter which one: they all share that half.
pub(crate) fn walk<'a>(mm: &Mm, addr: KernelAddr<'a>) -> Walk<'a> {
    let mut steps = [None; MAX_LEVELS];
    let mut slots = steps.iter_mut();
    let leaf = descend(mm, addr, |step, _| {
        if let Some(slot) = slots.next() {
            *slot = Some(step);
        }
    });
    Walk { steps, leaf }
}

/// Walks the kernel's page tables for `addr` and returns where it ended, or [`None`] for a hole.
///
/// `mm` is as for [`walk`].
#[inline(always)]
pub(crate) fn leaf<'a>(mm: &Mm, addr: KernelAddr<'a>) -> Option<Leaf<'a>> {
    descend(mm, addr, |_, _| ())
}

/// Walks the kernel's page tables for the pages of `range`, in order.
///
/// The walk descends from the root once for each lowest table, not once for each page. It ends
/// early at a hole. `mm` is as for [`walk`].
#[inline]
pub(crate) fn pages<'a>(mm: &'a Mm, range: KernelRange<'a>) -> Pages<'a> {
    Pages {
        mm,
        range,
        run: Run::default(),
        next: 0,
    }
}

/// An iterator over the pages of a range; see [`pages`].
pub(crate) struct Pages<'a> {
    mm: &'a Mm,
    /// What the runs so far have not covered.
    range: KernelRange<'a>,
    run: Run<'a>,
    /// Index in the run of the page that is next.
    next: usize,
}

/// Pages that can be had without another descent.
///
/// # Invariants
///
/// The pages lie in an area as [`KernelRange`] describes it. If there is a `table`, it points to
/// `len` entries of one lowest table.
#[derive(Default)]
struct Run<'a> {
    len: usize,
    /// The first entry in the lowest table; [`None`] inside a leaf higher up.
    table: Option<Table>,
    /// The first frame.
    pfn: usize,
    _area: PhantomData<&'a ()>,
}

impl<'a> Run<'a> {
    /// Returns page number `n`, or [`None`] at the end or at a hole.
    #[inline(always)]
    fn page(&self, n: usize) -> Option<BorrowedPage<'a>> {
        if n >= self.len {
            return None;
        }
        let pfn = if let Some(table) = self.table {
            // SAFETY: By the type invariants this is an entry of a table. For the rest see
            // `descend_through`.
            let entry = unsafe { table.add(n).as_ptr().read_volatile() };
            if !arch::flags(entry, Level::Pte).present {
                return None;
            }
            arch::pfn(entry, PAGE_SHIFT as u32)
        } else {
            self.pfn.wrapping_add(n)
        };
        // SAFETY: By the type invariants this memory has a `struct page` that stays valid for `'a`.
        Some(unsafe { BorrowedPage::from_raw(arch::pfn_to_page(pfn)) })
    }
}

impl<'a> Iterator for Pages<'a> {
    type Item = BorrowedPage<'a>;

    fn next(&mut self) -> Option<BorrowedPage<'a>> {
        if self.next >= self.run.len {
            self.run = self.descend()?;
            self.next = 0;
        }
        let page = self.run.page(self.next);
        self.next = self.next.wrapping_add(1);
        page
    }

    // What `for_each` comes down to. Unlike `next` it keeps its place in registers.
    #[inline]
    fn fold<B, F: FnMut(B, BorrowedPage<'a>) -> B>(mut self, init: B, mut f: F) -> B {
        let mut acc = init;
        loop {
            for n in self.next..self.run.len {
                let Some(page) = self.run.page(n) else {
                    return acc;
                };
                acc = f(acc, page);
            }
            let Some(run) = self.descend() else {
                return acc;
            };
            self.run = run;
            self.next = 0;
        }
    }
}

impl<'a> Pages<'a> {
    /// Descends to the lowest table for the start of the range, or to a leaf above it. Takes what
    /// can be had there out of the range, and returns it; [`None`] at the end or at a hole.
    fn descend(&mut self) -> Option<Run<'a>> {
        if self.range.len == 0 {
            return None;
        }
        let start = self.range.start;
        let mut last = None;
        let leaf = descend(self.mm, start, |step, entry| last = Some((step, entry)))?;
        let (step, entry) = last?;
        let (len, table) = if step.level == Level::Pte {
            (arch::ENTRIES.wrapping_sub(step.index), Some(entry))
        } else {
            let offset = leaf_offset(start.addr, leaf.size, PAGE_SIZE);
            ((leaf.size / PAGE_SIZE).wrapping_sub(offset), None)
        };
        let len = len.min(self.range.len);
        // INVARIANT: The rest of the range.
        self.range.start.addr = start.addr.wrapping_add(len.wrapping_mul(PAGE_SIZE));
        self.range.len = self.range.len.wrapping_sub(len);
        // INVARIANT: The first `len` pages of the range, and as many entries of its table or less.
        Some(Run {
            len,
            table,
            pfn: leaf.pfn,
            _area: PhantomData,
        })
    }
}

#[inline(always)]
fn descend<'a>(mm: &Mm, addr: KernelAddr<'a>, visit: impl FnMut(Step, Table)) -> Option<Leaf<'a>> {
    // Two copies of the loop, so that levels and shifts are constants in each.
    if arch::five_levels() {
        descend_through(&arch::FIVE, mm, addr, visit)
    } else {
        descend_through(&arch::FOUR, mm, addr, visit)
    }
}

#[inline(always)]
fn descend_through<'a, const N: usize>(
    geometry: &[(Level, u32); N],
    mm: &Mm,
    addr: KernelAddr<'a>,
    mut visit: impl FnMut(Step, Table),
) -> Option<Leaf<'a>> {
    let addr = addr.addr;
    let mut table = arch::root(mm);
    for &(level, shift) in geometry {
        let index = table_index(addr, shift, arch::ENTRIES);
        // SAFETY:
        // - `table` is the root or was read from a present entry that is not a leaf, so it points
        //   to a table of `arch::ENTRIES` entries, and an index is below that.
        // - The tables above a `KernelAddr` are not freed during its lifetime, and the kernel only
        //   ever writes an entry as a whole word.
        // - The read is volatile: other CPUs may set bits in the entry at any time.
        let (slot, entry) = unsafe {
            let slot = table.add(index);
            (slot, slot.as_ptr().read_volatile())
        };
        let flags = arch::flags(entry, level);
        let step = Step {
            level,
            index,
            flags,
        };
        visit(step, slot);
        if !flags.present {
            return None;
        }
        if flags.leaf {
            let size = 1usize.wrapping_shl(shift);
            return Some(Leaf {
                pfn: arch::pfn(entry, shift).wrapping_add(leaf_offset(addr, size, PAGE_SIZE)),
                size,
                _area: PhantomData,
            });
        }
        // SAFETY: The entry is present, not a leaf, and not at the last level, whose present
        // entries are all leaves. So it points to a table.
        table = unsafe { arch::table(entry) };
    }
    None
}

/// A table of one level: its first entry.
type Table = NonNull<u64>;
