// SPDX-License-Identifier: GPL-2.0

//! The geometry of x86-64's page tables: levels, shifts, bits, the root.
//!
//! Names and values can be checked against
//! [`pgtable_64_types.h`](srctree/arch/x86/include/asm/pgtable_64_types.h) and
//! [`pgtable_types.h`](srctree/arch/x86/include/asm/pgtable_types.h).

use super::{
    EntryFlags,
    Level,
    Table, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    mm::Mm,
    page::{
        PAGE_MASK,
        PAGE_SHIFT, //
    },
    prelude::*, //
};

const PMD_SHIFT: u32 = 21;
const PUD_SHIFT: u32 = 30;
const P4D_SHIFT: u32 = 39;
const PGDIR_SHIFT_4: u32 = 39;
const PGDIR_SHIFT_5: u32 = 48;

/// Entries in a table of any level.
pub(super) const ENTRIES: usize = 512;

/// `X86_FEATURE_XENPV` of [`cpufeatures.h`](srctree/arch/x86/include/asm/cpufeatures.h): 8*32 + 16.
const XENPV_WORD: usize = 8;
const XENPV_BIT: u32 = 1 << 16;

const _PAGE_PRESENT: u64 = 1 << 0;
const _PAGE_RW: u64 = 1 << 1;
const _PAGE_USER: u64 = 1 << 2;
const _PAGE_ACCESSED: u64 = 1 << 5;
const _PAGE_DIRTY: u64 = 1 << 6;
const _PAGE_PSE: u64 = 1 << 7;
const _PAGE_GLOBAL: u64 = 1 << 8;
const _PAGE_NX: u64 = 1 << 63;

// CAST: `PAGE_SHIFT` is 12.
const PTE: (Level, u32) = (Level::Pte, PAGE_SHIFT as u32);
const PMD: (Level, u32) = (Level::Pmd, PMD_SHIFT);
const PUD: (Level, u32) = (Level::Pud, PUD_SHIFT);

/// The levels of page tables that have four, from the root, each with the shift that takes an
/// address to its index there.
pub(super) const FOUR: [(Level, u32); 4] = [(Level::Pgd, PGDIR_SHIFT_4), PUD, PMD, PTE];

/// The same of page tables that have five.
pub(super) const FIVE: [(Level, u32); 5] = [
    (Level::Pgd, PGDIR_SHIFT_5),
    (Level::P4d, P4D_SHIFT),
    PUD,
    PMD,
    PTE,
];

/// Refuses guests of Xen PV, whose page tables hold the hypervisor's frame numbers.
pub(super) fn supported() -> Result {
    // SAFETY: The CPU's features are settled before any module is loaded.
    let word = unsafe { bindings::boot_cpu_data.__bindgen_anon_3.x86_capability[XENPV_WORD] };
    if word & XENPV_BIT != 0 {
        return Err(ENODEV);
    }
    Ok(())
}

/// Returns whether this machine's page tables have five levels.
#[inline]
pub(super) fn five_levels() -> bool {
    // SAFETY: `pgdir_shift` is set early in boot and constant ever after.
    unsafe { bindings::pgdir_shift == PGDIR_SHIFT_5 }
}

/// Returns the root of `mm`'s page tables. Its kernel half is every `mm`'s, because the top-level
/// entries of the vmalloc area are allocated at boot and copied to each new one.
#[inline]
pub(super) fn root(mm: &Mm) -> Table {
    // SAFETY: An `Mm` is a valid `mm_struct`; its `pgd` is set before anyone can refer to it, and
    // does not change or go away before it does.
    unsafe { NonNull::new_unchecked((*mm.as_raw()).__bindgen_anon_1.pgd.cast()) }
}

/// Returns what `entry`, found at `level`, says.
#[inline]
pub(super) const fn flags(entry: u64, level: Level) -> EntryFlags {
    EntryFlags {
        present: entry & _PAGE_PRESENT != 0,
        leaf: match level {
            Level::Pgd | Level::P4d => false,
            Level::Pud | Level::Pmd => entry & _PAGE_PSE != 0,
            Level::Pte => true,
        },
        write: entry & _PAGE_RW != 0,
        exec: entry & _PAGE_NX == 0,
        accessed: entry & _PAGE_ACCESSED != 0,
        dirty: entry & _PAGE_DIRTY != 0,
        user: entry & _PAGE_USER != 0,
        global: entry & _PAGE_GLOBAL != 0,
    }
}

/// Returns the first frame number that the leaf `entry` maps at the level with `shift`.
#[inline]
pub(super) fn pfn(entry: u64, shift: u32) -> usize {
    // A huge leaf keeps a caching bit where a table's address has its lowest bit, so the mask is
    // that of the level.
    (phys(entry) & usize::MAX.wrapping_shl(shift)) >> PAGE_SHIFT
}

/// Returns the table that `entry` points to.
///
/// # Safety
///
/// `entry` must be a present entry that is not a leaf.
#[inline]
pub(super) unsafe fn table(entry: u64) -> Table {
    // SAFETY: `page_offset_base` is set early in boot and constant ever after.
    let base = unsafe { bindings::page_offset_base };
    let addr = base.wrapping_add(phys(entry) & PAGE_MASK);
    // SAFETY: Page tables lie in the direct mapping, which does not include address zero.
    unsafe { NonNull::new_unchecked(addr as *mut u64) }
}

/// Returns the `struct page` of the frame `pfn`.
///
/// # Safety
///
/// The frame must have a `struct page`.
#[inline]
pub(super) unsafe fn pfn_to_page(pfn: usize) -> NonNull<bindings::page> {
    // SAFETY: `vmemmap_base` is set early in boot and constant ever after.
    let vmemmap = unsafe { bindings::vmemmap_base } as *mut bindings::page;
    // SAFETY: The caller promises that the array has an element for this frame; it does not include
    // address zero.
    unsafe { NonNull::new_unchecked(vmemmap.wrapping_add(pfn)) }
}

/// Returns the physical-address field of `entry`, with the low bits still in it.
#[inline]
fn phys(entry: u64) -> usize {
    // What the processor keeps above the address, such as an encryption bit, is known in boot.
    #[cfg(CONFIG_DYNAMIC_PHYSICAL_MASK)]
    // SAFETY: `physical_mask` is set early in boot and constant ever after.
    let mask = unsafe { bindings::physical_mask };
    #[cfg(not(CONFIG_DYNAMIC_PHYSICAL_MASK))]
    let mask = (1u64 << 52) - 1;
    // CAST: `usize` is 64 bits wide on x86-64.
    (entry & mask) as usize
}
