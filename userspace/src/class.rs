// SPDX-License-Identifier: GPL-2.0

//! The devices that there are, as sysfs lists them for everybody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Operation, Result};
use crate::info::Mode;

/// Where the kernel lists the devices of the class.
const CLASS: &str = "/sys/class/mapdrv";

/// A device that is present; to look at this needs no permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Listed {
    /// Its node in `/dev`.
    #[cfg_attr(feature = "serde", serde(rename = "device"))]
    pub path: PathBuf,
    /// Bytes in the device.
    pub size: u64,
    /// Pages in the device.
    pub pages: u64,
    /// What its pages are.
    pub mode: Mode,
    /// Mappings alive now, in all processes.
    pub mappings: u64,
}

/// All devices that are present, by number.
///
/// # Errors
///
/// [`Error::NoModule`] if the module is not loaded.
pub fn devices() -> Result<Vec<Listed>> {
    list(Path::new(CLASS))
}

/// The devices listed in the directory `class`.
fn list(class: &Path) -> Result<Vec<Listed>> {
    let inspect = || Error::system(class, Operation::Inspect);
    let entries = match class.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoModule { path: class.into() });
        }
        entries => entries.map_err(inspect())?,
    };
    let mut devices = Vec::new();
    for entry in entries {
        let entry = entry.map_err(inspect())?;
        devices.push(Listed {
            path: Path::new("/dev").join(entry.file_name()),
            size: attribute(&entry.path(), "size")?,
            pages: attribute(&entry.path(), "pages")?,
            mode: attribute::<u32>(&entry.path(), "huge")?.into(),
            mappings: attribute(&entry.path(), "mappings")?,
        });
    }
    // Names differ in their numbers only, so a longer one is a later one.
    devices.sort_by_key(|device| (device.path.as_os_str().len(), device.path.clone()));
    Ok(devices)
}

/// Reads a number from sysfs.
fn attribute<T: FromStr>(device: &Path, name: &str) -> Result<T> {
    let path = device.join(name);
    fs::read_to_string(&path)
        .and_then(|text| {
            let number = text.trim().parse();
            number.map_err(|_| io::ErrorKind::InvalidData.into())
        })
        .map_err(Error::system(&path, Operation::Read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_listed_by_number() {
        let class = tempfile::tempdir().unwrap();
        for number in [10, 2, 0] {
            let device = class.path().join(format!("mapdrv{number}"));
            fs::create_dir(&device).unwrap();
            for (name, value) in [
                ("size", "4097"),
                ("pages", "2"),
                ("huge", "1"),
                ("mappings", "3"),
            ] {
                fs::write(device.join(name), format!("{value}\n")).unwrap();
            }
        }
        let devices = list(class.path()).unwrap();
        assert_eq!(
            devices
                .iter()
                .map(|device| device.path.to_str())
                .collect::<Vec<_>>(),
            [
                Some("/dev/mapdrv0"),
                Some("/dev/mapdrv2"),
                Some("/dev/mapdrv10")
            ]
        );
        let device = &devices[0];
        assert_eq!((device.size, device.pages, device.mappings), (4097, 2, 3));
        assert_eq!(device.mode, Mode::Huge);
    }

    #[test]
    fn without_the_class_there_is_no_module() {
        let class = tempfile::tempdir().unwrap().path().join("mapdrv");
        assert!(matches!(list(&class), Err(Error::NoModule { .. })));
    }
}
