// SPDX-License-Identifier: GPL-2.0

//! The devices under test.

use crate::check::Outcome;
use crate::pattern::{PAGE, Pattern};
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ, RW};
use crate::uapi::{IOC_INFO, IOC_STATS, IOC_WALK, Info, Stats, Walk};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// What the module was loaded with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub params: String,
    pub devices: u32,
    pub size: u64,
    pub fill: bool,
}

impl Setup {
    pub fn new(params: &str) -> Self {
        let value = |name: &str, default: u64| {
            let found = params
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map_or(default, |value| {
                value.parse().expect("a number in the plan")
            })
        };
        Self {
            params: params.to_owned(),
            devices: value("devices", 1) as u32,
            size: value("size", 1 << 20),
            fill: value("fill", 1) == 1,
        }
    }

    /// The contents that device `minor` came with.
    pub fn pattern(&self, minor: u32) -> Pattern {
        Pattern {
            minor,
            size: self.size,
            fill: self.fill,
        }
    }

    /// The size of a mapping of all pages.
    pub fn span(&self) -> usize {
        self.size.next_multiple_of(PAGE as u64) as usize
    }

    pub fn pages(&self) -> usize {
        self.span() / PAGE
    }
}

pub fn path(minor: u32) -> String {
    format!("/dev/mapdrv{minor}")
}

/// Device 0, opened with `flags`.
pub fn open(flags: c_int) -> io::Result<OwnedFd> {
    sys::open(&path(0), flags)
}

/// Device 0, opened for reading and writing, and all of it mapped so.
pub fn open_and_map(setup: &Setup) -> Outcome<(OwnedFd, Map)> {
    let fd = open(O_RDWR)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_SHARED)?;
    Ok((fd, map))
}

/// All of device 0, mapped for reading; the descriptor is closed.
pub fn mapped(setup: &Setup) -> Outcome<Map> {
    Ok(Map::new(
        &open(O_RDONLY)?,
        0,
        setup.span(),
        PROT_READ,
        MAP_SHARED,
    )?)
}

pub fn info(fd: &impl AsRawFd) -> io::Result<Info> {
    let mut info = Info::default();
    sys::ioctl(fd, IOC_INFO, &raw mut info as usize)?;
    Ok(info)
}

pub fn walk(fd: &impl AsRawFd, offset: u64) -> io::Result<Walk> {
    let mut walk = Walk {
        offset,
        ..Walk::default()
    };
    sys::ioctl(fd, IOC_WALK, &raw mut walk as usize)?;
    Ok(walk)
}

pub fn stats(fd: &impl AsRawFd) -> io::Result<Stats> {
    let mut stats = Stats::default();
    sys::ioctl(fd, IOC_STATS, &raw mut stats as usize)?;
    Ok(stats)
}
