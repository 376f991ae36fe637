// SPDX-License-Identifier: GPL-2.0

//! What `/proc/PID/pagemap` tells about the page tables of processes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use linux_raw_sys::general::{PAGE_IS_HUGE, page_region};
use procfs::process::{MMPermissions, MMapPath, PageInfo, Process};
use procfs::{ProcError, ProcResult};

use crate::device::Device;
use crate::error::{Error, Operation, Result};
use crate::sys;

/// Neighbouring pages that a page table has present in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Extent {
    /// Index in the device of the first page.
    pub first_page: u64,
    /// How many pages.
    pub pages: u64,
    /// Whether entries above the lowest level map them.
    pub huge: bool,
}

/// A mapping of a device in some process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Region {
    /// The process.
    pub pid: i32,
    /// The name of its program.
    pub command: String,
    /// Its first address.
    pub start: u64,
    /// The address after its last one.
    pub end: u64,
    /// The offset in the device that the first address shows.
    pub offset: u64,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether writes reach the device; otherwise they make private copies.
    pub shared: bool,
}

impl Device {
    /// The mappings of this device, by whatever node, in all processes that the caller may look
    /// into.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if there is no `/proc` to read.
    pub fn regions(&self) -> Result<Vec<Region>> {
        let rdev = self
            .file
            .metadata()
            .map_err(Error::system(self.path(), Operation::Inspect))?
            .rdev();
        let processes = procfs::process::all_processes().map_err(proc_error("/proc"))?;
        let mut regions = Vec::new();
        // Processes end while we look, and not all may be looked into.
        for process in processes.flatten() {
            regions.extend(regions_of(&process, rdev).unwrap_or_default());
        }
        Ok(regions)
    }

    /// Which pages are present in a process's page table for `region`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the process is gone or may not be looked into.
    pub fn present_in(&self, region: &Region) -> Result<Vec<Extent>> {
        let addresses = region.start..region.end;
        let page_size = u64::from(self.page_size());
        present(Some(region.pid), addresses, region.offset, page_size)
    }
}

/// The mappings of the device `rdev` in a process.
fn regions_of(process: &Process, rdev: u64) -> ProcResult<Vec<Region>> {
    let maps = process.maps()?;
    let ours = maps.into_iter().filter(|map| match &map.pathname {
        MMapPath::Path(path) => path.metadata().is_ok_and(|node| node.rdev() == rdev),
        _ => false,
    });
    let mut regions = Vec::new();
    for map in ours {
        regions.push(Region {
            pid: process.pid(),
            command: process.stat()?.comm,
            start: map.address.0,
            end: map.address.1,
            offset: map.offset,
            writable: map.perms.contains(MMPermissions::WRITE),
            shared: map.perms.contains(MMPermissions::SHARED),
        });
    }
    Ok(regions)
}

/// The frame number of this process's page `page` (address divided by page size).
pub(crate) fn pfn(page: usize) -> Result<Option<u64>> {
    let info = Process::myself()
        .and_then(|process| process.pagemap())
        .and_then(|mut pagemap| pagemap.get_info(page))
        .map_err(proc_error("/proc/self/pagemap"))?;
    Ok(match info {
        PageInfo::MemoryPage(page) => Some(page.get_page_frame_number().0).filter(|&pfn| pfn != 0),
        PageInfo::SwapPage(_) => None,
    })
}

/// The present pages among `addresses` of a process (or this one), the first of which shows
/// `offset` in the device.
pub(crate) fn present(
    pid: Option<i32>,
    addresses: Range<u64>,
    offset: u64,
    page_size: u64,
) -> Result<Vec<Extent>> {
    let path = match pid {
        Some(pid) => format!("/proc/{pid}/pagemap"),
        None => "/proc/self/pagemap".into(),
    };
    let pagemap = File::open(&path).map_err(Error::system(&path, Operation::Pagemap))?;
    let empty = page_region {
        start: 0,
        end: 0,
        categories: 0,
    };
    let mut regions = [empty; 64];
    let mut extents = Vec::new();
    let mut at = addresses.start;
    while at < addresses.end {
        let (found, walked_to) = sys::present_pages(&pagemap, at..addresses.end, &mut regions)
            .map_err(Error::system(&path, Operation::Pagemap))?;
        extents.extend(regions[..found].iter().map(|region| Extent {
            first_page: (region.start - addresses.start + offset) / page_size,
            pages: (region.end - region.start) / page_size,
            huge: region.categories & u64::from(PAGE_IS_HUGE) != 0,
        }));
        at = walked_to;
    }
    Ok(extents)
}

/// Makes an error of the `procfs` crate one of ours.
pub(crate) fn proc_error(path: impl AsRef<Path>) -> impl FnOnce(ProcError) -> Error {
    move |error| {
        let source = match error {
            ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
            ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
            ProcError::Io(error, _) => error,
            other => io::Error::other(other.to_string()),
        };
        let path: PathBuf = path.as_ref().into();
        Error::system(path, Operation::Read)(source)
    }
}
