// SPDX-License-Identifier: GPL-2.0

//! The user's side of `map_driver`, a kernel module whose devices hold kernel memory to be mapped.
//!
//! [`Device::open`] opens one, [`Device::map`] maps its pages, [`Device::verify`] checks every
//! byte of them against the contents that [`uapi`] publishes, and [`Device::walk`] shows where the
//! kernel's page tables lead.
//!
//! # Examples
//!
//! Read the line of text that every page starts with, if there is a device:
//!
//! ```
//! # fn main() -> mapdrv::Result<()> {
//! use mapdrv::{Access, Device};
//!
//! for listed in mapdrv::devices().unwrap_or_default() {
//!     let Ok(device) = Device::open(listed.path) else {
//!         continue; // not permitted
//!     };
//!     let mapping = device.map_all(Access::Read)?;
//!     for page in mapping.iter() {
//!         let words = page.words()?;
//!         println!("page {}: {:#018x} ...", page.index(), words[0]);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `cli` (default): the program `mapdrv`. Libraries turn it off.
//! - `serde`: `Serialize` for what devices answer.

pub mod uapi;

pub mod bench;
mod class;
mod device;
mod error;
mod info;
mod mapping;
mod pagemap;
mod pattern;
mod sigbus;
mod source;
#[cfg(test)]
mod stand_in;
mod sys;
mod verify;

pub use class::{Listed, devices};
pub use device::Device;
pub use error::{Error, Operation, Result};
pub use info::{Entry, Info, Level, Mode, Stats, Walk};
pub use mapping::{Access, Mapping, Page};
pub use pagemap::{Extent, Region};
pub use pattern::Pattern;
pub use source::Method;
pub use verify::{Mismatch, Options, Report, Selection};

/// Makes [`Error::Lost`] of every SIGBUS that a read or write of a [`Mapping`] meets from now on,
/// in all threads; without it SIGBUS ends the process, as usual.
///
/// Takes over the signal's action, and gives it back when a SIGBUS comes that is not ours.
///
/// # Errors
///
/// [`Error::System`] if the kernel refuses.
pub fn catch_sigbus() -> Result<()> {
    sigbus::catch().map_err(Error::system("SIGBUS", Operation::CatchSigbus))
}
