// SPDX-License-Identifier: GPL-2.0

//! What is measured, and how to come by it: our device in each of its modes, and its peers.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mapdrv::bench::Memory;
use rustix::fs::{MemfdFlags, memfd_create};

/// Where Linux says what shared memory is made of, and what processes get to see of it.
const SHMEM_HUGE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in tables.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ours, loaded with these parameters.
    Device { params: &'static str, how: How },
    /// A file in memory, made of huge pages or not.
    Memfd(bool),
    /// Private memory without a file, made of huge pages or not.
    Anonymous(bool),
    /// A BPF array that may be mapped.
    BpfArray,
    /// A BPF arena, whose pages come to be when they are touched, or have done so before.
    BpfArena { touched: bool },
}

/// How a device is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Aligned,
    /// One page off what huge pages need.
    Skewed,
    /// With huge pages turned off for the whole machine.
    Small,
}

const fn device(name: &'static str, params: &'static str, how: How) -> Peer {
    Peer {
        name,
        kind: Kind::Device { params, how },
    }
}

const fn peer(name: &'static str, kind: Kind) -> Peer {
    Peer { name, kind }
}

/// All of them, ours first.
pub const PEERS: [Peer; 13] = [
    device(
        "mapdrv fault_around=4096",
        "fault_around=4096",
        How::Aligned,
    ),
    device("mapdrv (default)", "fault_around=65536", How::Aligned),
    device(
        "mapdrv fault_around=2097152",
        "fault_around=2097152",
        How::Aligned,
    ),
    device("mapdrv huge=1", "huge=1", How::Aligned),
    device("mapdrv huge=1, misaligned", "huge=1", How::Skewed),
    device("mapdrv huge=1, THP off", "huge=1", How::Small),
    peer("memfd", Kind::Memfd(false)),
    peer("memfd, huge pages", Kind::Memfd(true)),
    peer("anonymous", Kind::Anonymous(false)),
    peer("anonymous, huge pages", Kind::Anonymous(true)),
    peer("BPF array", Kind::BpfArray),
    peer("BPF arena, first touch", Kind::BpfArena { touched: false }),
    peer("BPF arena, second touch", Kind::BpfArena { touched: true }),
];

impl Peer {
    /// Whether this is one of our device's modes.
    pub fn ours(&self) -> bool {
        matches!(self.kind, Kind::Device { .. })
    }

    /// Whether its file can be read with read(2).
    pub fn readable(&self) -> bool {
        matches!(self.name, "mapdrv (default)" | "memfd")
    }

    /// Whether it is another one after it has been touched, so that only the first time counts.
    pub fn once(&self) -> bool {
        self.kind == Kind::BpfArena { touched: false }
    }

    /// Makes `len` bytes of it, measures them by `work`, and takes them away again.
    pub fn with<T>(&self, len: usize, work: impl FnOnce(Memory<'_>) -> Result<T>) -> Result<T> {
        match self.kind {
            Kind::Device { params, how } => with_device(len, params, how, work),
            Kind::Memfd(huge) => {
                fs::write(SHMEM_HUGE, if huge { "always" } else { "never" }).context(SHMEM_HUGE)?;
                let file = File::from(memfd_create("bench", MemfdFlags::CLOEXEC)?);
                file.set_len(len as u64)?;
                populated(Memory::of_file(&file), len, work)
            }
            Kind::Anonymous(huge) => work(Memory::anonymous(Some(huge))),
            Kind::BpfArray => {
                let map = bpf_map(&MapCreate {
                    map_type: ARRAY,
                    key_size: 4,
                    value_size: 4096,
                    ..MapCreate::mmapable(len)?
                })?;
                populated(Memory::of_file(&map), len, work)
            }
            Kind::BpfArena { touched } => {
                let map = bpf_map(&MapCreate {
                    map_type: ARENA,
                    map_extra: ARENA_ADDRESS as u64,
                    ..MapCreate::mmapable(len)?
                })?;
                let memory = Memory {
                    address: ARENA_ADDRESS,
                    ..Memory::of_file(&map)
                };
                if touched {
                    populated(memory, len, work)
                } else {
                    work(memory)
                }
            }
        }
    }
}

fn populated<T>(memory: Memory, len: usize, work: impl FnOnce(Memory) -> Result<T>) -> Result<T> {
    memory.populate(len)?;
    work(memory)
}

/// Loads the module with one device of `len` bytes.
fn with_device<T>(
    len: usize,
    params: &str,
    how: How,
    work: impl FnOnce(Memory<'_>) -> Result<T>,
) -> Result<T> {
    run(Command::new("insmod").args(["map_driver.ko", &format!("size={len}"), "fill=0", params]))?;
    if how == How::Small {
        fs::write(HUGE_PAGES, "never").context(HUGE_PAGES)?;
    }
    let result = mapdrv::Device::open_rw("/dev/mapdrv0")
        .map_err(Into::into)
        .and_then(|device| {
            let skew = (how == How::Skewed).then_some(4096);
            let memory = Memory {
                skew,
                ..device.memory(true)
            };
            populated(memory, len, work)
        });
    if how == How::Small {
        fs::write(HUGE_PAGES, "always").context(HUGE_PAGES)?;
    }
    run(Command::new("rmmod").arg("map_driver"))?;
    result
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_ARENA`
const ARENA: u32 = 33;
/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;

/// An arena has one address; this one is free.
const ARENA_ADDRESS: usize = 1 << 40;

/// What bpf(2) is told to make a map.
#[derive(Default)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    /// Much that is not needed here.
    others: [u32; 11],
    map_extra: u64,
}

impl MapCreate {
    /// One with an entry for each page of `len` bytes.
    fn mmapable(len: usize) -> Result<Self> {
        Ok(Self {
            max_entries: (len / 4096).try_into()?,
            map_flags: MMAPABLE,
            ..Self::default()
        })
    }
}

fn bpf_map(attr: &MapCreate) -> Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    // SAFETY: The kernel reads as many bytes of `attr` as it is said to have.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attr, size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("a BPF map");
    }
    // SAFETY: The descriptor is new, and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) })
}
