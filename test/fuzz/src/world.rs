// SPDX-License-Identifier: GPL-2.0

//! What the devices must hold, in memory that all processes of the fuzzer share.

use crate::sys::{self, PAGE};
use crate::uapi;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

pub const MODULE: &str = "map_driver";

/// A device as it was loaded.
#[derive(Clone, Copy, Debug)]
pub struct Dev {
    pub minor: usize,
    pub size: usize,
    pub fill: bool,
    pub huge: bool,
}

impl Dev {
    /// The size in whole pages.
    pub fn span(&self) -> usize {
        self.size.next_multiple_of(PAGE)
    }

    pub fn pages(&self) -> usize {
        self.span() / PAGE
    }

    /// All of the device, mapped for writing.
    pub fn map(&self) -> Result<&'static mut [u8], String> {
        let path = format!("/dev/mapdrv{}", self.minor);
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|error| format!("{path}: {error}"))?;
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let args = [
            0,
            self.span(),
            prot,
            libc::MAP_SHARED as usize,
            file.as_raw_fd() as usize,
            0,
        ];
        let addr =
            sys::call_addr(libc::SYS_mmap, &args).map_err(|errno| format!("mmap: {errno}"))?;
        // SAFETY: It has just been mapped, that large; `unmap` takes it back.
        Ok(unsafe { std::slice::from_raw_parts_mut(addr as *mut u8, self.span()) })
    }

    /// What is in the device after loading, tail included.
    fn initial(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        if !self.fill {
            return;
        }
        let seed = uapi::seed(self.minor as u32);
        for (index, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
            let pages = self.pages() as u64;
            let header = uapi::PageHeader::new(index as u64, pages, PAGE as u32, seed).to_words();
            for (i, chunk) in page.chunks_exact_mut(8).enumerate() {
                let word = match header.get(i) {
                    Some(&word) => word,
                    None => uapi::word(seed, (index * PAGE / 8 + i) as u64),
                };
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
        }
        bytes[self.size..].fill(0);
    }
}

/// Bytes to write at `offset` of a device: the offset and `salt` say which.
pub fn data(minor: usize, offset: usize, len: usize, salt: u32) -> Vec<u8> {
    let seed = uapi::seed(minor as u32 ^ (salt + 1) << 8);
    let first = offset / 8;
    let last = (offset + len).div_ceil(8);
    let words: Vec<u8> = (first..last)
        .flat_map(|i| uapi::word(seed, i as u64).to_ne_bytes())
        .collect();
    words[offset % 8..offset % 8 + len].to_vec()
}

/// How many salts there are where several write at the same time.
pub const SALTS: u32 = 3;

pub const MAP_LEN: usize = 1 << 16;
const TEXT_LEN: usize = 4096;

/// What the processes of a round tell the one that started it.
#[repr(C)]
pub struct Board {
    /// Operations done in this round.
    pub ops: AtomicU64,
    /// For each actor, 1 + the operation it is at.
    pub at: [AtomicU32; 8],
    /// Set by the first that finds something wrong.
    pub failed: AtomicU32,
    len: AtomicU32,
    text: [AtomicU8; TEXT_LEN],
    /// Which edges of the module's code have been taken, hashed.
    pub edges: [AtomicU8; MAP_LEN],
    /// Which results operations have had, hashed.
    pub results: [AtomicU8; MAP_LEN],
    /// Which pages of which device somebody may have written.
    pub written: [AtomicU8; MAP_LEN],
}

impl Board {
    pub fn new() -> &'static Self {
        let memory = sys::memory(size_of::<Self>(), libc::MAP_SHARED);
        // SAFETY: It is large enough, aligned to pages, zero, which is fine for atomics, and stays.
        unsafe { &*memory.as_ptr().cast() }
    }

    pub fn clear(&self) {
        self.ops.store(0, Relaxed);
        self.failed.store(0, Relaxed);
        self.at.iter().for_each(|at| at.store(0, Relaxed));
        for map in [&self.edges, &self.results, &self.written] {
            map.iter().for_each(|byte| byte.store(0, Relaxed));
        }
    }

    /// Says what is wrong; the first to do so is heard.
    pub fn fail(&self, text: &str) {
        if self
            .failed
            .compare_exchange(0, 1, Relaxed, Relaxed)
            .is_err()
        {
            return;
        }
        let len = text.len().min(TEXT_LEN);
        for (to, from) in self.text.iter().zip(text.bytes()) {
            to.store(from, Relaxed);
        }
        self.len.store(len as u32, Relaxed);
        self.failed.store(2, Relaxed);
    }

    pub fn failure(&self) -> Option<String> {
        if self.failed.load(Relaxed) == 0 {
            return None;
        }
        let text = &self.text[..self.len.load(Relaxed) as usize];
        let bytes: Vec<u8> = text.iter().map(|byte| byte.load(Relaxed)).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn written(&self, minor: usize, page: usize) -> &AtomicU8 {
        // Devices have fewer pages than that.
        &self.written[minor << 12 | page]
    }
}

/// All devices and what must be in them.
pub struct World {
    pub devs: Vec<Dev>,
    /// Permission bits of the nodes.
    pub mode: u32,
    /// What is in each device after loading.
    pub initial: Vec<Arc<Vec<u8>>>,
    /// What is in it now; shared with children. Used by one process at a time.
    pub now: Vec<&'static mut [u8]>,
    pub board: &'static Board,
}

impl World {
    pub fn new(params: &str, memory: &mut Memory, board: &'static Board) -> Self {
        let value = |name: &str, default: usize| {
            let word = params
                .split_whitespace()
                .find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse().ok()).unwrap_or(default)
        };
        let devs: Vec<Dev> = (0..value("devices", 1))
            .map(|minor| Dev {
                minor,
                size: value("size", 1 << 20),
                fill: value("fill", 1) == 1,
                huge: value("huge", 0) == 1,
            })
            .collect();
        let initial = devs.iter().map(|dev| {
            let mut bytes = vec![0; dev.span()];
            dev.initial(&mut bytes);
            Arc::new(bytes)
        });
        let initial = initial.collect();
        let now = memory.slices(&devs);
        Self {
            devs,
            mode: value("mode", 0o600) as u32,
            initial,
            now,
            board,
        }
    }

    /// The same for one of several threads, none of which knows what is in the devices now.
    pub fn for_thread(&self) -> Self {
        Self {
            devs: self.devs.clone(),
            mode: self.mode,
            initial: self.initial.clone(),
            now: Vec::new(),
            board: self.board,
        }
    }

    /// Makes the devices what they were after loading, and the model, too.
    pub fn restore(&mut self) -> Result<(), String> {
        for dev in &self.devs {
            let map = dev.map()?;
            let initial = &self.initial[dev.minor][..];
            if map != initial {
                map.copy_from_slice(initial);
            }
            unmap(map);
            self.now[dev.minor].copy_from_slice(initial);
        }
        Ok(())
    }
}

/// Shared memory for the contents of all devices.
pub struct Memory(&'static mut [u8]);

impl Memory {
    pub fn new() -> Self {
        Self(sys::memory(
            3 * (8 << 20),
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        ))
    }

    fn slices(&mut self, devs: &[Dev]) -> Vec<&'static mut [u8]> {
        let mut at = 0;
        let mut slices = Vec::new();
        for dev in devs {
            let part = &mut self.0[at..at + dev.span()];
            // SAFETY: The memory is never unmapped, the parts do not overlap, and a world is dropped
            // before the next one is made.
            slices.push(unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr(), part.len()) });
            at += dev.span();
        }
        slices
    }
}

/// Unmaps what [`Dev::map`] has mapped.
pub fn unmap(map: &'static mut [u8]) {
    let _ = sys::call(libc::SYS_munmap, &[map.as_mut_ptr() as usize, map.len()]);
}

/// Loads the module.
pub fn load(params: &str) -> io::Result<()> {
    let file = File::open(format!("{MODULE}.ko"))?;
    let params = format!("{params}\0");
    sys::call(
        libc::SYS_finit_module,
        &[file.as_raw_fd() as usize, params.as_ptr() as usize, 0],
    )
    .map(drop)
    .map_err(io::Error::from_raw_os_error)
}

/// Unloads the module, which nobody must use.
pub fn unload() -> io::Result<()> {
    let name = format!("{MODULE}\0");
    sys::call(
        libc::SYS_delete_module,
        &[name.as_ptr() as usize, libc::O_NONBLOCK as usize],
    )
    .map(drop)
    .map_err(io::Error::from_raw_os_error)
}
