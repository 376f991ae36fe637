// SPDX-License-Identifier: GPL-2.0

//! A branch that costs nothing until somebody wants it.
//!
//! While nobody does, it is a no-op in the instruction stream; asking for it patches the code.
//! A static key has to be a symbol of its own, so this module is one key, the driver's only one.
//!
//! C header: [`include/linux/jump_label.h`](srctree/include/linux/jump_label.h)

use core::ptr;
use kernel::{
    bindings,
    jump_label::static_branch_unlikely, //
};

// A `static` that is not `mut` would be put into read-only memory.
static mut KEY: Key = Key {
    key: pin_init::zeroed(),
};

#[repr(C)]
struct Key {
    key: bindings::static_key_false,
}

/// Returns whether somebody holds a [`Wanted`]. Any context.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    // SAFETY: `KEY` is a static key, and false to begin with.
    unsafe { static_branch_unlikely!(KEY, Key, key) }
}

/// Makes [`is_wanted`] true for as long as it lives.
pub(crate) struct Wanted(());

impl Wanted {
    /// Patches the code, if this is the first. May sleep.
    pub(crate) fn new() -> Self {
        // SAFETY: `KEY` is a static key of this module, which is loaded.
        unsafe { bindings::static_key_slow_inc(key()) };
        Self(())
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // SAFETY: As above, and `new` has counted up.
        unsafe { bindings::static_key_slow_dec(key()) };
    }
}

fn key() -> *mut bindings::static_key {
    ptr::addr_of_mut!(KEY).cast()
}
