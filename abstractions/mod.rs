// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks and this driver needs.
//!
//! Each file here is written as if it were to join its siblings in `rust/kernel/`, and knows
//! nothing of the driver. This is the only part of the module that may contain `unsafe`.

#![allow(unsafe_code)]

mod arithmetic;
pub(crate) mod buffer;
pub(crate) mod capability;
pub(crate) mod chrdev;
pub(crate) mod debugfs;
pub(crate) mod folio;
pub(crate) mod inode;
pub(crate) mod ioctl;
pub(crate) mod mmap;
pub(crate) mod module;
pub(crate) mod page_table;
pub(crate) mod percpu;
pub(crate) mod printk;
pub(crate) mod static_key;
pub(crate) mod sysfs;
