// SPDX-License-Identifier: GPL-2.0

//! Capabilities.
//!
//! C header: [`include/linux/capability.h`](srctree/include/linux/capability.h)

use kernel::{
    bindings,
    ffi::c_int,
    fs::File, //
};

/// Returns whether whoever opened `file` had `CAP_SYS_ADMIN` in the initial user namespace.
///
/// It is the opener that counts, as for `/proc/PID/pagemap`: a file that is passed on, or kept
/// while privileges are dropped, gives neither more nor less than it did.
pub(crate) fn file_has_sys_admin(file: &File) -> bool {
    // SAFETY: The file is valid, and so is the initial user namespace, always.
    unsafe {
        bindings::file_ns_capable(
            file.as_ptr(),
            &raw mut bindings::init_user_ns,
            // CAST: A small constant.
            bindings::CAP_SYS_ADMIN as c_int,
        )
    }
}
