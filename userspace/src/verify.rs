// SPDX-License-Identifier: GPL-2.0

//! Checking every byte of a device.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::device::Device;
use crate::error::Result;
use crate::pagemap::proc_error;
use crate::pattern::Pattern;
use crate::source::{Method, Source};
use crate::uapi;

/// Bytes that a thread takes at a time.
const CHUNK: u64 = 2 << 20;

/// Which pages are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All, in order.
    #[default]
    All,
    /// Some, in no order.
    Random {
        /// How many.
        count: u64,
        /// Other seeds select other pages.
        seed: u64,
    },
}

/// How to verify.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// How the bytes are read.
    pub method: Method,
    /// Which pages are checked.
    pub selection: Selection,
    /// Threads; by default one for each processor.
    pub jobs: Option<NonZero<usize>>,
    /// Mismatches to remember; the others are only counted.
    pub keep: usize,
    /// Makes the work stop soon when it becomes true.
    pub cancel: Option<&'a AtomicBool>,
    /// Called now and then, from any thread, with the bytes checked since the last call.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

/// A word that is not what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Mismatch {
    /// The page.
    pub page: u64,
    /// Offset in the device of the first wrong byte of the word.
    pub offset: u64,
    /// The bytes of the word as they should be, in the order of memory.
    pub expected: [u8; 8],
    /// The bytes of the word as they are.
    pub found: [u8; 8],
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Pages checked.
    pub pages: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Page faults that the checking threads took.
    pub faults: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Words that were wrong.
    pub mismatches: u64,
    /// The first of them, by offset.
    pub first: Vec<Mismatch>,
    /// Whether it was cancelled before the end.
    pub cancelled: bool,
}

impl Device {
    /// Checks every byte of the device against [`Device::pattern`].
    ///
    /// # Errors
    ///
    /// [`Error::System`](crate::Error::System) if the device cannot be mapped or read. Wrong contents are not an error
    /// but in the [`Report`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// // Not run: makes sense only where there is a device.
    /// # fn main() -> mapdrv::Result<()> {
    /// let device = mapdrv::Device::open("/dev/mapdrv0")?;
    /// let report = device.verify(&mapdrv::Options::default())?;
    /// assert!(report.is_ok(), "{} words differ", report.mismatches);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self, options: &Options<'_>) -> Result<Report> {
        let work = Work::new(self, options);
        let jobs = options
            .jobs
            .or_else(|| thread::available_parallelism().ok())
            .map_or(1, NonZero::get)
            .min(work.chunks() as usize);

        let start = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs)
                .map(|_| scope.spawn(|| work.take_part()))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("a verifying thread panicked"))
        })?;

        let mut report = work.report.into_inner().expect("no thread panicked");
        report.elapsed = start.elapsed();
        report.first.sort_by_key(|mismatch| mismatch.offset);
        report.first.truncate(options.keep);
        Ok(report)
    }
}

impl Report {
    /// Whether everything was checked and right.
    pub fn is_ok(&self) -> bool {
        self.mismatches == 0 && !self.cancelled
    }

    /// Notes that a page was checked, and the words of `found` that differ from the pattern.
    fn check(&mut self, pattern: &Pattern, keep: usize, page: u64, found: &[u64]) {
        self.pages += 1;
        self.bytes += size_of_val(found) as u64;
        if pattern.matches(page, found) {
            return;
        }
        let mut want = vec![0; found.len()];
        pattern.fill_page(page, &mut want);
        let first_word = page * found.len() as u64;
        for (index, (want, found)) in (first_word..).zip(want.iter().zip(found)) {
            if want == found {
                continue;
            }
            self.mismatches += 1;
            if self.first.len() < keep {
                let (expected, found) = (want.to_ne_bytes(), found.to_ne_bytes());
                let equal = expected.iter().zip(found).take_while(|&(&e, f)| e == f);
                self.first.push(Mismatch {
                    page,
                    offset: index * 8 + equal.count() as u64,
                    expected,
                    found,
                });
            }
        }
    }

    /// Adds what another thread found.
    fn add(&mut self, other: Report) {
        self.pages += other.pages;
        self.bytes += other.bytes;
        self.faults += other.faults;
        self.mismatches += other.mismatches;
        self.first.extend(other.first);
        self.cancelled |= other.cancelled;
    }
}

/// What the threads share.
struct Work<'a> {
    device: &'a Device,
    options: &'a Options<'a>,
    /// How many pages are to be checked.
    count: u64,
    /// How many have been handed out.
    next: AtomicU64,
    report: Mutex<Report>,
}

impl<'a> Work<'a> {
    fn new(device: &'a Device, options: &'a Options<'a>) -> Self {
        Self {
            device,
            options,
            count: match options.selection {
                Selection::All => device.pages(),
                Selection::Random { count, .. } => count,
            },
            next: AtomicU64::new(0),
            report: Mutex::default(),
        }
    }

    fn pages_per_chunk(&self) -> u64 {
        CHUNK / u64::from(self.device.page_size())
    }

    fn chunks(&self) -> u64 {
        self.count.div_ceil(self.pages_per_chunk())
    }

    /// The next few pages to check, as numbers from 0 to `count`.
    fn chunk(&self) -> Option<Range<u64>> {
        let len = self.pages_per_chunk();
        let start = self.next.fetch_add(len, Ordering::Relaxed);
        (start < self.count).then(|| start..self.count.min(start + len))
    }

    /// The pages that a chunk stands for.
    fn pages(&self, chunk: Range<u64>) -> Vec<Range<u64>> {
        match self.options.selection {
            Selection::All => vec![chunk],
            Selection::Random { seed, .. } => chunk
                .map(|number| uapi::word(seed, number) % self.device.pages())
                .map(|page| page..page + 1)
                .collect(),
        }
    }

    fn is_cancelled(&self) -> bool {
        let cancel = self.options.cancel;
        cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// What each thread does: check chunks until there are none left.
    fn take_part(&self) -> Result<()> {
        let page_size = u64::from(self.device.page_size());
        let pattern = self.device.pattern();
        let mut source = Source::new(self.device, &self.options.method)?;
        let mut report = Report::default();
        let faults = thread_faults()?;

        while let Some(chunk) = self.chunk() {
            if self.is_cancelled() {
                report.cancelled = true;
                break;
            }
            let bytes = (chunk.end - chunk.start) * page_size;
            for pages in self.pages(chunk) {
                source.prepare(pages.clone())?;
                for page in pages {
                    report.check(&pattern, self.options.keep, page, source.page(page)?);
                }
            }
            if let Some(progress) = self.options.progress {
                progress(bytes);
            }
        }

        report.faults = thread_faults()? - faults;
        self.report.lock().expect("no thread panicked").add(report);
        Ok(())
    }
}

/// Page faults of this thread that needed no input or output.
fn thread_faults() -> Result<u64> {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    Process::myself()
        .and_then(|process| process.task_from_tid(tid))
        .and_then(|task| task.stat())
        .map(|stat| stat.minflt)
        .map_err(proc_error("/proc/thread-self/stat"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::error::Error;
    use crate::stand_in::StandIn;

    const SIZE: u64 = (5 << 20) + 13;

    fn verify(stand_in: &StandIn, method: Method) -> Report {
        stand_in
            .device
            .verify(&Options {
                method,
                jobs: NonZero::new(3),
                keep: 3,
                ..Options::default()
            })
            .unwrap()
    }

    fn methods() -> [Method; 3] {
        let directory = std::env::temp_dir();
        [Method::Mmap, Method::Read, Method::Direct { directory }]
    }

    #[test]
    fn all_is_checked_and_right() {
        let stand_in = StandIn::new(SIZE);
        for method in methods() {
            let report = verify(&stand_in, method.clone());
            assert!(report.is_ok(), "{method:?}");
            assert_eq!(report.pages, 1281);
            assert_eq!(report.bytes, 1281 * 4096);
        }
        assert!(verify(&stand_in, Method::Mmap).faults > 0);
    }

    #[test]
    fn each_wrong_word_is_found() {
        let stand_in = StandIn::new(SIZE);
        let wrong = [5 << 20, 17, (3 << 20) + 4095, 4096 + 130];
        for offset in wrong {
            let mut byte = [0];
            let file = stand_in.file.as_file();
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[!byte[0]], offset).unwrap();
        }
        for method in methods() {
            let report = verify(&stand_in, method.clone());
            assert!(!report.is_ok());
            assert_eq!(report.mismatches, 4, "{method:?}");
            let first: Vec<_> = report.first.iter().map(|first| first.offset).collect();
            assert_eq!(first, [17, 4226, (3 << 20) + 4095], "{method:?}");
            let first = report.first[0];
            assert_eq!((first.page, first.found[1]), (0, !first.expected[1]));
            assert_eq!(first.found[2..], first.expected[2..]);
        }
    }

    #[test]
    fn the_tail_has_to_be_zero() {
        let stand_in = StandIn::new(4097);
        let file = stand_in.file.as_file();
        file.write_all_at(&[1], 8191).unwrap();
        let report = verify(&stand_in, Method::Mmap);
        assert_eq!(report.mismatches, 1);
        assert_eq!(report.first[0].offset, 8191);
    }

    #[test]
    fn random_pages_are_counted() {
        let stand_in = StandIn::new(SIZE);
        for method in methods() {
            let selection = Selection::Random { count: 7, seed: 1 };
            let options = Options {
                method,
                selection,
                ..Options::default()
            };
            let report = stand_in.device.verify(&options).unwrap();
            assert!(report.is_ok());
            assert_eq!(report.pages, 7);
        }
    }

    #[test]
    fn progress_adds_up() {
        let stand_in = StandIn::new(SIZE);
        let sum = AtomicU64::new(0);
        let add = |bytes| {
            sum.fetch_add(bytes, Ordering::Relaxed);
        };
        let options = Options {
            progress: Some(&add),
            ..Options::default()
        };
        let report = stand_in.device.verify(&options).unwrap();
        assert_eq!(sum.into_inner(), report.bytes);
    }

    #[test]
    fn cancelled_is_not_ok() {
        let stand_in = StandIn::new(SIZE);
        let cancel = AtomicBool::new(false);
        let cancel_now = |_| cancel.store(true, Ordering::Relaxed);
        let options = Options {
            jobs: NonZero::new(1),
            cancel: Some(&cancel),
            progress: Some(&cancel_now),
            ..Options::default()
        };
        let report = stand_in.device.verify(&options).unwrap();
        assert!(report.cancelled && !report.is_ok());
        assert_eq!(report.pages, 512, "one chunk");
    }

    #[test]
    fn a_lost_device_ends_it() {
        crate::catch_sigbus().unwrap();
        let stand_in = StandIn::new(SIZE);
        stand_in.file.as_file().set_len(4096).unwrap();
        let result = stand_in.device.verify(&Options::default());
        assert!(matches!(result, Err(Error::Lost { .. })), "{result:?}");
    }
}
