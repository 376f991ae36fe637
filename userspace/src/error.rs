// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, with the path, the operation and the cause.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A [`Result`](std::result::Result) with the errors of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Looking at the node without opening it.
    Inspect,
    /// Opening the node.
    Open,
    /// Asking the device what it is.
    Info,
    /// Asking for the kernel's page-table walk.
    Walk,
    /// Asking for the counters.
    Stats,
    /// Mapping memory.
    Map,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Waiting for a change.
    Wait,
    /// Reading which pages a process has mapped.
    Pagemap,
    /// Writing from the mapping to a scratch file, past the page cache.
    DirectIo,
    /// Taking over SIGBUS.
    CatchSigbus,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inspect => "find it",
            Self::Open => "open it",
            Self::Info => "ask what it is",
            Self::Walk => "ask for the page-table walk",
            Self::Stats => "ask for the counters",
            Self::Map => "map it",
            Self::Read => "read it",
            Self::Write => "write to it",
            Self::Wait => "wait for a change",
            Self::Pagemap => "read which pages are mapped",
            Self::DirectIo => "do direct I/O in this directory",
            Self::CatchSigbus => "catch SIGBUS",
        })
    }
}

/// An operation that failed.
///
/// The messages are one line each and do not repeat [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a call.
    #[error("{}: cannot {operation}", path.display())]
    System {
        /// The node or file.
        path: PathBuf,
        /// What was tried.
        operation: Operation,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The path leads to something else than a device of `map_driver`.
    #[error("{}: not a map_driver device but {found}", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },

    /// The module is not loaded.
    #[error("{}: map_driver is not loaded; try `insmod map_driver.ko`", path.display())]
    NoModule {
        /// The path that was to be used.
        path: PathBuf,
    },

    /// A range reaches past the last page of the device or the end of the mapping.
    #[error(
        "{}: bytes {start:#x} to {end:#x} lie outside {limit_start:#x} to {limit_end:#x}",
        path.display()
    )]
    OutOfRange {
        /// The node.
        path: PathBuf,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// First byte there is.
        limit_start: u64,
        /// The byte after the last one there is.
        limit_end: u64,
    },

    /// A word was asked for at an offset that is not a multiple of its size.
    #[error("{}: offset {offset:#x} is not a multiple of 8", path.display())]
    Misaligned {
        /// The node.
        path: PathBuf,
        /// The offset.
        offset: u64,
    },

    /// The mapping was made for reading only.
    #[error("{}: mapped for reading only", path.display())]
    ReadOnly {
        /// The node.
        path: PathBuf,
    },

    /// The kernel raised SIGBUS: it had no page any more at an offset that was mapped.
    #[error(
        "{}: SIGBUS at byte {offset:#x}: the device is gone or its memory failed",
        path.display()
    )]
    Lost {
        /// The node.
        path: PathBuf,
        /// Offset in the device of the access that failed first.
        offset: u64,
    },
}

impl Error {
    /// The path of the device or file that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::System { path, .. }
            | Self::NotOurs { path, .. }
            | Self::NoModule { path }
            | Self::OutOfRange { path, .. }
            | Self::Misaligned { path, .. }
            | Self::ReadOnly { path }
            | Self::Lost { path, .. } => path,
        }
    }

    /// The kernel's answer, if it was the kernel that refused.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }

    /// A function for `map_err` that adds the path and the operation to the kernel's answer.
    pub(crate) fn system<E: Into<io::Error>>(
        path: impl AsRef<Path>,
        operation: Operation,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            path: path.as_ref().to_owned(),
            operation,
            source: source.into(),
        }
    }
}
