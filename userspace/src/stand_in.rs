// SPDX-License-Identifier: GPL-2.0

//! A regular file with a device's contents, for tests without the module.

use std::os::unix::fs::FileExt;

use tempfile::NamedTempFile;

use crate::device::Device;
use crate::info::Info;
use crate::pattern::Pattern;
use crate::uapi;

pub(crate) struct StandIn {
    pub(crate) file: NamedTempFile,
    pub(crate) device: Device,
}

impl StandIn {
    /// A device of `size` bytes, in pages of 4096.
    pub(crate) fn new(size: u64) -> Self {
        let info = info(size);
        let file = NamedTempFile::new().unwrap();
        let pattern = Pattern::new(&info);
        let mut words = vec![0; pattern.words_per_page()];
        for page in 0..info.pages {
            pattern.fill_page(page, &mut words);
            let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            file.as_file().write_all_at(&bytes, page * 4096).unwrap();
        }
        let device = Device::stand_in(file.reopen().unwrap(), file.path(), info);
        Self { file, device }
    }
}

/// What a device of `size` bytes says of itself, in pages of 4096.
pub(crate) fn info(size: u64) -> Info {
    Info {
        size,
        pages: size.div_ceil(4096),
        page_size: 4096,
        seed: uapi::seed(3),
        fill: true,
        ..Info::default()
    }
}
