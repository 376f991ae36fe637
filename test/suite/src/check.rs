// SPDX-License-Identifier: GPL-2.0

//! What a test says about what it found.

use std::fmt::{Debug, Display};
use std::io;
use std::panic::Location;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Fail {
    /// Something is not as promised.
    Wrong(String),
    /// It cannot be tested here.
    Skip(String),
}

/// How a test, or a step of one, ended.
pub type Outcome<T = ()> = Result<T, Fail>;

impl From<io::Error> for Fail {
    #[track_caller]
    fn from(error: io::Error) -> Self {
        wrong(error)
    }
}

impl From<procfs::ProcError> for Fail {
    #[track_caller]
    fn from(error: procfs::ProcError) -> Self {
        wrong(error)
    }
}

/// A failure of the line that calls this.
#[track_caller]
pub fn wrong(what: impl Display) -> Fail {
    let place = Location::caller();
    let file = place.file().rsplit('/').next().unwrap_or_default();
    Fail::Wrong(format!("{file}:{}: {what}", place.line()))
}

/// Fails unless `found` is `expected`.
#[track_caller]
pub fn equal<T: PartialEq + Debug>(what: impl Display, found: T, expected: T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(wrong(format!(
        "{what}: expected {expected:?}, found {found:?}"
    )))
}

/// Fails unless `condition` holds.
#[track_caller]
pub fn ensure(what: impl Display, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(wrong(what)) }
}

/// Fails unless `result` is the error `errno`.
#[track_caller]
pub fn refused<T>(what: impl Display, result: io::Result<T>, errno: i32) -> Outcome {
    let name = |errno| io::Error::from_raw_os_error(errno).to_string();
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => Err(wrong(format!(
            "{what}: expected {}, found {error}",
            name(errno)
        ))),
        Ok(_) => Err(wrong(format!(
            "{what}: expected {}, but it succeeded",
            name(errno)
        ))),
    }
}

/// Fails unless the bytes are the same; says where they differ first.
#[track_caller]
pub fn same_bytes(what: impl Display, found: &[u8], expected: &[u8]) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    Err(wrong(match at {
        Some(at) => format!(
            "{what}: byte {at:#x}: expected {:#04x}, found {:#04x} (of {} bytes)",
            expected[at],
            found[at],
            expected.len()
        ),
        None => format!(
            "{what}: expected {} bytes, found {}",
            expected.len(),
            found.len()
        ),
    }))
}
