// SPDX-License-Identifier: GPL-2.0

//! The contents that a device is published to have.

use crate::uapi;

pub const PAGE: usize = 4096;

/// What a freshly loaded device holds.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    pub minor: u32,
    pub size: u64,
    pub fill: bool,
}

impl Pattern {
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE as u64)
    }

    /// The page with index `index`, tail included.
    pub fn page(&self, index: u64) -> [u8; PAGE] {
        let mut bytes = [0; PAGE];
        if !self.fill {
            return bytes;
        }
        let seed = uapi::seed(self.minor);
        let header = uapi::PageHeader::new(index, self.pages(), PAGE as u32, seed).to_words();
        let first = index * (PAGE / 8) as u64;
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            let word = header.get(i).copied();
            let word = word.unwrap_or_else(|| uapi::word(seed, first + i as u64));
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        let left = self.size - (index * PAGE as u64).min(self.size);
        if left < PAGE as u64 {
            bytes[left as usize..].fill(0);
        }
        bytes
    }

    /// The bytes from `offset` on, `len` of them, up to the end of the last page.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let start = offset as usize % PAGE;
        let first = offset / PAGE as u64;
        let last = (offset + len as u64).div_ceil(PAGE as u64);
        let all: Vec<u8> = (first..last).flat_map(|index| self.page(index)).collect();
        all[start..start + len].to_vec()
    }

    /// Everything that can be read.
    pub fn all(&self) -> Vec<u8> {
        self.bytes(0, self.size as usize)
    }
}
