// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of pages, windows and bounds.
//!
//! It is apart from what uses it, and needs nothing but `core`, so that its tests run anywhere:
//! under KUnit, and on any machine with `rustc --test`.

use core::ops::Range;

/// Returns the index of `addr` in a table of `entries` entries, each of which stands for `1 << shift`
/// bytes. `entries` is a power of two, and `shift` below the number of bits of an address.
#[inline]
pub(crate) const fn table_index(addr: usize, shift: u32, entries: usize) -> usize {
    addr.wrapping_shr(shift) & entries.wrapping_sub(1)
}

/// Returns by how many pages of `page_size` bytes `addr` lies behind the start of the naturally
/// aligned leaf of `size` bytes that holds it. Sizes are powers of two.
#[inline]
pub(crate) const fn leaf_offset(addr: usize, size: usize, page_size: usize) -> usize {
    (addr & size.wrapping_sub(1)) / page_size
}

/// Clips `len` bytes at `offset` to what an object of `size` bytes has, and returns both anew.
#[inline]
pub(crate) const fn clip(offset: usize, len: usize, size: usize) -> (usize, usize) {
    let offset = if offset < size { offset } else { size };
    // OVERFLOW: `offset` is at most `size`.
    let left = size.wrapping_sub(offset);
    (offset, if len < left { len } else { left })
}

/// Returns the naturally aligned window of `window` pages around `page`, as far as it lies in `vma`,
/// in terms of the file: there `page` is `pgoff`.
///
/// Page numbers are user addresses divided by the page size. `window` is a power of two; `page` lies
/// in `vma`.
#[inline]
pub(crate) fn window(page: usize, pgoff: usize, window: usize, vma: Range<usize>) -> Range<usize> {
    let start = page & !window.wrapping_sub(1);
    // OVERFLOW: User addresses are far from the end of the address space.
    let end = start.wrapping_add(window).min(vma.end);
    let start = start.max(vma.start);
    // OVERFLOW: `vma` has pages on both sides of `page`, and the file has them all.
    pgoff.wrapping_sub(page.wrapping_sub(start))..pgoff.wrapping_add(end.wrapping_sub(page))
}

/// As [`window`], but of huge pages that are wholly in `vma`, and of `huge` pages each.
///
/// Returns [`None`] if that of `page` is not, or if `vma` is not aligned to huge pages as the file
/// is. The result is in pages; `window` is in huge ones. Both `huge` and `window` are powers of two.
pub(crate) fn huge_window(
    page: usize,
    pgoff: usize,
    huge: usize,
    window_huge: usize,
    vma: Range<usize>,
) -> Option<Range<usize>> {
    let mask = huge.wrapping_sub(1);
    let first = page & !mask;
    // OVERFLOW: As above.
    let vma = vma.start.wrapping_add(mask) & !mask..vma.end & !mask;
    if (page ^ pgoff) & mask != 0 || !vma.contains(&first) {
        return None;
    }
    Some(window(page, pgoff, window_huge.wrapping_mul(huge), vma))
}

#[cfg_attr(not(test), kernel::prelude::kunit_tests(map_driver_arithmetic))]
mod tests {
    use super::*;

    #[test]
    fn a_table_index_has_the_bits_above_the_shift() {
        let addr = 0xffff_c912_3456_789a;
        assert_eq!(table_index(addr, 12, 512), 0x167 & 0x1ff);
        assert_eq!(table_index(addr, 21, 512), 0x1a2 & 0x1ff);
        assert_eq!(table_index(addr, 30, 512), 0x48);
        assert_eq!(table_index(addr, 39, 512), 0x192);
        assert_eq!(table_index(usize::MAX, 48, 512), 511);
        assert_eq!(table_index(0, 12, 512), 0);
    }

    #[test]
    fn a_leaf_offset_is_in_pages_and_below_the_leaf() {
        assert_eq!(leaf_offset(0xffff_c900_0000_0fff, 0x1000, 0x1000), 0);
        assert_eq!(leaf_offset(0xffff_c900_001f_f000, 0x20_0000, 0x1000), 511);
        assert_eq!(leaf_offset(0xffff_c900_0020_0000, 0x20_0000, 0x1000), 0);
        assert_eq!(
            leaf_offset(0xffff_c900_3fff_ffff, 0x4000_0000, 0x1000),
            0x3_ffff
        );
    }

    #[test]
    fn a_clipped_range_ends_with_the_object() {
        assert_eq!(clip(0, 10, 4), (0, 4));
        assert_eq!(clip(3, 10, 4), (3, 1));
        assert_eq!(clip(4, 10, 4), (4, 0));
        assert_eq!(clip(usize::MAX, usize::MAX, 4), (4, 0));
        assert_eq!(clip(0, usize::MAX, usize::MAX), (0, usize::MAX));
    }

    #[test]
    fn a_window_is_aligned_by_address_and_counted_by_file() {
        // 16 pages from 0x1010 on; the fault is in the fourth of them, page 103 of the file.
        assert_eq!(window(0x1013, 103, 16, 0x1000..0x2000), 100..116);
        // The VMA starts, or ends, in the window.
        assert_eq!(window(0x1013, 103, 16, 0x1012..0x2000), 102..116);
        assert_eq!(window(0x1013, 103, 16, 0x1000..0x1014), 100..104);
        // One page is what is left of any window in the end.
        assert_eq!(window(0x1013, 103, 1, 0x1000..0x2000), 103..104);
        assert_eq!(window(0x1013, 0, 512, 0x1013..0x1014), 0..1);
    }

    #[test]
    fn a_huge_window_has_whole_huge_pages_only() {
        let vma = 0x1000..0x2000;
        assert_eq!(
            huge_window(0x1234, 0x234, 512, 1, vma.clone()),
            Some(0x200..0x400)
        );
        assert_eq!(
            huge_window(0x1234, 0x234, 512, 64, vma.clone()),
            Some(0..0x1000)
        );
        // Of these the first and the last are not whole.
        assert_eq!(
            huge_window(0x1400, 0x400, 512, 64, 0x1001..0x1fff),
            Some(0x200..0xe00)
        );
        assert_eq!(huge_window(0x1001, 0x001, 512, 64, 0x1001..0x1fff), None);
        assert_eq!(huge_window(0x1fff, 0xfff, 512, 64, vma.start..0x1fff), None);
        // Nothing whole at all, and an alignment that is not the file's.
        assert_eq!(huge_window(0x1100, 0x100, 512, 64, 0x1080..0x1180), None);
        assert_eq!(huge_window(0x1234, 0x235, 512, 64, vma), None);
    }
}
