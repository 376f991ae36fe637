// SPDX-License-Identifier: GPL-2.0

//! The module itself.

use kernel::{
    ModuleMetadata,
    ThisModule, //
};

/// The module `M`, as the owner of what must not outlive its code.
///
/// As the kernel's own, which came with Linux 7.3: before, every module's crate had it in its root.
#[cfg_attr(
    kernel_7_2,
    expect(
        clippy::extra_unused_type_parameters,
        reason = "a crate has one module"
    )
)]
pub(crate) const fn this_module<M: ModuleMetadata>() -> &'static ThisModule {
    #[cfg(kernel_7_2)]
    let module = &crate::THIS_MODULE;
    #[cfg(not(kernel_7_2))]
    let module = kernel::module::this_module::<M>();
    module
}
