// SPDX-License-Identifier: GPL-2.0

//! An inode of a driver's own, and the folios in it.
//!
//! The inode of a device node has no size and no contents. The core maps many pages at once only if
//! they are a folio of the file, and the file is long enough. So a driver that has folios puts them
//! into an inode that has a size, and gives that to its files in place of the node's, as
//! `f_mapping`. DRM and device-dax do the same.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h)

use super::folio::OwnedFolio;
use core::ptr::NonNull;
use kernel::{
    alloc::flags::__GFP_NOWARN,
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    fs::file::Offset,
    prelude::*, //
};

extern "C" {
    // `linux/pseudo_fs.h` is not among the headers that bindgen reads.
    fn init_pseudo(fc: *mut bindings::fs_context, magic: c_ulong) -> *mut c_void;
}

/// A file system that is never registered and has nothing in it.
///
/// It has no owner: a mount would keep the module loaded for ever. Instead, every mount is undone
/// before the module goes.
static mut FS_TYPE: bindings::file_system_type = bindings::file_system_type {
    name: kernel::str::as_char_ptr_in_const_context(c"private_inode"),
    init_fs_context: Some(init_fs_context),
    kill_sb: Some(bindings::kill_anon_super),
    ..pin_init::zeroed()
};

/// # Safety
///
/// `fc` must be the context of a file system that is being mounted.
unsafe extern "C" fn init_fs_context(fc: *mut bindings::fs_context) -> c_int {
    const MAGIC: c_ulong = u32::from_be_bytes(*b"pino") as c_ulong;

    // SAFETY: The caller promises what is asked for.
    if unsafe { init_pseudo(fc, MAGIC) }.is_null() {
        ENOMEM.to_errno()
    } else {
        0
    }
}

/// An inode that is in no directory, and owns its folios.
///
/// # Invariants
///
/// - `inode` is an inode of the file system mounted at `mnt`; `self` owns a reference to the one,
///   and the other.
/// - The page cache of the inode has just what is in `folios`, but does not count it, so that nobody
///   comes to reclaim or to truncate it.
pub(crate) struct PrivateInode {
    mnt: NonNull<bindings::vfsmount>,
    inode: NonNull<bindings::inode>,
    folios: KVVec<OwnedFolio>,
}

// SAFETY: An inode belongs to no thread.
unsafe impl Send for PrivateInode {}
// SAFETY: Through a shared reference only a pointer can be had.
unsafe impl Sync for PrivateInode {}

impl PrivateInode {
    /// Makes an inode of `size` bytes. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or whatever else mounting can fail with.
    pub(crate) fn new(size: Offset) -> Result<Self> {
        // SAFETY: The file system type is valid, and stays so until the mount is undone by `Drop`.
        let mnt = from_err_ptr(unsafe { bindings::kern_mount(&raw mut FS_TYPE) })?;
        // SAFETY: The mount is valid.
        let inode = from_err_ptr(unsafe { bindings::alloc_anon_inode((*mnt).mnt_sb) });
        let inode = inode.inspect_err(|_| {
            // SAFETY: The mount is ours, and nothing uses it.
            unsafe { bindings::kern_unmount(mnt) };
        })?;
        // SAFETY: Nobody else knows the inode yet. Neither function returns null.
        // INVARIANT: Both have been made just now.
        unsafe {
            (*inode).i_size = size;
            Ok(Self {
                mnt: NonNull::new_unchecked(mnt),
                inode: NonNull::new_unchecked(inode),
                folios: KVVec::new(),
            })
        }
    }

    /// Puts `folio` into the inode, as pages from `pgoff` on, where there must be none yet. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `pgoff` is not a multiple of the folio's pages; `ENOMEM`.
    pub(crate) fn add(&mut self, mut folio: OwnedFolio, pgoff: usize) -> Result {
        let nr = 1usize << folio.order();
        let last = pgoff.checked_add(nr - 1).ok_or(EINVAL)?;
        if pgoff % nr != 0 {
            return Err(EINVAL);
        }
        self.folios.reserve(1, GFP_KERNEL | __GFP_NOWARN)?;
        folio.mark_uptodate();
        // SAFETY: The inode is ours, and so is its address space, which outlives the folio. The page
        // cache expects folios that say where they belong.
        let err = unsafe {
            folio.set_mapping(self.mapping(), pgoff);
            bindings::xa_store_range(
                &raw mut (*self.mapping()).i_pages,
                pgoff,
                last,
                folio.as_ptr().cast(),
                bindings::GFP_KERNEL | bindings::__GFP_NOWARN,
            )
        };
        // SAFETY: This is what `xa_store_range` has returned.
        to_result(unsafe { bindings::xa_err(err) })?;
        // INVARIANT: The folio is in the page cache, and now in `folios` as well: there is room.
        self.folios.push(folio, GFP_KERNEL)?;
        Ok(())
    }

    /// Returns the folios, in the order in which they were added.
    pub(crate) fn folios(&self) -> &[OwnedFolio] {
        &self.folios
    }

    /// Returns the address space, which is valid as long as `self`.
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { (*self.inode.as_ptr()).i_mapping }
    }
}

impl Drop for PrivateInode {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is ours, and no file is open that belongs to it.
        unsafe { bindings::xa_destroy(&raw mut (*self.mapping()).i_pages) };
        self.folios.clear();
        // SAFETY: By the type invariants both are ours. The mount is internal, so it is gone, with
        // all that refers to the file system type, when this returns.
        unsafe {
            bindings::iput(self.inode.as_ptr());
            bindings::kern_unmount(self.mnt.as_ptr());
        }
    }
}
