// SPDX-License-Identifier: GPL-2.0

//! Finding and opening devices.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::Current;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{major, minor};
use rustix::io::Errno;

use crate::error::{Error, Operation, Result};
use crate::info::{Info, Stats, Walk};
use crate::mapping::{Access, Mapping};
use crate::pagemap::proc_error;
use crate::pattern::Pattern;
use crate::{sys, uapi};

/// An open device of `map_driver`.
///
/// # Examples
///
/// ```
/// # fn main() -> mapdrv::Result<()> {
/// use mapdrv::{Device, Error};
///
/// match Device::open("/dev/null") {
///     Err(Error::NotOurs { found, .. }) => assert!(found.starts_with("character device 1:3")),
///     other => panic!("{other:?}"),
/// }
///
/// for listed in mapdrv::devices().unwrap_or_default() {
///     if let Ok(device) = Device::open(&listed.path) {
///         println!("{}: generation {}", listed.path.display(), device.info()?.generation);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device {
    pub(crate) file: File,
    pub(crate) path: Arc<Path>,
    /// As it was when it was opened: what never changes is taken from here.
    info: Info,
}

impl Device {
    /// Opens the device at `path` for reading, after making sure that it is one.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] says what is at `path` instead of a device of `map_driver`, and
    /// [`Error::NoModule`] that there cannot be one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true))
    }

    /// Opens the device at `path` for reading and writing, after making sure that it is one.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_rw(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true).write(true))
    }

    fn open_with(path: &Path, options: &OpenOptions) -> Result<Self> {
        // Opening an arbitrary node can block (a pipe) or have effects (a tape): look first.
        let metadata = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_loaded()? => {
                return Err(Error::NoModule { path: path.into() });
            }
            metadata => metadata.map_err(Error::system(path, Operation::Inspect))?,
        };
        expect_ours(path, &metadata)?;
        let file = options
            .open(path)
            .map_err(Error::system(path, Operation::Open))?;
        let info = match sys::info(&file) {
            Err(Errno::NOTTY) => {
                return Err(Error::NotOurs {
                    path: path.into(),
                    found: "a character device that does not say what it is".into(),
                });
            }
            info => info.map_err(Error::system(path, Operation::Info))?,
        };
        Ok(Self {
            file,
            path: path.into(),
            info: info.into(),
        })
    }

    /// A regular file that plays the device `info` in tests.
    #[cfg(test)]
    pub(crate) fn stand_in(file: File, path: &Path, info: Info) -> Self {
        Self {
            file,
            path: path.into(),
            info,
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the device.
    pub fn size(&self) -> u64 {
        self.info.size
    }

    /// Pages in the device.
    pub fn pages(&self) -> u64 {
        self.info.pages
    }

    /// Bytes in a page.
    pub fn page_size(&self) -> u32 {
        self.info.page_size
    }

    /// Bytes in the device's pages: its size, rounded up to whole pages.
    pub fn mappable(&self) -> u64 {
        self.pages() * u64::from(self.page_size())
    }

    /// The contents that the device was given at load.
    pub fn pattern(&self) -> Pattern {
        Pattern::new(&self.info)
    }

    /// What the device is now.
    ///
    /// Acknowledges the generation it reports: see [`Device::wait_for_change`].
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel does not answer.
    pub fn info(&self) -> Result<Info> {
        sys::info(&self.file)
            .map(Info::from)
            .map_err(Error::system(&self.path, Operation::Info))
    }

    /// Where the kernel's page tables lead for the byte at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] past the last page.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// // Not run: makes sense only where there is a device.
    /// # fn main() -> mapdrv::Result<()> {
    /// for level in mapdrv::Device::open("/dev/mapdrv0")?.walk(0x3000)?.levels {
    ///     println!("{} {:?} {:?}", level.name, level.index, level.entry);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn walk(&self, offset: u64) -> Result<Walk> {
        if offset >= self.mappable() {
            return Err(Error::OutOfRange {
                path: self.path.to_path_buf(),
                start: offset,
                end: offset.saturating_add(1),
                limit_start: 0,
                limit_end: self.mappable(),
            });
        }
        sys::walk(&self.file, offset)
            .map(Walk::from)
            .map_err(Error::system(&self.path, Operation::Walk))
    }

    /// The counters of the device.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel does not answer.
    pub fn stats(&self) -> Result<Stats> {
        sys::stats(&self.file)
            .map(Stats::from)
            .map_err(Error::system(&self.path, Operation::Stats))
    }

    /// Maps the pages that hold the bytes of `range`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `range` is empty or reaches past the last page;
    /// [`Error::System`] if the kernel refuses, as it does [`Access::ReadWrite`] on a device that
    /// was opened with [`Device::open`].
    pub fn map(&self, range: Range<u64>, access: Access) -> Result<Mapping> {
        Mapping::new(self, range, access)
    }

    /// Maps the whole device.
    ///
    /// # Errors
    ///
    /// As [`Device::map`].
    pub fn map_all(&self, access: Access) -> Result<Mapping> {
        self.map(0..self.mappable(), access)
    }

    /// Copies bytes out through the file, without a mapping: the number of bytes, 0 at the end.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel refuses.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        self.file
            .read_at(bytes, offset)
            .map_err(Error::system(&self.path, Operation::Read))
    }

    /// Copies whole pages out through the file, from page `first` on, as they are in a mapping: what
    /// lies past the end of the device is zero.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel refuses.
    pub fn read_pages(&self, first: u64, words: &mut [u64]) -> Result<()> {
        words.fill(0);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
        let start = first * u64::from(self.page_size());
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], start + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(())
    }

    /// Writes bytes through the file: the number of bytes, which is less than there are when the
    /// end of the device is reached.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel refuses, as it does with `ENOSPC` at the end.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        self.file
            .write_at(bytes, offset)
            .map_err(Error::system(&self.path, Operation::Write))
    }

    /// Waits until something was written through a file of this device since the last
    /// [`Device::info`] or since it was opened, and says what the device is then.
    ///
    /// `None` if nothing was written within `timeout`. What is written through mappings, the
    /// kernel does not see.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel refuses.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// // Not run: waits for somebody to write.
    /// # fn main() -> mapdrv::Result<()> {
    /// let device = mapdrv::Device::open("/dev/mapdrv0")?;
    /// while let Some(info) = device.wait_for_change(None)? {
    ///     println!("generation {}", info.generation);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for_change(&self, timeout: Option<Duration>) -> Result<Option<Info>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| left.try_into().ok());
            let mut fds = [PollFd::new(&self.file, PollFlags::PRI)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.info().map(Some),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::system(&self.path, Operation::Wait)(error)),
            }
        }
    }
}

/// The drivers of character devices.
fn char_drivers() -> Result<Vec<procfs::CharDeviceEntry>> {
    procfs::Devices::current()
        .map(|devices| devices.char_devices)
        .map_err(proc_error("/proc/devices"))
}

/// Whether the module is loaded.
fn is_loaded() -> Result<bool> {
    let drivers = char_drivers()?;
    Ok(drivers
        .iter()
        .any(|driver| driver.name == uapi::DEVICE_NAME))
}

/// Makes sure that `metadata` is that of a character device with our major number.
fn expect_ours(path: &Path, metadata: &Metadata) -> Result<()> {
    let not_ours = |found| {
        Err(Error::NotOurs {
            path: path.into(),
            found,
        })
    };
    if let Some(kind) = other_kind(metadata.file_type()) {
        return not_ours(kind.into());
    }
    let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
    match char_drivers()?.iter().find(|entry| entry.major == major) {
        Some(driver) if driver.name == uapi::DEVICE_NAME => Ok(()),
        Some(driver) => not_ours(format!(
            "character device {major}:{minor} of the driver \"{}\"",
            driver.name
        )),
        None if !is_loaded()? => Err(Error::NoModule { path: path.into() }),
        None => not_ours(format!(
            "character device {major}:{minor}, which no driver serves"
        )),
    }
}

/// What a file is if not a character device.
fn other_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        _ if kind.is_char_device() => None,
        _ if kind.is_file() => Some("a regular file"),
        _ if kind.is_dir() => Some("a directory"),
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ => Some("a block device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    #[test]
    fn what_is_not_ours_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for (path, kind) in [
            (
                Path::new("/dev/null"),
                "character device 1:3 of the driver \"mem\"",
            ),
            (directory.path(), "a directory"),
            (Path::new("/proc/self/exe"), "a regular file"),
        ] {
            match Device::open(path) {
                Err(Error::NotOurs { found, .. }) => assert_eq!(found, kind),
                other => panic!("{}: {other:?}", path.display()),
            }
        }
    }

    #[test]
    fn calls_to_what_does_not_know_them_are_errors() {
        let device = StandIn::new(4096).device;
        for (error, expected) in [
            (device.info().unwrap_err(), Operation::Info),
            (device.walk(0).unwrap_err(), Operation::Walk),
            (device.stats().unwrap_err(), Operation::Stats),
        ] {
            match &error {
                Error::System { operation, .. } => assert_eq!(*operation, expected),
                other => panic!("{other:?}"),
            }
            assert_eq!(error.path(), device.path());
            assert!(error.io_error().is_some());
        }
    }

    #[test]
    fn a_walk_past_the_last_page_is_refused() {
        let device = StandIn::new(4097).device;
        assert!(matches!(device.walk(8192), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.walk(8191), Err(Error::System { .. })));
    }

    #[test]
    fn waiting_ends_in_time() {
        let device = StandIn::new(4096).device;
        let timeout = Some(Duration::from_millis(1));
        assert_eq!(device.wait_for_change(timeout).unwrap(), None);
    }
}
