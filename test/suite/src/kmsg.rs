// SPDX-License-Identifier: GPL-2.0

//! The kernel's log.

use crate::sys::{self, O_RDONLY};
use std::io;
use std::os::fd::OwnedFd;

/// The kernel's log from some point on.
pub struct Log(OwnedFd);

impl Log {
    pub fn from_now() -> io::Result<Self> {
        let fd = sys::open("/dev/kmsg", O_RDONLY | libc::O_NONBLOCK)?;
        sys::lseek(&fd, 0, libc::SEEK_END)?;
        Ok(Self(fd))
    }

    /// What has been logged since, and not been returned yet.
    pub fn lines(&self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut record = vec![0u8; 8192];
        loop {
            // SAFETY: The buffer is as long as said.
            let got = sys::count(unsafe {
                use std::os::fd::AsRawFd;
                libc::read(self.0.as_raw_fd(), record.as_mut_ptr().cast(), record.len())
            });
            match got {
                Ok(got) => {
                    let text = String::from_utf8_lossy(&record[..got]);
                    // What comes before is the priority and the time; more lines are properties.
                    let line = text.lines().next().and_then(|line| line.split_once(';'));
                    lines.extend(line.map(|(_, line)| line.to_owned()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lines),
                Err(error) => return Err(error),
            }
        }
    }

    /// As above, what a module has logged, without its name.
    pub fn lines_of(&self, module: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{module}: ");
        let lines = self.lines()?;
        Ok(lines
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect())
    }
}
