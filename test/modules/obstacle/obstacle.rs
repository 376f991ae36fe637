// SPDX-License-Identifier: GPL-2.0

//! A test: takes what the driver needs to load, so that loading it fails half-way.

use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::c_void,
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
        percpu: i64 {
            default: 0,
            description: "1 to take all memory that each CPU has ready",
        },
    },
}

/// # Invariants
///
/// All that is named here is owned.
struct Obstacle {
    class: Option<*mut bindings::class>,
    regions: KVec<bindings::dev_t>,
    percpu: KVec<*mut c_void>,
}

// SAFETY: Classes and regions belong to no thread.
unsafe impl Send for Obstacle {}
// SAFETY: Nothing is done through a shared reference.
unsafe impl Sync for Obstacle {}

impl kernel::Module for Obstacle {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let mut obstacle = Self {
            class: None,
            regions: KVec::new(),
            percpu: KVec::new(),
        };
        if *module_parameters::class.value() == 1 {
            // SAFETY: The name is a C string that lives for ever.
            let class = unsafe { bindings::class_create(c"mapdrv".as_char_ptr()) };
            obstacle.class = Some(from_err_ptr(class)?);
        }
        if *module_parameters::majors.value() == 1 {
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
        if *module_parameters::percpu.value() == 1 {
            for shift in (3..12).rev() {
                loop {
                    // Without leave to wait, no more is made ready.
                    //
                    // SAFETY: Size and alignment are powers of two.
                    let taken = unsafe {
                        bindings::pcpu_alloc_noprof(1 << shift, 8, false, bindings::__GFP_NOWARN)
                    };
                    if taken.is_null() {
                        break;
                    }
                    obstacle.percpu.push(taken.cast(), GFP_KERNEL)?;
                }
            }
        }
        Ok(obstacle)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        for &taken in &self.percpu {
            // SAFETY: By the type invariants the memory is ours.
            unsafe { bindings::free_percpu(taken) };
        }
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
