// SPDX-License-Identifier: GPL-2.0

//! A test: compares the walk of the page tables with the kernel's own, `vmalloc_to_page()`.
//!
//! Loading fails unless the two agree on every page of a buffer.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../abstractions/mod.rs"]
mod abstractions;

use abstractions::{
    buffer::Buffer,
    page_table, //
};
use kernel::{
    bindings,
    mm::Mm,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

module! {
    type: WalkOracle,
    name: "walk_oracle",
    authors: ["The map_driver developers"],
    description: "Compares page_table::walk with vmalloc_to_page",
    license: "GPL",
    params: {
        pages: i64 {
            default: 16640,
            description: "Pages in the buffer; default 16640, which is 65 MiB",
        },
    },
}

struct WalkOracle;

impl kernel::Module for WalkOracle {
    #[expect(clippy::clone_on_copy, reason = "a reference before Linux 7.3")]
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let buffer = Buffer::new(usize::try_from(module_parameters::pages.value().clone())?)?;
        let current = current!();
        let mm = current.mm().ok_or(EINVAL)?;
        let mut first = None;
        for pgoff in 0..buffer.pages() {
            let addr = address(&buffer, mm, pgoff)?;
            let expected = *first.get_or_insert(addr);
            if addr != expected.wrapping_add(pgoff << PAGE_SHIFT) {
                pr_err!(
                    "page {pgoff}: the indices are of page {}\n",
                    addr.wrapping_sub(expected) >> PAGE_SHIFT
                );
                return Err(EIO);
            }
            // SAFETY: The address is that of a page of the buffer: the first page's is what the
            // indices of its walk make up, this one is as far from it as the page is.
            let oracle = unsafe { bindings::vmalloc_to_page(addr as *const c_void) };
            let area = buffer.addr(pgoff).ok_or(EINVAL)?;
            let leaf = page_table::leaf(mm, area).ok_or(ENOENT)?;
            let walk = page_table::walk(mm, area);
            let end = walk.leaf().ok_or(ENOENT)?;
            if leaf.page().as_ptr() != oracle || end.page().as_ptr() != oracle {
                pr_err!("page {pgoff}: walk and vmalloc_to_page disagree\n");
                return Err(EIO);
            }
            if end.pfn() != leaf.pfn() || end.size() != leaf.size() {
                pr_err!("page {pgoff}: walk and leaf disagree\n");
                return Err(EIO);
            }
        }
        pr_info!(
            "{} pages of {} bytes agree, in page tables of {} levels\n",
            buffer.pages(),
            PAGE_SIZE,
            page_table::levels()
        );
        Ok(Self)
    }
}

/// Returns the address that the indices of the walk for page `pgoff` make up.
fn address(buffer: &Buffer, mm: &Mm, pgoff: usize) -> Result<usize> {
    let walk = page_table::walk(mm, buffer.addr(pgoff).ok_or(EINVAL)?);
    let leaf = walk.leaf().ok_or(ENOENT)?;
    // All bits above those of the indices are those of the kernel's half, ones.
    let mut addr = usize::MAX;
    for step in walk.steps() {
        addr = addr << 9 | step.index;
    }
    addr <<= leaf.size().trailing_zeros();
    // What the leaf leaves open is told by where the page lies in it.
    let first = leaf.pfn() << PAGE_SHIFT & leaf.size().wrapping_sub(1);
    Ok(addr | first)
}
