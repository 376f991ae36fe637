// SPDX-License-Identifier: GPL-2.0

//! What is done with mappings.

use super::{ANON, Exec, Outcome, PAGES, Page, R, SLOTS, W, X, near, near_page, some_pages, wrong};
use crate::seq::ARGS;
use crate::sys::{self, PAGE};
use libc::{
    EACCES, EAGAIN, EBADF, EEXIST, EFAULT, EINVAL, EIO, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM,
};
use std::fs;

/// A page of the arena as `/proc/self/maps` shows it.
#[derive(PartialEq, Clone, Copy)]
struct Seen {
    minor: u8,
    pgoff: u32,
    shared: bool,
    prot: u8,
    /// Which VMA it is in.
    vma: usize,
}

impl Seen {
    fn is(&self, page: &Page) -> bool {
        self.minor == page.minor
            && (self.minor == ANON || self.pgoff == page.pgoff)
            && self.shared == page.shared
            && self.prot == page.prot
    }
}

impl Exec<'_> {
    /// The arena's structure, as the kernel sees it.
    fn seen(&self) -> Outcome<Vec<Option<Seen>>> {
        let text =
            fs::read_to_string("/proc/self/maps").map_err(|error| format!("maps: {error}"))?;
        let mut pages = vec![None; PAGES];
        for (vma, line) in text.lines().enumerate() {
            let bad = || format!("/proc/self/maps: {line}");
            let mut words = line.split_whitespace();
            let mut word = || words.next();
            let (range, flags, offset) = (word(), word(), word());
            let (_, _, path) = (word(), word(), word());
            let (start, end) = range
                .and_then(|range| range.split_once('-'))
                .ok_or_else(bad)?;
            let hex = |text: &str| usize::from_str_radix(text, 16).map_err(|_| bad());
            let (start, end) = (hex(start)?, hex(end)?);
            if end <= self.arena || start >= self.arena + PAGES * PAGE {
                continue;
            }
            if start < self.arena || end > self.arena + PAGES * PAGE {
                wrong!("a mapping leaves the arena: {line}");
            }
            let flags = flags.unwrap_or_default();
            let prot = [('r', R), ('w', W), ('x', X)];
            let prot = prot
                .into_iter()
                .filter(|&(c, _)| flags.contains(c))
                .fold(0, |bits, (_, bit)| bits | bit);
            let minor = match path.and_then(|path| path.strip_prefix("/dev/mapdrv")) {
                Some(number) => number.parse().map_err(|_| bad())?,
                None => ANON,
            };
            let first = hex(offset.unwrap_or_default())? / PAGE;
            for (i, index) in ((start - self.arena) / PAGE..(end - self.arena) / PAGE).enumerate() {
                pages[index] = Some(Seen {
                    minor,
                    pgoff: if minor == ANON { 0 } else { (first + i) as u32 },
                    shared: flags.contains('s'),
                    prot,
                    vma,
                });
            }
        }
        Ok(pages)
    }

    /// Compares the arena's structure with the model.
    pub(super) fn check_structure(&self) -> Outcome {
        for (index, (seen, page)) in self.seen()?.iter().zip(&self.pages).enumerate() {
            self.check_page(index, seen, page)?;
        }
        Ok(())
    }

    fn check_page(&self, index: usize, seen: &Option<Seen>, page: &Option<Page>) -> Outcome {
        match (seen, page) {
            (None, None) => Ok(()),
            (Some(seen), Some(page)) if seen.is(page) => Ok(()),
            _ => {
                let show = |minor: u8, pgoff: u32, shared: bool, prot: u8| {
                    let what = if minor == ANON {
                        "nothing".into()
                    } else {
                        format!("device {minor}")
                    };
                    let kind = if shared { "shared" } else { "private" };
                    format!("page {pgoff} of {what}, {kind}, protection {prot}")
                };
                let seen = seen.map_or("nothing".into(), |s| {
                    show(s.minor, s.pgoff, s.shared, s.prot)
                });
                let page = page.as_ref();
                let page = page.map_or("nothing".into(), |p| {
                    show(p.minor, p.pgoff, p.shared, p.prot)
                });
                wrong!("page {index} of the arena is mapped to {seen}, and not to {page}")
            }
        }
    }

    /// After a call that has failed with part of it done: what was at `first` may be gone, or, with
    /// `from`, be what was there.
    fn resync(&mut self, first: usize, len: usize, from: Option<usize>) -> Outcome {
        let seen = self.seen()?;
        let old = self.pages.clone();
        for i in 0..len {
            let index = first + i;
            let Some(now) = &seen[index] else {
                self.pages[index] = None;
                continue;
            };
            if old[index].as_ref().is_some_and(|page| now.is(page)) {
                continue;
            }
            let moved = from
                .map(|from| from + i)
                .filter(|&from| seen[from].is_none());
            match moved.and_then(|from| old[from].as_ref()) {
                Some(page) if now.is(page) => self.pages[index] = Some(page.clone()),
                _ => self.check_page(index, &seen[index], &old[index])?,
            }
        }
        if let Some(from) = from {
            for (page, seen) in self.pages.iter_mut().zip(&seen).skip(from).take(len) {
                if seen.is_none() {
                    *page = None;
                }
            }
        }
        Ok(())
    }

    /// A range of the arena, mostly one where something is.
    pub(super) fn range(&self, a: u32, b: u32) -> (usize, usize) {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (index, page) in self.pages.iter().enumerate() {
            if page.is_some() {
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == index => *len += 1,
                    _ => runs.push((index, 1)),
                }
            }
        }
        let (start, len) = if runs.is_empty() || a & 31 == 31 {
            (0, PAGES)
        } else {
            runs[a as usize % runs.len()]
        };
        let skip = near_page(a >> 5, len);
        let first = (start + skip).min(PAGES - 1);
        (
            first,
            some_pages(b, (len - skip.min(len)).max(1)).min(PAGES - first),
        )
    }

    fn addr(&self, index: usize) -> usize {
        self.arena + index * PAGE
    }

    fn call_addr(
        &mut self,
        what: &str,
        nr: libc::c_long,
        args: &[usize],
        errors: &[i32],
        others: &[i32],
    ) -> Outcome<Option<usize>> {
        let answer = sys::call_addr(nr, args);
        self.expect(what, answer, errors, others)
    }

    pub(super) fn map(&mut self, [slot, place, len, offset, how, extra]: [u32; ARGS]) -> Outcome {
        let open = self.slots[slot as usize % SLOTS].clone();
        // With threads, others may drop what is anybody's.
        let anon = slot & 0x60 == 0x60 && !self.threads;
        let total = open
            .as_ref()
            .map_or(64, |open| self.dev(open.minor).pages());
        let mut errors = Vec::new();

        let prot = [R | W, R, R | W, R, 0, W, R | W, R | X][how as usize & 7];
        let prot = if anon { prot & !X } else { prot };
        let kind = match how >> 3 & 7 {
            _ if anon => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            0..=2 => libc::MAP_SHARED,
            3..=5 => libc::MAP_PRIVATE,
            6 => libc::MAP_SHARED_VALIDATE,
            _ => 0,
        };
        let shared = kind == libc::MAP_SHARED || kind == libc::MAP_SHARED_VALIDATE;

        let (mut pgoff, mut off_by) = (near_page(offset, total), 0);
        if anon {
            pgoff = 0;
        } else if offset & 0xf_0000 == 0xf_0000 {
            pgoff = (usize::MAX >> 12) - (offset >> 24) as usize;
        } else if offset & 0xf_0000 == 0xe_0000 {
            off_by = 1 + offset as usize % (PAGE - 1);
            errors.push(EINVAL);
        }
        let mut pages = some_pages(len, total.saturating_sub(pgoff));
        let mut bytes = pages * PAGE;
        if len & 0xf_0000 == 0xf_0000 {
            // The last is an error of a device's only: the kernel may promise that much memory.
            bytes = [
                0,
                usize::MAX,
                usize::MAX - PAGE + 1,
                1 << 47,
                1 << 62,
                1 << 46,
            ][len as usize % if anon { 5 } else { 6 }];
            pages = bytes / PAGE;
            errors.extend([EINVAL, ENOMEM, EOVERFLOW]);
        } else if len & 0x30_0000 == 0x30_0000 {
            bytes -= len as usize % PAGE;
        }

        // The address, and how much the kernel is to make of it.
        let index = near_page(place >> 4, PAGES);
        let index = if place >> 31 == 1 {
            index / 512 * 512 + pgoff % 512
        } else {
            index
        };
        let room = pages <= PAGES && errors.is_empty();
        let index = if room { index.min(PAGES - pages) } else { 0 };
        let fixed = libc::MAP_FIXED;
        let noreplace = libc::MAP_FIXED_NOREPLACE;
        let (addr, at) = match place & 15 {
            0..=9 if room => (self.addr(index), fixed),
            10 | 11 if room => (self.addr(index), noreplace),
            12 | 13 if room => (self.addr(index), 0),
            _ => (0, 0),
        };
        let more = match extra & 15 {
            9 => libc::MAP_POPULATE,
            10 => libc::MAP_LOCKED,
            11 => libc::MAP_POPULATE | libc::MAP_NONBLOCK,
            12 => {
                libc::MAP_NORESERVE | libc::MAP_STACK | libc::MAP_DENYWRITE | libc::MAP_EXECUTABLE
            }
            13 if at == 0 => libc::MAP_32BIT,
            14 if !anon => libc::MAP_GROWSDOWN,
            15 if !anon => [libc::MAP_HUGETLB, libc::MAP_SYNC][extra as usize >> 4 & 1],
            _ => 0,
        };
        let mut others = vec![];
        if more & libc::MAP_LOCKED != 0 || !self.privileged {
            others.extend([EAGAIN, ENOMEM]);
            if !self.privileged {
                others.push(EPERM);
            }
        }
        match &open {
            _ if anon => (),
            None => errors.push(EBADF),
            Some(open) if !open.usable => errors.push(EBADF),
            Some(open) => {
                if kind == 0 || more & (libc::MAP_GROWSDOWN | libc::MAP_HUGETLB) != 0 {
                    errors.push(EINVAL);
                }
                let validate = kind == libc::MAP_SHARED_VALIDATE;
                if validate && (more == libc::MAP_SYNC || at == noreplace) {
                    errors.push(EOPNOTSUPP);
                }
                if !open.read || shared && prot & W != 0 && !open.write {
                    errors.push(EACCES);
                }
                if prot & X != 0 {
                    errors.push(EPERM);
                }
                if pgoff.checked_add(pages).is_none_or(|end| end > total) {
                    errors.extend([EINVAL, EOVERFLOW]);
                }
            }
        }
        if at == noreplace && self.pages[index..index + pages].iter().any(Option::is_some) {
            errors.push(EEXIST);
        }
        let flags = kind | at | more;
        let fd = if anon {
            usize::MAX
        } else {
            open.as_ref().map_or(9999, |open| open.fd as usize)
        };
        let offset = pgoff.wrapping_mul(PAGE).wrapping_add(off_by);
        let what = format!(
            "mmap({addr:#x}, {bytes:#x}, {prot}, {flags:#x}, {}, {offset:#x})",
            fd as i32
        );
        let args = [addr, bytes, usize::from(prot), flags as usize, fd, offset];
        let Some(got) = self.call_addr(&what, libc::SYS_mmap, &args, &errors, &others)? else {
            // What was there may have been unmapped first.
            return if at == fixed && room {
                self.resync(index, pages, None)
            } else {
                Ok(())
            };
        };
        if at != 0 && got != addr {
            wrong!("{what} is at {got:#x}");
        }
        let end = self.arena + PAGES * PAGE;
        let (minor, may_write) = match &open {
            Some(open) if !anon => (open.minor as u8, !shared || open.write),
            _ => (ANON, true),
        };
        let page = |i: usize| Page {
            minor,
            pgoff: if anon { 0 } else { (pgoff + i) as u32 },
            shared,
            prot,
            may_write,
            inherited: true,
            copy: anon.then(|| Box::from([0; PAGE])),
        };
        if got >= self.arena && got + pages * PAGE <= end {
            let first = (got - self.arena) / PAGE;
            if at != fixed && self.pages[first..first + pages].iter().any(Option::is_some) {
                wrong!("{what} is at {got:#x}, where there was something");
            }
            for i in 0..pages {
                self.pages[first + i] = Some(page(i));
            }
            return Ok(());
        }
        // Elsewhere: a look, and away with it.
        if prot & R != 0 && !anon {
            for i in [0, pages / 2, pages - 1] {
                let bytes = sys::peek(got + i * PAGE, PAGE);
                self.agree(&what, usize::from(minor), (pgoff + i) * PAGE, &bytes, false)?;
            }
        }
        let answer = sys::call(libc::SYS_munmap, &[got, bytes]);
        self.expect("munmap", answer, &[], &[])?;
        Ok(())
    }

    pub(super) fn unmap(&mut self, [a, b, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let bad = b & 0xf_0000 == 0xf_0000;
        let addr = self.addr(first) + usize::from(bad) * (1 + b as usize % (PAGE - 1));
        let zero = b & 0xf_0000 == 0xe_0000;
        let errors: &[i32] = if bad || zero { &[EINVAL] } else { &[] };
        let bytes = if zero {
            0
        } else {
            len * PAGE - (a as usize >> 8) % PAGE
        };
        let what = format!("munmap({addr:#x}, {bytes:#x})");
        let answer = sys::call(libc::SYS_munmap, &[addr, bytes]);
        if self.expect(&what, answer, errors, &[])?.is_some() {
            self.pages[first..first + len].fill(None);
        }
        Ok(())
    }

    pub(super) fn protect(&mut self, [a, b, how, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let prot = [R | W, R, R | W, 0, W, R | X, R | W | X, R][how as usize & 7];
        let has_anon = self.pages[first..first + len]
            .iter()
            .flatten()
            .any(|page| page.minor == ANON);
        let prot = if has_anon { prot & !X } else { prot };
        let unknown = how & 0xff00 == 0xff00;
        let bad = how & 0xff00 == 0xfe00;
        let addr = self.addr(first) + usize::from(bad) * (1 + b as usize % (PAGE - 1));
        let mut error = None;
        let mut done = 0;
        if unknown || bad {
            error = Some(EINVAL);
        } else {
            for page in &self.pages[first..first + len] {
                error = match page {
                    None => Some(ENOMEM),
                    Some(page) if page.minor != ANON && prot & X != 0 => Some(EACCES),
                    Some(page) if prot & W != 0 && !page.may_write => Some(EACCES),
                    _ => None,
                };
                if error.is_some() {
                    break;
                }
                done += 1;
            }
        }
        let bits = usize::from(prot) | if unknown { 0x4000 } else { 0 };
        let what = format!("mprotect({addr:#x}, {:#x}, {bits:#x})", len * PAGE);
        let answer = sys::call(libc::SYS_mprotect, &[addr, len * PAGE, bits]);
        let answer = self.expect(&what, answer, error.as_slice(), &[])?;
        if unknown || bad {
            return Ok(());
        }
        // What lies before the first hole or refusal has been changed, unless there is nothing at all
        // at the start.
        let _ = answer;
        for page in self.pages[first..first + done].iter_mut().flatten() {
            page.prot = prot;
        }
        Ok(())
    }

    pub(super) fn remap(&mut self, [a, b, c, d, how, _]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let (maymove, fixed, dontunmap) = (1, 2, 4);
        let flags = match how & 15 {
            0 => 0,
            1 => maymove,
            2..=9 => maymove | fixed,
            10 => maymove | dontunmap,
            11 => maymove | fixed | dontunmap,
            12 => fixed,
            13 => dontunmap,
            14 => maymove,
            _ => 8 | maymove,
        };
        let new = match how >> 4 & 7 {
            0..=3 => len,
            4 => len + 1 + (c as usize >> 8) % 16,
            5 => 1,
            _ => 1 + (c as usize >> 8) % len,
        };
        let old = if how & 0x3f00 == 0x3f00 { 0 } else { len };
        let to = near_page(c, PAGES).min(PAGES - new.max(len).min(PAGES));
        let to = if d & 3 == 0 {
            to / 512 * 512 + first % 512
        } else {
            to
        };
        if to + new.max(len) > PAGES || first + new > PAGES {
            return Ok(());
        }
        let touched = &self.pages[first..first + len.max(new)];
        if touched.iter().flatten().any(|page| page.minor == ANON)
            && (new != len || old == 0 || flags & dontunmap != 0)
        {
            return Ok(());
        }
        // Where the kernel would choose the place itself, that would not be in the arena.
        let stays = flags & (fixed | dontunmap) == 0;
        if !stays && flags & fixed == 0 && flags & maymove != 0 {
            return self.remap_anywhere(first, len, flags);
        }
        let seen = self.seen()?;
        let at = |i: usize| seen[first + i].map(|page| page.vma);
        let one = at(0).is_some() && (1..len).all(|i| at(i) == at(0));
        let ours = self.pages[first]
            .as_ref()
            .is_some_and(|page| page.minor != ANON);
        let overlap = first < to + new && to < first + old.max(1);

        // Whether it must work, must not, or may.
        let must_fail = flags & 8 != 0
            || !stays && (flags & maymove == 0 || overlap || ours && flags & dontunmap != 0)
            || stays && self.pages[first].is_none()
            || ours && (new > len || old == 0);
        let must_work = !must_fail && (stays && ours || one && ours && old == new);
        let errors: &[i32] = if must_fail { &[EINVAL, EFAULT] } else { &[] };
        let others: &[i32] = if must_work || must_fail {
            &[]
        } else {
            &[EINVAL, EFAULT, ENOMEM, EAGAIN]
        };
        let (from_addr, to_addr) = (self.addr(first), self.addr(to));
        let what = format!(
            "mremap({from_addr:#x}, {:#x}, {:#x}, {flags}, {to_addr:#x})",
            old * PAGE,
            new * PAGE
        );
        let args = [from_addr, old * PAGE, new * PAGE, flags, to_addr];
        match self.call_addr(&what, libc::SYS_mremap, &args, errors, others)? {
            Some(got) if stays => {
                if got != from_addr {
                    wrong!("{what}: moved to {got:#x}");
                }
                self.pages[first + new..first + len.max(new)].fill(None);
            }
            Some(got) => {
                if got != to_addr {
                    wrong!("{what}: moved to {got:#x}");
                }
                let moved: Vec<_> = self.pages[first..first + new].to_vec();
                self.pages[first..first + len].fill(None);
                for (i, page) in moved.into_iter().enumerate() {
                    // Gaps between mappings that move leave what is there.
                    if page.is_some() || one {
                        self.pages[to + i] = page;
                    }
                }
            }
            None => {
                if must_fail {
                    return Ok(());
                }
                let len = len.max(new);
                self.resync(to, len, (!stays).then_some(first))?;
                self.resync(first, len, None)?;
            }
        }
        Ok(())
    }

    /// MREMAP_DONTUNMAP to wherever the kernel likes: never for a device.
    fn remap_anywhere(&mut self, first: usize, len: usize, flags: usize) -> Outcome {
        if self.pages[first..first + len]
            .iter()
            .all(|page| page.as_ref().is_some_and(|page| page.minor != ANON))
        {
            let args = [self.addr(first), len * PAGE, len * PAGE, flags, 0];
            self.call_addr(
                "mremap(MREMAP_DONTUNMAP)",
                libc::SYS_mremap,
                &args,
                &[EINVAL, EFAULT],
                &[],
            )?;
        }
        Ok(())
    }

    pub(super) fn advise(&mut self, [a, b, which, ..]: [u32; ARGS]) -> Outcome {
        const ADVICE: [i32; 27] = [
            libc::MADV_NORMAL,
            libc::MADV_RANDOM,
            libc::MADV_SEQUENTIAL,
            libc::MADV_WILLNEED,
            libc::MADV_DONTNEED,
            libc::MADV_DONTNEED,
            libc::MADV_FREE,
            libc::MADV_REMOVE,
            libc::MADV_DONTFORK,
            libc::MADV_DOFORK,
            libc::MADV_MERGEABLE,
            libc::MADV_UNMERGEABLE,
            libc::MADV_HUGEPAGE,
            libc::MADV_NOHUGEPAGE,
            libc::MADV_DONTDUMP,
            libc::MADV_DODUMP,
            libc::MADV_WIPEONFORK,
            libc::MADV_KEEPONFORK,
            libc::MADV_COLD,
            libc::MADV_PAGEOUT,
            libc::MADV_POPULATE_READ,
            libc::MADV_POPULATE_WRITE,
            libc::MADV_DONTNEED_LOCKED,
            libc::MADV_COLLAPSE,
            102,
            103,
            99,
        ];
        let advice = ADVICE[which as usize % ADVICE.len()];
        let (first, len) = self.range(a, b);
        let pages = &self.pages[first..first + len];
        let has_anon = pages.iter().flatten().any(|page| page.minor == ANON);
        let has_hole = pages.iter().any(Option::is_none);
        let ours = pages.iter().flatten().any(|page| page.minor != ANON);
        if has_anon && matches!(advice, libc::MADV_FREE | libc::MADV_WIPEONFORK | 102) {
            return Ok(());
        }
        let others = [
            EINVAL,
            EACCES,
            EPERM,
            ENOMEM,
            EAGAIN,
            libc::EBUSY,
            EFAULT,
            libc::ENODEV,
            EOPNOTSUPP,
            EIO,
            EBADF,
            libc::EHWPOISON,
        ];
        let hole: &[i32] = if has_hole { &[ENOMEM] } else { &[] };
        let (errors, others): (&[i32], &[i32]) = match advice {
            libc::MADV_DONTFORK => (hole, &[]),
            libc::MADV_DOFORK if ours => (&[EINVAL], &[ENOMEM]),
            libc::MADV_FREE | libc::MADV_REMOVE | libc::MADV_WIPEONFORK | 102 if ours => {
                (&[EINVAL, EACCES, libc::ENODEV], &others)
            }
            99 => (&[EINVAL], &[]),
            _ => (&[], &others),
        };
        let what = format!(
            "madvise({:#x}, {:#x}, {advice})",
            self.addr(first),
            len * PAGE
        );
        let args = [self.addr(first), len * PAGE, advice as usize];
        if advice == libc::MADV_DONTNEED || advice == libc::MADV_DONTNEED_LOCKED {
            self.settle(first, len)?;
        }
        let answer = sys::call(libc::SYS_madvise, &args);
        let whole = matches!(answer, Ok(_) | Err(ENOMEM));
        self.expect(&what, answer, errors, others)?;
        match advice {
            libc::MADV_DONTNEED | libc::MADV_DONTNEED_LOCKED => self.dropped(first, len, whole)?,
            libc::MADV_DONTFORK => {
                self.pages[first..first + len]
                    .iter_mut()
                    .flatten()
                    .for_each(|page| page.inherited = false);
            }
            libc::MADV_DOFORK => {
                let pages = self.pages[first..first + len].iter_mut();
                for page in pages.flatten().take_while(|page| page.minor == ANON) {
                    page.inherited = true;
                }
            }
            _ => (),
        }
        Ok(())
    }

    /// Private pages have been dropped: all, or those that pagemap shows to be gone.
    fn dropped(&mut self, first: usize, len: usize, all: bool) -> Outcome {
        let entries = if all {
            vec![0; len]
        } else {
            self.entries(first, len)?
        };
        for (page, entry) in self.pages[first..first + len].iter_mut().zip(entries) {
            let Some(page) = page.as_mut().filter(|page| !page.shared) else {
                continue;
            };
            if page.minor == ANON {
                if entry >> 62 == 0 {
                    page.copy = Some(Box::from([0; PAGE]));
                }
            } else if !super::is_copy(entry) {
                page.copy = None;
            }
        }
        Ok(())
    }

    pub(super) fn lock(&mut self, [a, b, how, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let (addr, bytes) = (self.addr(first), len * PAGE);
        let (what, answer) = match how % 8 {
            0 | 1 => ("mlock", sys::call(libc::SYS_mlock, &[addr, bytes])),
            2 => ("mlock2", sys::call(libc::SYS_mlock2, &[addr, bytes, 1])),
            3..=5 => ("munlock", sys::call(libc::SYS_munlock, &[addr, bytes])),
            // All of the process, the fuzzer's own memory included: MCL_ONFAULT, now and then more.
            6 => (
                "mlockall",
                sys::call(
                    libc::SYS_mlockall,
                    &[[4 | 1, 4 | 2, 4 | 3][how as usize >> 3 & 1]],
                ),
            ),
            _ => ("munlockall", sys::call(libc::SYS_munlockall, &[])),
        };
        self.note(what, &answer);
        Ok(())
    }

    pub(super) fn sync(&mut self, [a, b, how, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let has_hole = self.pages[first..first + len].iter().any(Option::is_none);
        let errors: &[i32] = if has_hole { &[ENOMEM] } else { &[] };
        let (addr, bytes) = (self.addr(first), len * PAGE);
        if how & 1 == 0 {
            let answer = sys::call(libc::SYS_mincore, &[addr, bytes, self.scratch]);
            self.expect("mincore", answer, errors, &[])?;
        } else {
            let flags = how as usize >> 1 & 7;
            let answer = sys::call(libc::SYS_msync, &[addr, bytes, flags]);
            let others = [EINVAL, libc::EBUSY];
            self.expect("msync", answer, errors, &others)?;
        }
        Ok(())
    }

    /// How many pages from `first` on, `len` at most, are `fit`.
    pub(super) fn stretch(&self, first: usize, len: usize, fit: impl Fn(&Page) -> bool) -> usize {
        let pages = &self.pages[first..(first + len).min(PAGES)];
        pages
            .iter()
            .take_while(|page| page.as_ref().is_some_and(&fit))
            .count()
    }

    pub(super) fn load(&mut self, [a, b, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        for index in first..first + self.stretch(first, len, |page| page.prot & R != 0) {
            let bytes = sys::peek(self.addr(index), PAGE);
            self.agree_page("load", index, 0, &bytes)?;
        }
        Ok(())
    }

    /// A range of bytes in the arena, as far as pages are `fit`.
    pub(super) fn bytes(
        &self,
        a: u32,
        b: u32,
        fit: impl Fn(&Page) -> bool,
    ) -> (usize, usize, usize) {
        let (first, _) = self.range(a, 0);
        let start = first * PAGE + (b as usize >> 16) % PAGE;
        let len = near(b, 5 * PAGE).max(1).min(PAGES * PAGE - start);
        let pages = self.stretch(first, len / PAGE + 2, fit);
        let room = (pages * PAGE).saturating_sub(start % PAGE).min(len);
        (start, len, room)
    }

    pub(super) fn store(&mut self, [a, b, salt, ..]: [u32; ARGS]) -> Outcome {
        let (start, _, len) = self.bytes(a, b, |page| page.prot & W != 0);
        if len > 0 {
            let bytes = self.to_store(start, len, self.salt(salt));
            self.will_store(start, len)?;
            sys::poke(self.arena + start, &bytes);
            self.stored(start, &bytes);
        }
        Ok(())
    }
}
