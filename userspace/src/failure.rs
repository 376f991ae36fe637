// SPDX-License-Identifier: GPL-2.0

//! Why the program failed, and with which exit status.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use mapdrv::{Error, Operation};

/// Exit status: the check failed, or the work could not be finished.
pub const FAILED: u8 = 1;
/// Exit status: wrong usage.
pub const USAGE: u8 = 2;
/// Exit status: there is no such device, or it is not one of ours.
pub const NO_DEVICE: u8 = 3;
/// Exit status: not permitted.
pub const PERMISSION: u8 = 4;

/// Why the program could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments make no sense for this device.
    #[error("{0}")]
    Usage(String),
    /// The library failed.
    #[error(transparent)]
    Device(#[from] Error),
    /// There was more to write than the device holds.
    #[error("{}: the device is full; {written} bytes were written", path.display())]
    Full { path: PathBuf, written: u64 },
    /// Another file than the device could not be used.
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The output could not be written.
    #[error("standard output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// One line: what was tried, what went wrong, what to do.
    pub fn describe(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line += &format!(": {error}");
            cause = error.source();
        }
        if self.status() == PERMISSION && self.operation() == Some(Operation::Open) {
            line += "; try as root, or load the module with another mode=";
        }
        line
    }

    /// What the library was doing.
    fn operation(&self) -> Option<Operation> {
        match self {
            Self::Device(Error::System { operation, .. }) => Some(*operation),
            _ => None,
        }
    }

    /// The exit status that tells this failure.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Device(Error::OutOfRange { .. }) => USAGE,
            Self::Device(Error::NotOurs { .. } | Error::NoModule { .. } | Error::Lost { .. }) => {
                NO_DEVICE
            }
            Self::Device(error) => {
                // A directory for scratch files is no device.
                let scratch = self.operation() == Some(Operation::DirectIo);
                status_of(error.io_error(), if scratch { FAILED } else { NO_DEVICE })
            }
            Self::File { source, .. } => status_of(Some(source), FAILED),
            Self::Full { .. } | Self::Output(_) => FAILED,
        }
    }

    /// [`Failure::status`] for `main`.
    pub fn exit_code(&self) -> ExitCode {
        self.status().into()
    }
}

/// The exit status that tells the kernel's refusal, `missing` if there was nothing to be used.
fn status_of(error: Option<&io::Error>, missing: u8) -> u8 {
    use rustix::io::Errno;
    let Some(error) = error else {
        return FAILED;
    };
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => PERMISSION,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => missing,
        _ if error.kind() == io::ErrorKind::PermissionDenied => PERMISSION,
        _ if error.kind() == io::ErrorKind::NotFound => missing,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use mapdrv::Device;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn the_status_tells_the_cause() {
        let file = |errno: Errno| Failure::File {
            path: "file".into(),
            source: errno.into(),
        };
        for (failure, status) in [
            (Failure::Usage("no".into()), USAGE),
            (Failure::Output(Errno::NOSPC.into()), FAILED),
            (file(Errno::NOENT), FAILED),
            (file(Errno::ACCESS), PERMISSION),
            (Device::open("/dev/null").unwrap_err().into(), NO_DEVICE),
            (Device::open("/nonexistent").unwrap_err().into(), NO_DEVICE),
        ] {
            assert_eq!(failure.status(), status, "{failure:?}");
        }
    }

    #[test]
    fn failures_are_one_line() {
        let failure = Failure::Output(Errno::NOSPC.into());
        assert_eq!(
            failure.describe(),
            "standard output: No space left on device (os error 28)"
        );
    }
}
