// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! The ABI of `map_driver`: what its devices contain and which calls they answer.
//!
//! This one file is compiled into the kernel module and into the user-space crate. It needs
//! nothing but `core`. All integers in device memory and in the structures below are in the
//! machine's own byte order.

use core::mem::size_of;

/// Name of the character-device region in `/proc/devices` and of the device class.
pub const DEVICE_NAME: &str = "mapdrv";

/// Largest number of devices, and so of minors, that one module serves.
pub const MAX_DEVICES: u32 = 64;

/// First bytes of every page: a line to read, then a word to find.
pub const TEXT: [u8; 88] =
    text(b"Hello from the kernel: this page was vmalloc'ed there and mapped here, uncopied.\nok!");

/// [`PageHeader::magic`]: the bytes `mapdrv\0\x01` on a little-endian machine.
pub const MAGIC: u64 = u64::from_le_bytes(*b"mapdrv\0\x01");

/// [`PageHeader::version`] of the layout described here.
pub const VERSION: u32 = 1;

/// The start of every page of a device loaded with `fill=1`.
///
/// The rest of the page is the generator's: see [`word`]. A device whose size is not a whole
/// number of pages ends in the middle of one; from there to the end of the page all bytes are
/// zero. With `fill=0` every byte is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// [`TEXT`].
    pub text: [u8; 88],
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes in a page of the kernel.
    pub page_size: u32,
    /// Index of this page in the device, from 0.
    pub page: u64,
    /// Pages in the device.
    pub pages: u64,
    /// The device's seed: [`seed`] of its minor.
    pub seed: u64,
}

/// Bytes in a [`PageHeader`].
pub const HEADER_LEN: usize = size_of::<PageHeader>();

impl PageHeader {
    /// The header of page `page` of a device of `pages` pages.
    pub const fn new(page: u64, pages: u64, page_size: u32, seed: u64) -> Self {
        Self {
            text: TEXT,
            magic: MAGIC,
            version: VERSION,
            page_size,
            page,
            pages,
            seed,
        }
    }

    /// The header as it lies in memory, as words in the machine's byte order.
    pub const fn to_words(self) -> [u64; HEADER_LEN / 8] {
        let mut words = [0; HEADER_LEN / 8];
        let mut i = 0;
        while i < TEXT.len() / 8 {
            let mut bytes = [0; 8];
            let mut j = 0;
            while j < 8 {
                bytes[j] = self.text[8 * i + j];
                j += 1;
            }
            words[i] = u64::from_ne_bytes(bytes);
            i += 1;
        }
        words[11] = self.magic;
        words[12] = pair(self.version, self.page_size);
        words[13] = self.page;
        words[14] = self.pages;
        words[15] = self.seed;
        words
    }
}

/// The seed of minor `minor`.
pub const fn seed(minor: u32) -> u64 {
    mix(minor as u64 ^ MAGIC)
}

/// Word `index` (byte offset divided by 8) of a device with seed `seed`, outside the page
/// headers.
///
/// This is output number `index` of SplitMix64 (Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014) started at `seed`.
pub const fn word(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Two neighbours of 32 bits as they lie in one word of memory.
const fn pair(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | ((second as u64) << 32)
    } else {
        ((first as u64) << 32) | second as u64
    }
}

const fn text(line: &[u8]) -> [u8; 88] {
    let mut text = [0; 88];
    let mut i = 0;
    while i < line.len() {
        text[i] = line[i];
        i += 1;
    }
    text
}

/// `_IOC_TYPE` of every ioctl below.
///
/// Every structure starts with a `flags` word that must be 0 and grows only at its end. The size
/// in the ioctl number is the caller's: a shorter structure, of [`IOC_MIN_SIZE`] at least, is
/// answered with the fields it has; a longer one is accepted if the bytes this kernel does not
/// know are zero (else `E2BIG`), and comes back with them zero.
pub const IOC_TYPE: u32 = 0xd6;

/// Least size of the structure of any ioctl: the fields that are read.
pub const IOC_MIN_SIZE: usize = 16;

/// `_IOC_NR` of the info call, `_IOWR(IOC_TYPE, IOC_NR_INFO, Info)`.
///
/// Also acknowledges the generation it reports: `poll` stops raising `POLLPRI` on this open file
/// until the next write.
pub const IOC_NR_INFO: u32 = 1;

/// `_IOC_NR` of the walk call, `_IOWR(IOC_TYPE, IOC_NR_WALK, Walk)`.
pub const IOC_NR_WALK: u32 = 2;

/// `_IOC_NR` of the statistics call, `_IOWR(IOC_TYPE, IOC_NR_STATS, Stats)`.
pub const IOC_NR_STATS: u32 = 3;

/// Number of the info call.
pub const IOC_INFO: u32 = iowr(IOC_NR_INFO, size_of::<Info>());

/// Number of the walk call.
pub const IOC_WALK: u32 = iowr(IOC_NR_WALK, size_of::<Walk>());

/// Number of the statistics call.
pub const IOC_STATS: u32 = iowr(IOC_NR_STATS, size_of::<Stats>());

/// `_IOWR(IOC_TYPE, nr, size)` as `asm-generic/ioctl.h` lays it out.
pub const fn iowr(nr: u32, size: usize) -> u32 {
    (3 << 30) | ((size as u32) << 16) | (IOC_TYPE << 8) | nr
}

/// [`Info::mode`]: order-0 pages from vmalloc.
pub const MODE_VMALLOC: u32 = 0;

/// [`Info::mode`]: large folios under one `vmap`.
pub const MODE_HUGE: u32 = 1;

/// What a device is: the answer to [`IOC_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// In: 0.
    pub flags: u64,
    /// Bytes in the device, as asked for with `size=`.
    pub size: u64,
    /// Pages in the device.
    pub pages: u64,
    /// Bytes in a page of the kernel.
    pub page_size: u32,
    /// [`MODE_VMALLOC`] or [`MODE_HUGE`].
    pub mode: u32,
    /// The device's seed.
    pub seed: u64,
    /// Number of writes completed since load.
    pub generation: u64,
    /// Bytes that one fault maps at most.
    pub fault_around: u64,
    /// 1 if the device was filled with the published pattern at load, 0 if with zeroes.
    pub fill: u32,
    /// The device's minor.
    pub minor: u32,
    /// Mappings alive now, in all processes.
    pub mappings: u64,
}

impl Info {
    /// The structure as it lies in memory, as words in the machine's byte order.
    pub const fn to_words(self) -> [u64; size_of::<Self>() / 8] {
        [
            self.flags,
            self.size,
            self.pages,
            pair(self.page_size, self.mode),
            self.seed,
            self.generation,
            self.fault_around,
            pair(self.fill, self.minor),
            self.mappings,
        ]
    }
}

/// [`WalkLevel::flags`]: the entry is present.
pub const ENTRY_PRESENT: u32 = 1 << 0;
/// [`WalkLevel::flags`]: the entry maps memory; otherwise it points to the next table.
pub const ENTRY_LEAF: u32 = 1 << 1;
/// [`WalkLevel::flags`]: the entry allows writes.
pub const ENTRY_WRITE: u32 = 1 << 2;
/// [`WalkLevel::flags`]: the entry does not forbid execution.
pub const ENTRY_EXEC: u32 = 1 << 3;
/// [`WalkLevel::flags`]: the processor has used the entry.
pub const ENTRY_ACCESSED: u32 = 1 << 4;
/// [`WalkLevel::flags`]: the processor has written through the entry.
pub const ENTRY_DIRTY: u32 = 1 << 5;
/// [`WalkLevel::flags`]: user mode may use the entry.
pub const ENTRY_USER: u32 = 1 << 6;
/// [`WalkLevel::flags`]: the translation belongs to every address space.
pub const ENTRY_GLOBAL: u32 = 1 << 7;

/// Most levels a page table has.
pub const MAX_LEVELS: usize = 5;

/// One step of a page-table walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkLevel {
    /// The kernel's name of the level (`pgd`, `p4d`, `pud`, `pmd`, `pte`), padded with NULs.
    pub name: [u8; 4],
    /// Index of the entry in its table; 0 for callers without `CAP_SYS_ADMIN`, since the indices
    /// together are an address of the kernel's.
    pub index: u32,
    /// `ENTRY_…` bits.
    pub flags: u32,
}

/// Where the kernel's page tables lead for one byte: the answer to [`IOC_WALK`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// In: 0.
    pub flags: u64,
    /// In: byte offset in the device, below its size rounded up to whole pages.
    pub offset: u64,
    /// Frame number of the page that holds the byte; 0 for callers without `CAP_SYS_ADMIN`.
    pub pfn: u64,
    /// Bytes that the leaf entry maps, 0 if the walk ended in a hole.
    pub leaf_size: u64,
    /// How many of `levels` were visited.
    pub nr_levels: u32,
    /// The levels visited, from the root.
    pub levels: [WalkLevel; MAX_LEVELS],
}

impl Walk {
    /// The structure as it lies in memory, as words in the machine's byte order.
    pub const fn to_words(self) -> [u64; size_of::<Self>() / 8] {
        let [a, b, c, d, e] = self.levels;
        [
            self.flags,
            self.offset,
            self.pfn,
            self.leaf_size,
            pair(self.nr_levels, u32::from_ne_bytes(a.name)),
            pair(a.index, a.flags),
            pair(u32::from_ne_bytes(b.name), b.index),
            pair(b.flags, u32::from_ne_bytes(c.name)),
            pair(c.index, c.flags),
            pair(u32::from_ne_bytes(d.name), d.index),
            pair(d.flags, u32::from_ne_bytes(e.name)),
            pair(e.index, e.flags),
        ]
    }
}

/// Counters of a device since load: the answer to [`IOC_STATS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In: 0.
    pub flags: u64,
    /// Faults answered with a page.
    pub faults: u64,
    /// Faults answered with `SIGBUS`.
    pub faults_sigbus: u64,
    /// Pages installed in user page tables by those faults.
    pub pages_installed: u64,
    /// Mappings alive now, in all processes.
    pub mappings: u64,
    /// Files open now.
    pub open_files: u64,
    /// Bytes that left through `read` and its kin.
    pub read_bytes: u64,
    /// Bytes that came in through `write` and its kin.
    pub written_bytes: u64,
}

impl Stats {
    /// The structure as it lies in memory, as words in the machine's byte order.
    pub const fn to_words(self) -> [u64; size_of::<Self>() / 8] {
        [
            self.flags,
            self.faults,
            self.faults_sigbus,
            self.pages_installed,
            self.mappings,
            self.open_files,
            self.read_bytes,
            self.written_bytes,
        ]
    }
}

const _: () = {
    assert!(size_of::<PageHeader>() == 128);
    assert!(size_of::<Info>() == 72);
    assert!(size_of::<WalkLevel>() == 12);
    assert!(size_of::<Walk>() == 96);
    assert!(size_of::<Stats>() == 64);
};
