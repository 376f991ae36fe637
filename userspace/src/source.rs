// SPDX-License-Identifier: GPL-2.0

//! The ways of getting at the bytes of a device.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::device::Device;
use crate::error::{Error, Operation, Result};
use crate::mapping::{Access, Mapping};

/// How the bytes get from the device to the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The processor reads them in a mapping.
    #[default]
    Mmap,
    /// The kernel copies them, by `pread`.
    Read,
    /// A disk takes them straight out of the mapping's pages: they are written with `O_DIRECT` to
    /// a temporary file in `directory`, and read from there.
    Direct {
        /// Where the temporary files are; on a file system that has direct I/O.
        directory: PathBuf,
    },
}

/// Where a thread gets pages from.
pub(crate) struct Source<'a> {
    way: Way<'a>,
    words_per_page: usize,
    /// The page that `words` begins with.
    first: u64,
    words: Vec<u64>,
}

/// A [`Method`] ready for use.
enum Way<'a> {
    Mmap(Mapping),
    Read(&'a Device),
    Direct(Mapping, Scratch),
}

impl<'a> Source<'a> {
    pub(crate) fn new(device: &'a Device, method: &Method) -> Result<Self> {
        let words_per_page = device.page_size() as usize / size_of::<u64>();
        Ok(Self {
            way: match method {
                Method::Mmap => Way::Mmap(device.map_all(Access::Read)?),
                Method::Read => Way::Read(device),
                Method::Direct { directory } => {
                    Way::Direct(device.map_all(Access::Read)?, Scratch::new(directory)?)
                }
            },
            words_per_page,
            first: 0,
            // Written to, so that its own page fault is not among those that are counted later.
            words: vec![1; words_per_page],
        })
    }

    /// Gets `pages` ready for [`Source::page`].
    pub(crate) fn prepare(&mut self, pages: Range<u64>) -> Result<()> {
        let count = match self.way {
            Way::Mmap(_) => 1,
            _ => (pages.end - pages.start) as usize,
        };
        self.first = pages.start;
        self.words.resize(count * self.words_per_page, 0);
        match &self.way {
            Way::Mmap(_) => Ok(()),
            Way::Read(device) => device.read_pages(pages.start, &mut self.words),
            Way::Direct(mapping, scratch) => {
                let page_size = mapping.page_size() as u64;
                let range = pages.start * page_size..pages.end * page_size;
                mapping
                    .write_to(range, &scratch.direct)
                    .and_then(|()| scratch.read(&mut self.words))
                    .map_err(Error::system(&scratch.directory, Operation::DirectIo))
            }
        }
    }

    /// The words of one of the pages made ready.
    pub(crate) fn page(&mut self, page: u64) -> Result<&[u64]> {
        if let Way::Mmap(mapping) = &self.way {
            mapping.read_words(page * mapping.page_size() as u64, &mut self.words)?;
            return Ok(&self.words);
        }
        let start = (page - self.first) as usize * self.words_per_page;
        Ok(&self.words[start..start + self.words_per_page])
    }
}

/// A temporary file without a name, open twice.
struct Scratch {
    directory: PathBuf,
    /// Writes go to the disk.
    direct: File,
    /// Reads come from the disk the first time after such a write.
    cached: File,
}

impl Scratch {
    fn new(directory: &Path) -> Result<Self> {
        let open = || {
            let file = tempfile::NamedTempFile::new_in(directory)?;
            rustix::fs::fcntl_setfl(&file, OFlags::DIRECT)?;
            Ok(Self {
                directory: directory.to_owned(),
                cached: file.reopen()?,
                direct: file.into_file(),
            })
        };
        open().map_err(Error::system::<io::Error>(directory, Operation::DirectIo))
    }

    /// Reads as many words as there are in `words` from the start.
    fn read(&self, words: &mut [u64]) -> io::Result<()> {
        self.cached
            .read_exact_at(bytemuck::cast_slice_mut(words), 0)
    }
}
