// SPDX-License-Identifier: GPL-2.0

//! What is done with descriptors.

use super::{Exec, Open, Outcome, PAGES, R, SCRATCH, SLOTS, W, near, same, wrong};
use crate::seq::ARGS;
use crate::sys::{self, PAGE};
use crate::uapi;
use crate::world;
use libc::{
    E2BIG, EACCES, EAGAIN, EBADF, EEXIST, EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTDIR,
    ENOTTY, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, ESPIPE, EXDEV, c_long,
};
use std::cell::Cell;
use std::rc::Rc;

/// A descriptor that nobody has.
const NO_FD: usize = 9999;
/// Where user space has nothing, and never will.
const KERNEL: usize = 0xffff_8880_0000_0000;

/// A position that no file has; not -1, by which some calls mean the file's own.
fn wild(arg: u32) -> i64 {
    i64::MIN >> (arg % 63)
}

/// Where bytes are read to, or written from.
struct Place {
    addr: usize,
    /// How many bytes there can be read or written.
    room: usize,
    /// Whether the address is the kernel's.
    kernel: bool,
    /// Where in the arena this is.
    arena: Option<usize>,
}

impl Exec<'_> {
    fn fd(&self, slot: u32) -> (usize, Option<Open>) {
        match &self.slots[slot as usize % SLOTS] {
            Some(open) => (open.fd as usize, Some(open.clone())),
            None => (NO_FD, None),
        }
    }

    fn call(
        &mut self,
        what: &str,
        nr: c_long,
        args: &[usize],
        errors: &[i32],
        others: &[i32],
    ) -> Outcome<Option<usize>> {
        let answer = sys::call(nr, args);
        self.expect(what, answer, errors, others)
    }

    pub(super) fn open(&mut self, [slot, kind, how, ..]: [u32; ARGS]) -> Outcome {
        self.close([slot, 0, 0, 0, 0, 0])?;
        let minor = match kind & 7 {
            7 => self.world.devs.len(),
            n => n as usize % self.world.devs.len(),
        };
        let access = (how & 3) as i32;
        let extra = match how >> 2 & 31 {
            1 => libc::O_APPEND,
            2 => libc::O_TRUNC,
            3 => libc::O_NONBLOCK,
            4 => libc::O_DIRECT,
            5 => libc::O_SYNC,
            6 => libc::O_PATH,
            7 => libc::O_CREAT,
            8 => libc::O_CREAT | libc::O_EXCL,
            9 => libc::O_DIRECTORY,
            10 => libc::O_NOFOLLOW | libc::O_NOATIME,
            11 => libc::O_ASYNC,
            12 => libc::O_TMPFILE,
            13 => libc::O_APPEND | libc::O_TRUNC | libc::O_NONBLOCK | libc::O_DSYNC,
            _ => 0,
        };
        let path = format!("/dev/mapdrv{minor}\0");
        let allowed = self.privileged || self.world.mode & 0o666 == 0o666;
        let mut errors = Vec::new();
        if minor == self.world.devs.len() {
            errors.push(ENOENT);
        } else {
            let path_only = extra & libc::O_PATH != 0;
            if !allowed && !path_only {
                errors.push(EACCES);
            }
            if extra & libc::O_DIRECTORY != 0 {
                errors.extend([ENOTDIR, EINVAL]);
            }
            if extra & libc::O_DIRECT != 0 && !path_only {
                errors.push(EINVAL);
            }
            if extra == libc::O_CREAT | libc::O_EXCL {
                errors.push(EEXIST);
            }
        }
        // A node that does not exist could be created, which is none of our business.
        if minor == self.world.devs.len() && extra & (libc::O_CREAT | libc::O_TMPFILE) != 0 {
            return Ok(());
        }
        let flags = (access | extra | libc::O_CLOEXEC) as usize;
        let at = libc::AT_FDCWD as usize;
        let others: &[i32] = if extra == 0 {
            &[]
        } else {
            &[EINVAL, EPERM, EACCES, ENOTDIR, EOPNOTSUPP]
        };
        let what = format!("open({}, {flags:#o})", &path[..path.len() - 1]);
        let args = [at, path.as_ptr() as usize, flags, 0o600];
        if let Some(fd) = self.call(&what, libc::SYS_openat, &args, &errors, others)? {
            let usable = extra & libc::O_PATH == 0;
            self.slots[slot as usize % SLOTS] = Some(Open {
                fd: fd as i32,
                minor,
                read: usable && (access == libc::O_RDONLY || access == libc::O_RDWR),
                write: usable && (access == libc::O_WRONLY || access == libc::O_RDWR),
                pos: Rc::new(Cell::new(0)),
                admin: self.privileged,
                usable,
            });
        }
        Ok(())
    }

    pub(super) fn close(&mut self, [slot, ..]: [u32; ARGS]) -> Outcome {
        if let Some(open) = self.slots[slot as usize % SLOTS].take() {
            let nr = if slot & 64 == 0 {
                libc::SYS_close
            } else {
                libc::SYS_close_range
            };
            let fd = open.fd as usize;
            self.call("close", nr, &[fd, fd, 0], &[], &[])?;
        }
        Ok(())
    }

    pub(super) fn dup(&mut self, [from, to, how, ..]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(from);
        if open.is_none() || from as usize % SLOTS == to as usize % SLOTS {
            return Ok(());
        }
        self.close([to, 0, 0, 0, 0, 0])?;
        let answer = match how % 3 {
            0 => self.call("dup", libc::SYS_dup, &[fd], &[], &[])?,
            1 => self.call(
                "F_DUPFD",
                libc::SYS_fcntl,
                &[fd, libc::F_DUPFD_CLOEXEC as usize, 20],
                &[],
                &[],
            )?,
            // Through a socket, as to another process.
            _ => Some(super::others::pass(fd as i32)? as usize),
        };
        let fd = answer.expect("checked") as i32;
        self.slots[to as usize % SLOTS] = open.map(|open| Open { fd, ..open });
        Ok(())
    }

    /// A place for bytes; `prot` is what is to be done there.
    fn place_for(&self, arg: u32, len: usize, prot: u8) -> Place {
        let big = (arg >> 3) as usize;
        let place = |addr, room| Place {
            addr,
            room,
            kernel: false,
            arena: None,
        };
        match arg & 7 {
            // Room for a part of it.
            3 | 4 => {
                let room = 1 + big % len.max(1);
                place(self.scratch + SCRATCH - room, room)
            }
            5 => place(0, 0),
            6 => Place {
                kernel: true,
                ..place(KERNEL + big, 0)
            },
            7 if !self.weak => {
                let start = (big >> 8) % PAGES * PAGE + big % PAGE;
                let mut end = start / PAGE;
                while end < PAGES && end * PAGE < start + len && self.has_prot(end, prot) {
                    end += 1;
                }
                let room = (end * PAGE).saturating_sub(start).min(len);
                Place {
                    arena: Some(start),
                    ..place(self.arena + start, room)
                }
            }
            n => place(self.scratch + n as usize, SCRATCH - 8),
        }
    }

    pub(super) fn has_prot(&self, page: usize, prot: u8) -> bool {
        self.pages[page]
            .as_ref()
            .is_some_and(|page| page.prot & prot != 0)
    }

    /// Whether a range of the arena shares bytes with a range of a device.
    fn overlaps(&self, start: usize, len: usize, minor: usize, offset: usize) -> bool {
        let pages = offset / PAGE..(offset + len).div_ceil(PAGE);
        let last = (start + len).div_ceil(PAGE).min(PAGES);
        self.pages[start / PAGE..last]
            .iter()
            .flatten()
            .any(|page| usize::from(page.minor) == minor && pages.contains(&(page.pgoff as usize)))
    }

    /// What a transfer of `len` bytes at `pos` to or from `place` must come to.
    fn transfer(&self, open: &Open, pos: i64, len: usize, place: &Place) -> (usize, Vec<i32>) {
        let size = self.dev(open.minor).size;
        let left = usize::try_from(pos)
            .map_or(0, |pos| size.saturating_sub(pos))
            .min(len);
        let mut errors = Vec::new();
        if pos < 0 {
            errors.push(EINVAL);
        }
        if pos.checked_add(len as i64).is_none() {
            errors.extend([EINVAL, EOVERFLOW]);
        }
        if place.kernel || left > 0 && place.room == 0 {
            errors.push(EFAULT);
        }
        (left.min(place.room), errors)
    }

    pub(super) fn read(&mut self, [slot, kind, pos, len, to, ..]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open else {
            self.call(
                "read",
                libc::SYS_read,
                &[fd, self.scratch, 1],
                &[EBADF],
                &[],
            )?;
            return Ok(());
        };
        let size = self.dev(open.minor).size;
        let len = near(len, size).min(SCRATCH - 64);
        let place = self.place_for(to, len, W);
        let moves = matches!(kind % 5, 0 | 2);
        let given = if pos & 0xff00 == 0xff00 {
            wild(pos)
        } else {
            near(pos, size) as i64
        };
        let at = if moves { open.pos.get() as i64 } else { given };
        let (mut count, mut errors) = self.transfer(&open, at, len, &place);
        if let Some(start) = place.arena {
            let from = at.max(0) as usize;
            if place.room == 0 || self.overlaps(start, place.room, open.minor, from.min(size)) {
                return Ok(());
            }
            self.will_store(start, count)?;
        }
        if !open.read {
            errors = vec![EBADF, EINVAL, EFAULT];
        }
        let flags = if kind % 5 == 3 {
            (kind >> 8 & 0xff) as usize
        } else {
            0
        };
        let others: &[i32] = if flags != 0 {
            &[EOPNOTSUPP, EINVAL, EAGAIN]
        } else {
            &[]
        };
        // Three buffers in a row, the last of which has the rest.
        let first = len / 3;
        let vector = [
            [place.addr, first],
            [place.addr.wrapping_add(first), 0],
            [place.addr.wrapping_add(first), len - first],
        ];
        let v = vector.as_ptr() as usize;
        if kind % 5 >= 2 && place.room < len && !place.kernel {
            // Which buffer faults first is the kernel's business; the count is the same.
            count = count.min(place.room);
        }
        let at = at as usize;
        let answer = match kind % 5 {
            0 => self.call(
                "read",
                libc::SYS_read,
                &[fd, place.addr, len],
                &errors,
                others,
            )?,
            1 => self.call(
                "pread",
                libc::SYS_pread64,
                &[fd, place.addr, len, at],
                &errors,
                others,
            )?,
            2 => self.call("readv", libc::SYS_readv, &[fd, v, 3], &errors, others)?,
            3 => self.call(
                "preadv2",
                libc::SYS_preadv2,
                &[fd, v, 3, at, 0, flags],
                &errors,
                others,
            )?,
            _ => self.call(
                "preadv",
                libc::SYS_preadv,
                &[fd, v, 3, at, 0],
                &errors,
                others,
            )?,
        };
        let Some(got) = answer else {
            return self.check_pos(&open);
        };
        if got != count {
            wrong!(
                "read of {len} at {at:#x} into room for {}: {got}, not {count}",
                place.room
            );
        }
        if moves {
            open.pos.set(at + got);
        }
        if got > 0 {
            if let Some(start) = place.arena {
                let bytes = self.world.now[open.minor][at..at + got].to_vec();
                self.stored(start, &bytes);
            } else {
                let bytes = sys::peek(place.addr, got);
                self.agree("read", open.minor, at, &bytes, false)?;
            }
        }
        self.check_pos(&open)
    }

    fn check_pos(&mut self, open: &Open) -> Outcome {
        if !open.usable {
            return Ok(());
        }
        let pos = sys::call(
            libc::SYS_lseek,
            &[open.fd as usize, 0, libc::SEEK_CUR as usize],
        );
        if pos != Ok(open.pos.get()) {
            wrong!("the file position is {pos:?}, not {}", open.pos.get());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, [slot, kind, pos, len, from, salt]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open else {
            self.call(
                "write",
                libc::SYS_write,
                &[fd, self.scratch, 1],
                &[EBADF],
                &[],
            )?;
            return Ok(());
        };
        let size = self.dev(open.minor).size;
        let len = near(len, size).min(SCRATCH - 64);
        let place = self.place_for(from, len, R | W); // what can be written can be read
        let moves = matches!(kind % 5, 0 | 2);
        let given = if pos & 0xff00 == 0xff00 {
            wild(pos)
        } else {
            near(pos, size) as i64
        };
        let at = if moves { open.pos.get() as i64 } else { given };
        let (count, mut errors) = self.transfer(&open, at, len, &place);
        if at >= size as i64 && len > 0 {
            errors.push(ENOSPC);
        }
        if !open.write {
            errors = vec![EBADF, EINVAL, EFAULT];
        }
        let target = usize::try_from(at).unwrap_or(0);
        let bytes = if let Some(start) = place.arena {
            if place.room == 0 || self.overlaps(start, place.room, open.minor, target.min(size)) {
                return Ok(());
            }
            self.arena_bytes(start, count)
        } else {
            let bytes = world::data(open.minor, target.min(size), len, self.salt(salt));
            if !place.kernel {
                sys::poke(place.addr, &bytes[..place.room.min(len)]);
            }
            bytes
        };
        if errors.is_empty() {
            self.will_write(open.minor, target, count)?;
        }
        let flags = if kind % 5 == 3 {
            (kind >> 8 & 0xff) as usize
        } else {
            0
        };
        let others: &[i32] = if flags != 0 {
            &[EOPNOTSUPP, EINVAL, EAGAIN]
        } else {
            &[]
        };
        let first = len / 3;
        let vector = [
            [place.addr, first],
            [place.addr.wrapping_add(first), 0],
            [place.addr.wrapping_add(first), len - first],
        ];
        let v = vector.as_ptr() as usize;
        let at = at as usize;
        let answer = match kind % 5 {
            0 => self.call(
                "write",
                libc::SYS_write,
                &[fd, place.addr, len],
                &errors,
                others,
            )?,
            1 => self.call(
                "pwrite",
                libc::SYS_pwrite64,
                &[fd, place.addr, len, at],
                &errors,
                others,
            )?,
            2 => self.call("writev", libc::SYS_writev, &[fd, v, 3], &errors, others)?,
            3 => self.call(
                "pwritev2",
                libc::SYS_pwritev2,
                &[fd, v, 3, at, 0, flags],
                &errors,
                others,
            )?,
            _ => self.call(
                "pwritev",
                libc::SYS_pwritev,
                &[fd, v, 3, at, 0],
                &errors,
                others,
            )?,
        };
        let Some(got) = answer else {
            return self.check_pos(&open);
        };
        if got != count {
            wrong!(
                "write of {len} at {at:#x} from room for {}: {got}, not {count}",
                place.room
            );
        }
        if moves {
            open.pos.set(at + got);
        }
        if got > 0 {
            self.has_written(open.minor, at, &bytes[..got]);
        }
        self.check_pos(&open)
    }

    /// What is in a range of the arena.
    fn arena_bytes(&self, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = start + bytes.len();
            let part = (PAGE - at % PAGE).min(len - bytes.len());
            let page = self.pages[at / PAGE].as_ref().expect("readable");
            let content = self.content(page).expect("known");
            bytes.extend_from_slice(&content[at % PAGE..at % PAGE + part]);
        }
        bytes
    }

    pub(super) fn seek(&mut self, [slot, whence, offset, ..]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open else {
            self.call("lseek", libc::SYS_lseek, &[fd, 0, 0], &[EBADF], &[])?;
            return Ok(());
        };
        let size = self.dev(open.minor).size as i64;
        let offset = match offset >> 28 {
            15 => i64::MAX,
            14 => i64::MIN,
            n => near(offset, size as usize) as i64 * if n & 1 == 0 { 1 } else { -1 },
        };
        let whence = whence % 6;
        let target = match whence {
            0 => Some(offset),
            1 => offset.checked_add(open.pos.get() as i64),
            2 => offset.checked_add(size),
            3 if (0..size).contains(&offset) => Some(offset),
            4 if (0..size).contains(&offset) => Some(size),
            _ => None,
        };
        let target = target.filter(|target| (0..=size).contains(target));
        let errors: &[i32] = match target {
            _ if !open.usable => &[EBADF],
            Some(_) => &[],
            None if whence == 3 || whence == 4 => &[ENXIO, EINVAL],
            None => &[EINVAL, EOVERFLOW],
        };
        let args = [fd, offset as usize, whence as usize];
        let answer = self.call("lseek", libc::SYS_lseek, &args, errors, &[])?;
        if let (Some(got), Some(target)) = (answer, target) {
            if got != target as usize {
                wrong!(
                    "lseek({offset}, {whence}) from {}: {got}, not {target}",
                    open.pos.get()
                );
            }
            open.pos.set(got);
        }
        self.check_pos(&open)
    }

    pub(super) fn poll(&mut self, [slot, kind, ..]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open.filter(|open| open.usable) else {
            return Ok(());
        };
        let both = libc::POLLIN | libc::POLLOUT;
        match kind % 3 {
            0 => {
                let mut poll = libc::pollfd {
                    fd: open.fd,
                    events: both | libc::POLLPRI,
                    revents: 0,
                };
                let args = [&raw mut poll as usize, 1, 0];
                self.call("poll", libc::SYS_poll, &args, &[], &[])?;
                if poll.revents & both != both {
                    wrong!("poll: {:#x}, not readable and writable", poll.revents);
                }
            }
            1 => {
                let mut sets = [[0u64; 16]; 3];
                for set in &mut sets {
                    set[fd / 64] |= 1 << (fd % 64);
                }
                let time = [0u64; 2];
                let [a, b, c] = sets.each_mut().map(|set| set.as_mut_ptr() as usize);
                let args = [fd + 1, a, b, c, time.as_ptr() as usize];
                let got = self.call("select", libc::SYS_select, &args, &[], &[])?;
                if got.is_some_and(|n| n < 2) {
                    wrong!("select: {got:?}, not readable and writable");
                }
            }
            _ => {
                let epoll = self.call("epoll_create", libc::SYS_epoll_create1, &[0], &[], &[])?;
                let epoll = sys::file(epoll.expect("checked"));
                use std::os::fd::AsRawFd;
                let raw = epoll.as_raw_fd() as usize;
                let mut event = libc::epoll_event {
                    events: (both | libc::POLLPRI) as u32,
                    u64: 7,
                };
                let at = &raw mut event as usize;
                self.call(
                    "epoll_ctl",
                    libc::SYS_epoll_ctl,
                    &[raw, 1, fd, at],
                    &[],
                    &[],
                )?;
                let got = self.call(
                    "epoll_wait",
                    libc::SYS_epoll_wait,
                    &[raw, at, 1, 0],
                    &[],
                    &[],
                )?;
                if got != Some(1) {
                    wrong!("epoll_wait: {got:?}, not 1");
                }
                // Half of the time the set is closed with the file still in it.
                if kind & 8 != 0 {
                    self.call(
                        "epoll_ctl",
                        libc::SYS_epoll_ctl,
                        &[raw, 2, fd, at],
                        &[],
                        &[],
                    )?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn ioctl(&mut self, [slot, nr, size, place, word, _]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open.filter(|open| open.usable) else {
            self.call(
                "ioctl",
                libc::SYS_ioctl,
                &[fd, 0x5401, self.scratch],
                &[EBADF],
                &[],
            )?;
            return Ok(());
        };
        if nr & 0x70 == 0x70 {
            return self.other_ioctl(&open, nr);
        }
        let known = [72, 96, 80];
        let size = match size & 7 {
            0..=3 => known[nr as usize % 3],
            4 => known[size as usize >> 3 & 1] + (size as usize >> 4) % 64,
            5 => (size >> 3) as usize % 32,
            6 => (size >> 3) as usize % 16_384,
            _ => 16,
        };
        let nr = if nr & 0x180 == 0x180 {
            nr >> 9 & 255
        } else {
            1 + nr % 3
        };
        let mut cmd = uapi::iowr(nr, size);
        if place & 0xf000 == 0xf000 {
            cmd ^= 1 << (place >> 16 & 31);
        }
        let (nr, size) = (cmd & 255, (cmd >> 16 & 0x3fff) as usize);
        let dev = self.dev(open.minor);
        let flags = if word & 0xf00 == 0xf00 {
            u64::from(word) << 13 | 1
        } else {
            0
        };
        let offset = near(word, dev.span() + PAGE) as u64;
        let excess = place & 0xf0000 == 0xf0000;

        // What is there now, whatever of it is then given.
        let mut bytes = vec![0; size.max(16)];
        bytes[..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..16].copy_from_slice(&offset.to_ne_bytes());
        let len = known
            .get((nr as usize).wrapping_sub(1))
            .copied()
            .unwrap_or(0);
        let nonzero = excess && size > len.max(16);
        if nonzero {
            bytes[size - 1] = 1;
        }
        bytes.truncate(size);
        let at = self.place_for(place & 7, size, R | W);
        let (addr, room) = match place & 7 {
            4 => {
                let room = (place >> 3) as usize % (size + 1);
                (self.scratch + SCRATCH - room, room)
            }
            7 => (self.scratch + 1, size),
            _ => (at.addr, at.room),
        };
        if room > 0 {
            sys::poke(addr, &bytes[..size.min(room)]);
        }
        let mut errors = Vec::new();
        if cmd >> 30 != 3 || cmd >> 8 & 255 != uapi::IOC_TYPE || len == 0 {
            errors.push(ENOTTY);
        } else if size < 16 {
            errors.push(EINVAL);
        } else {
            if room < size {
                errors.push(EFAULT);
            }
            if flags != 0 || nr == uapi::IOC_NR_WALK && offset >= dev.span() as u64 {
                errors.push(EINVAL);
            }
            if nonzero {
                errors.push(E2BIG);
            }
        }
        // Some numbers are those of calls that the kernel answers before it asks the driver.
        let others: &[i32] = if cmd >> 8 & 255 == uapi::IOC_TYPE {
            &[]
        } else {
            &[EFAULT, EINVAL, EBADF]
        };
        let what = format!("ioctl({cmd:#x})");
        if self
            .call(
                &what,
                libc::SYS_ioctl,
                &[fd, cmd as usize, addr],
                &errors,
                others,
            )?
            .is_none()
        {
            return Ok(());
        }
        let mut answer = sys::peek(addr, size);
        if answer[len.min(size)..].iter().any(|&byte| byte != 0) {
            wrong!("{what}: what the kernel does not know did not come back zero");
        }
        answer.resize(96.max(size), 0);
        let word = |i: usize| u64::from_ne_bytes(answer[i * 8..i * 8 + 8].try_into().expect("8"));
        let half = |i: usize| u32::from_ne_bytes(answer[i * 4..i * 4 + 4].try_into().expect("4"));
        let given = |i: usize| size >= i * 8 + 8;
        let fine = match nr {
            uapi::IOC_NR_INFO => {
                word(1) == dev.size as u64
                    && (!given(2) || word(2) == dev.pages() as u64)
                    && (!given(3) || half(6) == PAGE as u32 && half(7) == u32::from(dev.huge))
                    && (!given(4) || word(4) == uapi::seed(dev.minor as u32))
                    && (!given(7)
                        || half(14) == u32::from(dev.fill) && half(15) == dev.minor as u32)
            }
            uapi::IOC_NR_WALK => {
                let hidden = word(2) == 0 && (0..5).all(|i| half(10 + 3 * i) == 0);
                word(1) == offset
                    && (open.admin || hidden)
                    && (!given(2) || !open.admin || word(2) != 0)
                    && (!given(3) || word(3) >= PAGE as u64)
                    && (!given(4) || (4..=5).contains(&half(8)))
            }
            _ => true,
        };
        if !fine {
            wrong!("{what}: wrong answer {answer:x?}");
        }
        if nr == uapi::IOC_NR_WALK && given(2) && open.admin && self.privileged {
            self.check_frame(open.minor, offset as usize / PAGE, word(2))?;
        }
        Ok(())
    }

    /// Fails if a page of the device is mapped in the arena, and is not the frame that it should be.
    fn check_frame(&mut self, minor: usize, pgoff: usize, frame: u64) -> Outcome {
        let is_it = |page: &super::Page| {
            page.shared && usize::from(page.minor) == minor && page.pgoff as usize == pgoff
        };
        let Some(index) = self
            .pages
            .iter()
            .position(|page| page.as_ref().is_some_and(is_it))
        else {
            return Ok(());
        };
        let entry = self.entries(index, 1)?[0];
        let found = entry & ((1 << 55) - 1);
        if entry >> 63 == 1 && found != frame {
            wrong!("page {pgoff} of device {minor}: frame {found:#x} is mapped, not {frame:#x}");
        }
        Ok(())
    }

    /// Calls that are not the driver's, and must not harm.
    fn other_ioctl(&mut self, open: &Open, nr: u32) -> Outcome {
        const CMDS: [u32; 12] = [
            0x5401,      // TCGETS
            0x5421,      // FIONBIO
            0x5452,      // FIOASYNC
            0x541b,      // FIONREAD
            0x5460,      // FIOQSIZE
            0x2,         // FIGETBSZ
            0x1,         // FIBMAP
            0x8008_7201, // fs specific
            0x4004_9409, // FICLONE
            0xc020_660b, // FIEMAP
            0x8008_6601, // FS_IOC_GETFLAGS
            0x8008_1272, // BLKGETSIZE64
        ];
        let cmd = CMDS[(nr >> 8) as usize % CMDS.len()];
        sys::poke(self.scratch, &[0; 256]);
        let arg = if cmd == 0x4004_9409 {
            open.fd as usize
        } else {
            self.scratch
        };
        let answer = sys::call(libc::SYS_ioctl, &[open.fd as usize, cmd as usize, arg]);
        self.note(&format!("ioctl({cmd:#x})"), &answer);
        Ok(())
    }

    pub(super) fn fcntl(&mut self, [slot, kind, arg, ..]: [u32; ARGS]) -> Outcome {
        let (fd, open) = self.fd(slot);
        let Some(open) = open.filter(|open| open.usable) else {
            return Ok(());
        };
        let size = self.dev(open.minor).size;
        let (near, arg) = (near(arg, size), arg as usize);
        sys::poke(self.scratch, &[0; 256]);
        let at = self.scratch;
        type Call<'a> = (&'a str, c_long, [usize; 5], Option<&'a [i32]>);
        let calls: [Call<'_>; 17] = [
            (
                "flock",
                libc::SYS_flock,
                [fd, [5, 6, 8, 6][arg % 4], 0, 0, 0],
                None,
            ),
            ("F_GETFL", libc::SYS_fcntl, [fd, 3, 0, 0, 0], Some(&[])),
            (
                "F_SETFL",
                libc::SYS_fcntl,
                [fd, 4, [0, 0o2000, 0o4000, 0o20000][arg % 4], 0, 0],
                None,
            ),
            ("F_SETLK", libc::SYS_fcntl, [fd, 6, at, 0, 0], None),
            ("F_OFD_SETLK", libc::SYS_fcntl, [fd, 37, at, 0, 0], None),
            (
                "F_SETLEASE",
                libc::SYS_fcntl,
                [fd, 1024, arg % 3, 0, 0],
                None,
            ),
            (
                "F_SETPIPE_SZ",
                libc::SYS_fcntl,
                [fd, 1031, 65_536, 0, 0],
                Some(&[EBADF, EINVAL]),
            ),
            (
                "F_ADD_SEALS",
                libc::SYS_fcntl,
                [fd, 1033, 15, 0, 0],
                Some(&[EINVAL, EPERM]),
            ),
            ("F_SETOWN", libc::SYS_fcntl, [fd, 8, 0, 0, 0], None),
            (
                "fallocate",
                libc::SYS_fallocate,
                [fd, arg % 64, 0, near + 1, 0],
                Some(&[ENODEV, EBADF, EOPNOTSUPP, EINVAL]),
            ),
            (
                "ftruncate",
                libc::SYS_ftruncate,
                [fd, near, 0, 0, 0],
                Some(&[EINVAL, EBADF]),
            ),
            ("fsync", libc::SYS_fsync, [fd, 0, 0, 0, 0], Some(&[])),
            (
                "fdatasync",
                libc::SYS_fdatasync,
                [fd, 0, 0, 0, 0],
                Some(&[]),
            ),
            (
                "fadvise",
                libc::SYS_fadvise64,
                [fd, near, size, arg % 6, 0],
                None,
            ),
            (
                "readahead",
                libc::SYS_readahead,
                [fd, near, size, 0, 0],
                None,
            ),
            (
                "sync_file_range",
                libc::SYS_sync_file_range,
                [fd, near, size, arg % 8, 0],
                Some(&[ESPIPE]),
            ),
            ("fstat", libc::SYS_fstat, [fd, at, 0, 0, 0], Some(&[])),
        ];
        let (what, nr, args, errors) = calls[kind as usize % calls.len()];
        match errors {
            Some(errors) => self.call(what, nr, &args, errors, &[]).map(drop),
            None => {
                let answer = sys::call(nr, &args);
                self.note(what, &answer);
                Ok(())
            }
        }
    }

    /// splice and its kin.
    pub(super) fn splice(&mut self, [slot, kind, pos, len, salt, _]: [u32; ARGS]) -> Outcome {
        use std::os::fd::AsRawFd;
        let (fd, open) = self.fd(slot);
        let Some(open) = open.filter(|open| open.usable) else {
            return Ok(());
        };
        let dev = self.dev(open.minor);
        let pos = near(pos, dev.size);
        // As much as fits a pipe.
        let len = near(len, dev.size).clamp(1, 15 * PAGE);
        let left = dev.size.saturating_sub(pos).min(len);
        let mut fds = [0i32; 2];
        self.call(
            "pipe",
            libc::SYS_pipe2,
            &[fds.as_mut_ptr() as usize, libc::O_NONBLOCK as usize],
            &[],
            &[],
        )?;
        let [reader, writer] = fds.map(|fd| sys::file(fd as usize));
        let (r, w) = (reader.as_raw_fd() as usize, writer.as_raw_fd() as usize);
        let mut offset = pos as i64;
        let at = &raw mut offset as usize;
        let partial = |got: usize| got <= left && (got > 0 || left == 0);
        match kind % 5 {
            // Out of the device.
            0 | 1 => {
                let errors: &[i32] = if open.read { &[] } else { &[EBADF] };
                let answer = if kind % 5 == 0 {
                    self.call(
                        "splice",
                        libc::SYS_splice,
                        &[fd, at, w, 0, len, 0],
                        errors,
                        &[],
                    )?
                } else {
                    self.call(
                        "sendfile",
                        libc::SYS_sendfile,
                        &[w, fd, at, len],
                        errors,
                        &[],
                    )?
                };
                let Some(got) = answer else { return Ok(()) };
                if !partial(got) || offset != (pos + got) as i64 {
                    wrong!("{got} of {left} bytes came, and the position is {offset}");
                }
                let read = self.call(
                    "read from the pipe",
                    libc::SYS_read,
                    &[r, self.scratch, len],
                    &[],
                    &[EAGAIN],
                )?;
                if read.unwrap_or(0) != got {
                    wrong!("{read:?} bytes are in the pipe, not {got}");
                }
                let bytes = sys::peek(self.scratch, got);
                self.agree("splice", open.minor, pos.min(dev.size), &bytes, false)?;
            }
            // Into it.
            2 => {
                let bytes = world::data(open.minor, pos.min(dev.size), len, self.salt(salt));
                let from = bytes.as_ptr() as usize;
                self.call(
                    "write to the pipe",
                    libc::SYS_write,
                    &[w, from, len],
                    &[],
                    &[],
                )?;
                let errors: &[i32] = match () {
                    () if !open.write => &[EBADF],
                    () if left == 0 => &[ENOSPC],
                    () => {
                        self.will_write(open.minor, pos, left)?;
                        &[]
                    }
                };
                // With O_APPEND there is no splicing.
                let others = [EINVAL];
                let answer = self.call(
                    "splice",
                    libc::SYS_splice,
                    &[r, 0, fd, at, len, 0],
                    errors,
                    &others,
                )?;
                let Some(got) = answer else { return Ok(()) };
                if !partial(got) || offset != (pos + got) as i64 {
                    wrong!("{got} of {left} bytes went, and the position is {offset}");
                }
                self.has_written(open.minor, pos, &bytes[..got]);
            }
            3 => {
                let answer = sys::call(libc::SYS_copy_file_range, &[fd, at, fd, 0, len, 0]);
                self.expect(
                    "copy_file_range",
                    answer,
                    &[EINVAL, EXDEV, EBADF, EOPNOTSUPP],
                    &[],
                )?;
            }
            // The arena's pages themselves.
            _ => {
                let start = pos % (PAGES * PAGE);
                let place = self.place_for(7 | (pos as u32) << 3, len, R);
                let Some(start) = place.arena.or((!self.weak).then_some(start)) else {
                    return Ok(());
                };
                let room = place.room;
                let vector = [self.arena + start, room];
                let errors: &[i32] = &[];
                if room == 0 {
                    return Ok(());
                }
                let args = [w, vector.as_ptr() as usize, 1, 0];
                let answer = self.call("vmsplice", libc::SYS_vmsplice, &args, errors, &[ENOMEM])?;
                let Some(got) = answer else { return Ok(()) };
                let read = self.call(
                    "read from the pipe",
                    libc::SYS_read,
                    &[r, self.scratch, got],
                    &[],
                    &[],
                )?;
                let bytes = sys::peek(self.scratch, read.unwrap_or(0));
                same("vmsplice", &bytes, &self.arena_bytes(start, got))?;
            }
        }
        Ok(())
    }
}
