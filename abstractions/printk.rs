// SPDX-License-Identifier: GPL-2.0

//! Restraint in what goes to the kernel's log.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)

use kernel::{
    bindings,
    prelude::*, //
};

/// Returns whether a line that users can cause any number of times may be printed now.
///
/// This is `printk_ratelimit()`: by default ten lines in five seconds. `caller` is named in the
/// log when lines have been left out. Any context.
pub(crate) fn printk_ratelimit(caller: &'static CStr) -> bool {
    // SAFETY: The name is a C string that lives for ever.
    unsafe { bindings::__printk_ratelimit(caller.as_char_ptr()) != 0 }
}
