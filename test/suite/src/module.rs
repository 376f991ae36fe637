// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading, and the traces that a module leaves.

use crate::sys;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

pub const NAME: &str = "map_driver";

/// Loads `NAME.ko` from the current directory. Unlike most programs called insmod, tries once.
pub fn insert(name: &str, params: &str) -> io::Result<()> {
    let file = File::open(format!("{name}.ko"))?;
    let params = CString::new(params)?;
    // SAFETY: The parameters are a C string.
    sys::check(unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), params.as_ptr(), 0)
    })?;
    Ok(())
}

/// Unloads a module, or fails at once.
pub fn remove(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: The name is a C string.
    sys::check(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })?;
    Ok(())
}

/// The driver, loaded; unloaded when dropped, if it still is.
pub struct Loaded(());

impl Loaded {
    pub fn new(params: &str) -> io::Result<Self> {
        insert(NAME, params)?;
        Ok(Self(()))
    }

    /// Unloads it, which must work.
    pub fn unload(self) -> io::Result<()> {
        remove(NAME)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = remove(NAME);
    }
}

/// Unloads what a test that failed may have left, once nobody uses it any more.
pub fn clear() -> io::Result<()> {
    for _ in 0..1000 {
        match remove(NAME) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// What of the driver can be seen from outside, a line for each.
pub fn traces() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let devices = fs::read_to_string("/proc/devices")?;
    found.extend(
        devices
            .lines()
            .filter(|line| line.contains("mapdrv"))
            .map(|line| format!("/proc/devices: {line}")),
    );
    let areas = fs::read_to_string("/proc/vmallocinfo")?;
    let ours = areas.lines().filter(|line| line.contains("map_driver"));
    found.extend(ours.map(|line| format!("/proc/vmallocinfo: {line}")));
    for path in [
        "/sys/class/mapdrv",
        "/sys/kernel/debug/mapdrv",
        "/sys/module/map_driver",
    ] {
        if fs::exists(path)? {
            found.push(path.to_owned());
        }
    }
    for entry in fs::read_dir("/dev")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("mapdrv") {
            found.push(format!("/dev/{name}"));
        }
    }
    for entry in fs::read_dir("/sys/dev/char")? {
        let target = fs::read_link(entry?.path())?;
        if target.to_string_lossy().contains("mapdrv") {
            found.push(format!("/sys/dev/char: {}", target.display()));
        }
    }
    Ok(found)
}
