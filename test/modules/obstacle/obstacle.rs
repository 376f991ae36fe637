// SPDX-License-Identifier: GPL-2.0

//! A test: takes what the driver needs to load, so that loading it fails half-way.

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

module! {
    type: Obstacle,
    name: "obstacle",
    authors: ["The map_driver developers"],
    description: "Takes what map_driver needs",
    license: "GPL",
    params: {
        class: i64 {
            default: 0,
            description: "1 to take the device class mapdrv",
        },
        majors: i64 {
            default: 0,
            description: "1 to take all majors that are given out",
        },
    },
}

/// # Invariants
///
/// All that is named here is owned.
struct Obstacle {
    class: Option<*mut bindings::class>,
    regions: KVec<bindings::dev_t>,
}

// SAFETY: Classes and regions belong to no thread.
unsafe impl Send for Obstacle {}
// SAFETY: Nothing is done through a shared reference.
unsafe impl Sync for Obstacle {}

impl kernel::Module for Obstacle {
    #[expect(clippy::clone_on_copy, reason = "references before Linux 7.3")]
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let mut obstacle = Self {
            class: None,
            regions: KVec::new(),
        };
        if module_parameters::class.value().clone() == 1 {
            // SAFETY: The name is a C string that lives for ever.
            let class = unsafe { bindings::class_create(c"mapdrv".as_char_ptr()) };
            obstacle.class = Some(from_err_ptr(class)?);
        }
        if module_parameters::majors.value().clone() == 1 {
            loop {
                let mut dev = 0;
                // SAFETY: The number is ours to write, the name lives for ever.
                let result = unsafe {
                    bindings::alloc_chrdev_region(&mut dev, 0, 1, c"obstacle".as_char_ptr())
                };
                if result < 0 {
                    break;
                }
                obstacle.regions.push(dev, GFP_KERNEL)?;
            }
        }
        Ok(obstacle)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        for &dev in &self.regions {
            // SAFETY: By the type invariants the region is ours.
            unsafe { bindings::unregister_chrdev_region(dev, 1) };
        }
        if let Some(class) = self.class {
            // SAFETY: By the type invariants the class is ours.
            unsafe { bindings::class_destroy(class) };
        }
    }
}
