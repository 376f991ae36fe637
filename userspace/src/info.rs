// SPDX-License-Identifier: GPL-2.0

//! What a device answers to the calls of [`uapi`].

use bitflags::bitflags;

use crate::uapi;

/// What pages a device is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Mode {
    /// Single pages from vmalloc.
    #[default]
    Vmalloc,
    /// Large folios under one `vmap`.
    Huge,
    /// Something newer than this library.
    Other,
}

impl From<u32> for Mode {
    fn from(mode: u32) -> Self {
        match mode {
            uapi::MODE_VMALLOC => Self::Vmalloc,
            uapi::MODE_HUGE => Self::Huge,
            _ => Self::Other,
        }
    }
}

/// What a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Info {
    /// Its minor number.
    pub minor: u32,
    /// Bytes in the device.
    pub size: u64,
    /// Pages in the device.
    pub pages: u64,
    /// Bytes in a page.
    pub page_size: u32,
    /// What its pages are.
    pub mode: Mode,
    /// Bytes that one fault maps at most.
    pub fault_around: u64,
    /// Whether it was filled with the published pattern at load; otherwise with zeroes.
    pub fill: bool,
    /// The seed of the pattern.
    pub seed: u64,
    /// Writes completed since load.
    pub generation: u64,
    /// Mappings alive now, in all processes.
    pub mappings: u64,
}

impl From<uapi::Info> for Info {
    fn from(info: uapi::Info) -> Self {
        Self {
            minor: info.minor,
            size: info.size,
            pages: info.pages,
            page_size: info.page_size,
            mode: info.mode.into(),
            fault_around: info.fault_around,
            fill: info.fill != 0,
            seed: info.seed,
            generation: info.generation,
            mappings: info.mappings,
        }
    }
}

bitflags! {
    /// What an entry of a page table says.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Entry: u32 {
        /// It is present.
        const PRESENT = uapi::ENTRY_PRESENT;
        /// It maps memory; otherwise it points to the next table.
        const LEAF = uapi::ENTRY_LEAF;
        /// It allows writes.
        const WRITE = uapi::ENTRY_WRITE;
        /// It does not forbid execution.
        const EXEC = uapi::ENTRY_EXEC;
        /// The processor has used it.
        const ACCESSED = uapi::ENTRY_ACCESSED;
        /// The processor has written through it.
        const DIRTY = uapi::ENTRY_DIRTY;
        /// User mode may use it.
        const USER = uapi::ENTRY_USER;
        /// It belongs to every address space.
        const GLOBAL = uapi::ENTRY_GLOBAL;
        // Whatever newer kernels say.
        const _ = !0;
    }
}

/// As a list of names.
#[cfg(feature = "serde")]
impl serde::Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter_names().map(|(name, _)| name.to_lowercase()))
    }
}

/// One step of a page-table walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Level {
    /// The kernel's name of the level: `pgd`, `p4d`, `pud`, `pmd` or `pte`.
    pub name: String,
    /// Index of the entry in its table, for callers with `CAP_SYS_ADMIN`.
    pub index: Option<u32>,
    /// What the entry says.
    pub entry: Entry,
}

/// Where the kernel's page tables lead for one byte of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Walk {
    /// The byte's offset.
    pub offset: u64,
    /// The levels visited, from the root.
    pub levels: Vec<Level>,
    /// Bytes that the last entry maps, if it is a leaf.
    pub leaf_size: Option<u64>,
    /// Frame number of the page that holds the byte, for callers with `CAP_SYS_ADMIN`.
    pub pfn: Option<u64>,
}

impl From<uapi::Walk> for Walk {
    fn from(walk: uapi::Walk) -> Self {
        let visited = walk.levels.iter().take(walk.nr_levels as usize);
        // A page has a number other than 0, so 0 means that we are not to know where it is.
        let hidden = walk.pfn == 0 && walk.leaf_size != 0;
        Self {
            offset: walk.offset,
            levels: visited
                .map(|level| Level {
                    name: String::from_utf8_lossy(&level.name)
                        .trim_end_matches('\0')
                        .into(),
                    index: (!hidden).then_some(level.index),
                    entry: Entry::from_bits_retain(level.flags),
                })
                .collect(),
            leaf_size: Some(walk.leaf_size).filter(|&size| size != 0),
            pfn: Some(walk.pfn).filter(|&pfn| pfn != 0),
        }
    }
}

/// Counters of a device since load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Faults answered with a page.
    pub faults: u64,
    /// Faults answered with SIGBUS.
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

impl From<uapi::Stats> for Stats {
    fn from(stats: uapi::Stats) -> Self {
        Self {
            faults: stats.faults,
            faults_sigbus: stats.faults_sigbus,
            pages_installed: stats.pages_installed,
            mappings: stats.mappings,
            open_files: stats.open_files,
            read_bytes: stats.read_bytes,
            written_bytes: stats.written_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &[u8; 4], index: u32, flags: u32) -> uapi::WalkLevel {
        uapi::WalkLevel {
            name: *name,
            index,
            flags,
        }
    }

    fn walk() -> uapi::Walk {
        let mut walk = uapi::Walk {
            offset: 5,
            pfn: 7,
            leaf_size: 2 << 20,
            nr_levels: 2,
            ..uapi::Walk::default()
        };
        walk.levels[0] = level(b"pud\0", 3, uapi::ENTRY_PRESENT);
        walk.levels[1] = level(
            b"pmd\0",
            4,
            uapi::ENTRY_PRESENT | uapi::ENTRY_LEAF | (1 << 31),
        );
        walk
    }

    #[test]
    fn only_visited_levels_count() {
        let walk = Walk::from(walk());
        assert_eq!(walk.levels.len(), 2);
        assert_eq!(walk.levels[1].name, "pmd");
        assert_eq!(walk.levels[1].index, Some(4));
        assert!(walk.levels[1].entry.contains(Entry::PRESENT | Entry::LEAF));
        assert_eq!(walk.leaf_size, Some(2 << 20));
        assert_eq!(walk.pfn, Some(7));
    }

    #[test]
    fn what_is_hidden_is_none() {
        let walk = Walk::from(uapi::Walk { pfn: 0, ..walk() });
        assert_eq!((walk.pfn, walk.levels[0].index), (None, None));
    }

    #[test]
    fn a_hole_has_no_size() {
        let walk = Walk::from(uapi::Walk {
            pfn: 0,
            leaf_size: 0,
            ..walk()
        });
        assert_eq!((walk.leaf_size, walk.pfn), (None, None));
        assert_eq!(walk.levels[0].index, Some(3));
    }

    #[test]
    fn a_mode_of_the_future_is_other() {
        assert_eq!(Mode::from(uapi::MODE_HUGE), Mode::Huge);
        assert_eq!(Mode::from(9), Mode::Other);
    }
}
