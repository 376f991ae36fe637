// SPDX-License-Identifier: GPL-2.0

//! What a device holds after loading: see [`uapi`].

use crate::info::Info;
use crate::uapi;

/// The contents that `map_driver` gives a device at load.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    size: u64,
    pages: u64,
    page_size: u32,
    seed: u64,
    fill: bool,
}

impl Pattern {
    /// The pattern of the device that `info` describes.
    pub fn new(info: &Info) -> Self {
        Self {
            size: info.size,
            pages: info.pages,
            page_size: info.page_size,
            seed: info.seed,
            fill: info.fill,
        }
    }

    /// Words in a page.
    pub fn words_per_page(&self) -> usize {
        self.page_size as usize / size_of::<u64>()
    }

    /// The header of page `page`.
    pub fn header(&self, page: u64) -> uapi::PageHeader {
        uapi::PageHeader::new(page, self.pages, self.page_size, self.seed)
    }

    /// Fills `words` with the contents of page `page`.
    ///
    /// # Panics
    ///
    /// If `words` is not one page long.
    pub fn fill_page(&self, page: u64, words: &mut [u64]) {
        assert_eq!(words.len(), self.words_per_page());
        let start = page * u64::from(self.page_size);
        let valid = if self.fill {
            self.size.saturating_sub(start)
        } else {
            0
        };

        let (head, body) = words.split_at_mut(uapi::HEADER_LEN / 8);
        head.copy_from_slice(&self.header(page).to_words());
        let base = start / 8 + head.len() as u64;
        for (word, index) in body.iter_mut().zip(base..) {
            *word = uapi::word(self.seed, index);
        }
        if valid < u64::from(self.page_size) {
            clear_from(words, valid as usize);
        }
    }

    /// Whether `words` are exactly the contents of page `page`.
    ///
    /// # Panics
    ///
    /// If `words` is not one page long.
    pub fn matches(&self, page: u64, words: &[u64]) -> bool {
        assert_eq!(words.len(), self.words_per_page());
        let start = page * u64::from(self.page_size);
        if !self.fill {
            return words.iter().all(|&word| word == 0);
        }
        if start + u64::from(self.page_size) > self.size {
            let mut want = vec![0; words.len()];
            self.fill_page(page, &mut want);
            return want == words;
        }

        // Ends at the first difference, which keeps the compiler from using vectors: without a
        // 64-bit multiplication in vectors (AVX-512) they are slower than this.
        let (head, body) = words.split_at(uapi::HEADER_LEN / 8);
        let base = start / 8 + head.len() as u64;
        head == self.header(page).to_words()
            && body
                .iter()
                .zip(base..)
                .all(|(&word, index)| word == uapi::word(self.seed, index))
    }
}

/// Zeroes the bytes of `words` from byte `from` on.
fn clear_from(words: &mut [u64], from: usize) {
    let whole = from.div_ceil(8);
    if from % 8 != 0 {
        let mut bytes = words[from / 8].to_ne_bytes();
        bytes[from % 8..].fill(0);
        words[from / 8] = u64::from_ne_bytes(bytes);
    }
    words[whole..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::info;

    /// The contents as the ABI words them, byte by byte.
    fn byte(info: &Info, offset: u64) -> u8 {
        if offset >= info.size || !info.fill {
            return 0;
        }
        let (page, at) = (offset / 4096, (offset % 4096) as usize);
        if at < uapi::HEADER_LEN {
            let header = uapi::PageHeader::new(page, info.pages, 4096, info.seed);
            return header.to_words()[at / 8].to_ne_bytes()[at % 8];
        }
        uapi::word(info.seed, offset / 8).to_ne_bytes()[at % 8]
    }

    #[test]
    fn every_byte_is_the_abi_s() {
        for size in [1, 7, 8, 127, 128, 129, 4095, 4096, 4097, 10_000, 12_288] {
            let info = info(size);
            let pattern = Pattern::new(&info);
            for page in 0..info.pages {
                let mut words = vec![u64::MAX; 512];
                pattern.fill_page(page, &mut words);
                assert!(pattern.matches(page, &words));
                for (i, found) in words.iter().flat_map(|w| w.to_ne_bytes()).enumerate() {
                    let offset = page * 4096 + i as u64;
                    assert_eq!(found, byte(&info, offset), "size {size} offset {offset}");
                }
            }
        }
    }

    #[test]
    fn a_device_without_fill_is_zero() {
        let info = Info {
            fill: false,
            ..info(8192)
        };
        let pattern = Pattern::new(&info);
        assert!(pattern.matches(1, &[0; 512]));
        assert!(!pattern.matches(1, &[1; 512]));
    }

    #[test]
    fn one_wrong_bit_anywhere_is_seen() {
        let info = info(8192 - 5);
        let pattern = Pattern::new(&info);
        for page in 0..2 {
            let mut words = vec![0; 512];
            pattern.fill_page(page, &mut words);
            for bit in (0..4096 * 8).step_by(37) {
                words[bit / 64] ^= 1 << (bit % 64);
                assert!(!pattern.matches(page, &words), "page {page} bit {bit}");
                words[bit / 64] ^= 1 << (bit % 64);
            }
        }
    }
}
