// SPDX-License-Identifier: GPL-2.0

//! What is done with processes, and with a process's memory from outside.

use super::{ANON, Exec, Outcome, PAGES, Page, R, SLOTS, W, read_all, same, wrong};
use crate::seq::ARGS;
use crate::sys::{self, PAGE};

use libc::{EFAULT, EINVAL, EIO, EPERM};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const NOBODY: usize = 65_534;

impl Exec<'_> {
    /// Becomes a child's: files that are about a process are about that one.
    fn settle_in(&mut self) -> Outcome {
        for page in &mut self.pages {
            if page.as_ref().is_some_and(|page| !page.inherited) {
                *page = None;
            }
        }
        self.pagemap =
            File::open("/proc/self/pagemap").map_err(|error| format!("pagemap: {error}"))?;
        Ok(())
    }

    /// Runs `body` in a child and says how that ended.
    fn child(&mut self, body: impl FnOnce(&mut Self) -> Outcome) -> Outcome<i32> {
        // Of what it writes, this process only sees that it is no longer what it was.
        self.settle(0, PAGES)?;
        let board = self.board;
        let pid = sys::fork(|| match self.settle_in().and_then(|()| body(self)) {
            Ok(()) => 0,
            Err(text) => {
                board.fail(&format!("in a child: {text}"));
                1
            }
        });
        pid.map_err(|errno| format!("fork: {}", std::io::Error::from_raw_os_error(errno)))
    }

    fn reap(&mut self, pid: i32) -> Outcome<i32> {
        match sys::wait(pid, 0) {
            Ok(Some(status)) => Ok(status),
            other => wrong!("waitpid: {other:?}"),
        }
    }

    fn reap_well(&mut self, what: &str, pid: i32) -> Outcome {
        let status = self.reap(pid)?;
        if status != 0 {
            wrong!("{what}: the child's end: {}", sys::ending(status));
        }
        Ok(())
    }

    pub(super) fn fork(&mut self, [how, a, b, salt, ..]: [u32; ARGS]) -> Outcome {
        match how % 4 {
            // Looks.
            0 => {
                let pid = self.child(Self::check)?;
                self.reap_well("fork", pid)
            }
            // Writes: shared pages for all, private ones for itself.
            1 | 2 => {
                let pid = self.child(|this| {
                    this.store([a, b, salt, 0, 0, 0])?;
                    if how & 16 != 0 {
                        this.protect([a, b, salt, 0, 0, 0])?;
                    }
                    if how & 32 != 0 {
                        this.unmap([a.rotate_left(3), b, 0, 0, 0, 0])?;
                    }
                    this.check()
                })?;
                self.reap_well("fork", pid)
            }
            // Is killed in the middle of whatever it does.
            _ => {
                let pid = self.child(|this| {
                    loop {
                        this.load([a, b, 0, 0, 0, 0])?;
                        this.advise([a, b, libc::MADV_DONTNEED as u32, 0, 0, 0])?;
                        this.look([a, b, 0, 0, 0, 0])?;
                    }
                })?;
                for _ in 0..salt % 64 {
                    let _ = sys::call(libc::SYS_sched_yield, &[]);
                }
                sys::kill(pid, libc::SIGKILL);
                let status = self.reap(pid)?;
                if !libc::WIFSIGNALED(status) {
                    wrong!("fork: the child that was killed: {}", sys::ending(status));
                }
                Ok(())
            }
        }
    }

    /// Another program gets the descriptor, and nothing else.
    pub(super) fn exec(&mut self, [slot, ..]: [u32; ARGS]) -> Outcome {
        let Some(open) = self.slots[slot as usize % SLOTS].clone() else {
            return Ok(());
        };
        if !open.read || self.weak {
            return Ok(());
        }
        let size = self.dev(open.minor).size;
        let sum = sum(&self.world.now[open.minor][..size]);
        let pid = self.child(|_| {
            // This one is not closed.
            let fd = sys::call(libc::SYS_dup, &[open.fd as usize])
                .map_err(|errno| format!("dup: {errno}"))?;
            let args = [
                "mapdrv-fuzz\0",
                "--inherited\0",
                &format!("{fd},{size},{sum}\0"),
            ]
            .map(str::to_owned);
            let mut argv: Vec<usize> = args.iter().map(|arg| arg.as_ptr() as usize).collect();
            argv.push(0);
            let path = c"/proc/self/exe".as_ptr() as usize;
            let answer = sys::call(
                libc::SYS_execve,
                &[
                    path,
                    argv.as_ptr() as usize,
                    argv.as_ptr().wrapping_add(argv.len() - 1) as usize,
                ],
            );
            wrong!("execve: {answer:?}")
        })?;
        self.reap_well("execve", pid)
    }

    /// A debugger's view of a child.
    pub(super) fn trace(&mut self, [how, a, b, salt, ..]: [u32; ARGS]) -> Outcome {
        if self.threads {
            return Ok(());
        }
        let pid = self.child(|_| {
            let _ = sys::call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as usize]);
            loop {
                let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or(0);
                sys::kill(pid as i32, libc::SIGSTOP);
            }
        })?;
        let outcome = self.traced(pid, how, a, b, salt);
        sys::kill(pid, libc::SIGKILL);
        self.reap(pid)?;
        outcome
    }

    fn traced(&mut self, pid: i32, how: u32, a: u32, b: u32, salt: u32) -> Outcome {
        let status = sys::wait(pid, libc::WUNTRACED);
        if !status.is_ok_and(|status| matches!(status, Some(status) if libc::WIFSTOPPED(status))) {
            wrong!("a child that stops: {status:?}");
        }
        let (first, _) = self.range(a, 0);
        let offset = (b as usize % PAGE) & !7;
        let addr = self.arena + first * PAGE + offset;
        let page = self.pages[first].clone().filter(|page| page.inherited);
        let mut word = [0u8; 8];
        let at = word.as_mut_ptr() as usize;
        let peek = libc::PTRACE_PEEKDATA as usize;
        let pid = pid as usize;
        let failed: &[i32] = &[EIO, EFAULT];
        let errors = if page.is_some() { &[][..] } else { failed };
        let answer = sys::call(libc::SYS_ptrace, &[peek, pid, addr, at]);
        if self
            .expect("ptrace(PTRACE_PEEKDATA)", answer, errors, &[])?
            .is_some()
        {
            self.agree_page("ptrace", first, offset, &word)?;
        }
        if how & 1 == 0 {
            return Ok(());
        }
        // A debugger may write to what is private, whatever its protection; to what is shared only
        // if the debuggee may.
        let may = page
            .as_ref()
            .is_some_and(|page| page.prot & W != 0 || !page.shared);
        let errors = if may { &[][..] } else { failed };
        let bytes = self.to_store(first * PAGE + offset, 8, self.salt(salt));
        let shared = page.is_some_and(|page| page.shared);
        if shared {
            self.will_store(first * PAGE + offset, 8)?;
        }
        let value = usize::from_ne_bytes(bytes[..].try_into().expect("8"));
        let answer = sys::call(
            libc::SYS_ptrace,
            &[libc::PTRACE_POKEDATA as usize, pid, addr, value],
        );
        if self
            .expect("ptrace(PTRACE_POKEDATA)", answer, errors, &[])?
            .is_some()
        {
            if shared {
                self.stored(first * PAGE + offset, &bytes);
            }
            let answer = sys::call(libc::SYS_ptrace, &[peek, pid, addr, at]);
            self.expect("ptrace(PTRACE_PEEKDATA) after that", answer, &[], &[])?;
            if !self.weak {
                same("ptrace: the word written", &word, &bytes)?;
            }
        }
        Ok(())
    }

    /// process_vm_readv and process_vm_writev.
    pub(super) fn vm(&mut self, [how, a, b, salt, ..]: [u32; ARGS]) -> Outcome {
        let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or(0);
        let write = how & 1 != 0;
        let prot = if write { W } else { R };
        let (start, len, room) = self.bytes(a, b, |page| page.prot & prot != 0);
        let bytes = self.to_store(start, len, self.salt(salt));
        sys::poke(self.scratch, &bytes);
        if write {
            self.will_store(start, room)?;
        }
        let local = [self.scratch, len];
        let remote = [self.arena + start, len];
        let (name, nr) = if write {
            ("process_vm_writev", libc::SYS_process_vm_writev)
        } else {
            ("process_vm_readv", libc::SYS_process_vm_readv)
        };
        let errors: &[i32] = if room == 0 { &[EFAULT] } else { &[] };
        let args = [
            pid,
            local.as_ptr() as usize,
            1,
            remote.as_ptr() as usize,
            1,
            0,
        ];
        let answer = sys::call(nr, &args);
        let Some(got) = self.expect(name, answer, errors, &[])? else {
            return Ok(());
        };
        if got != room {
            wrong!("{name} of {len} bytes, {room} of which are there: {got}");
        }
        if write {
            self.stored(start, &bytes[..got]);
        } else {
            self.found(name, start, &sys::peek(self.scratch, got))?;
        }
        Ok(())
    }

    /// Bytes were found in the arena.
    fn found(&self, what: &str, start: usize, bytes: &[u8]) -> Outcome {
        let mut at = 0;
        while at < bytes.len() {
            let (index, offset) = ((start + at) / PAGE, (start + at) % PAGE);
            let len = (PAGE - offset).min(bytes.len() - at);
            self.agree_page(what, index, offset, &bytes[at..at + len])?;
            at += len;
        }
        Ok(())
    }

    /// /proc/self/mem.
    pub(super) fn mem(&mut self, [how, a, b, salt, ..]: [u32; ARGS]) -> Outcome {
        let write = how & 1 != 0;
        let prot = if write { W } else { R };
        let (start, len, room) = self.bytes(a, b, |page| page.prot & prot != 0);
        let path = c"/proc/self/mem";
        let at = libc::AT_FDCWD as usize;
        let args = [at, path.as_ptr() as usize, libc::O_RDWR as usize];
        let answer = sys::call(libc::SYS_openat, &args);
        let Some(fd) = self.expect("open(/proc/self/mem)", answer, &[], &[])? else {
            return Ok(());
        };
        let file = sys::file(fd);
        let addr = (self.arena + start) as u64;
        if write {
            let bytes = self.to_store(start, len, self.salt(salt));
            // Some kernels let a process write to what is private by this way, whatever its
            // protection.
            let forced = |page: &Page| page.prot & W != 0 || !page.shared;
            let most = self.stretch(start / PAGE, len / PAGE + 2, forced) * PAGE;
            let most = most.saturating_sub(start % PAGE).min(len);
            self.will_store(start, room)?;
            let got = file.write_at(&bytes, addr).unwrap_or(0);
            self.note("write(/proc/self/mem)", &Ok(got));
            if got < room || got > most {
                wrong!("{got} bytes were written to /proc/self/mem, not {room} to {most} of {len}");
            }
            self.stored(start, &bytes[..got]);
        } else {
            let mut bytes = vec![0; len];
            let got = file.read_at(&mut bytes, addr).unwrap_or(0);
            self.note("read(/proc/self/mem)", &Ok(got));
            if got < room {
                wrong!("{got} bytes were read from /proc/self/mem, not {room} of {len}");
            }
            self.found("/proc/self/mem", start, &bytes[..got])?;
        }
        Ok(())
    }

    /// Reads what the kernel tells of the device, and of this process's mappings.
    pub(super) fn look(&mut self, [a, b, ..]: [u32; ARGS]) -> Outcome {
        let text =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let minor = b as usize % self.world.devs.len();
        let dev = self.dev(minor);
        match a % 12 {
            0 => text("/proc/self/smaps").map(drop),
            1 => text("/proc/self/smaps_rollup").map(drop),
            2 => self.check_structure(),
            3 => fs::read("/proc/self/numa_maps").map_or(Ok(()), |_| Ok(())),
            4 => {
                let which = (b >> 8) % 6;
                let _ = fs::write("/proc/self/clear_refs", which.to_string());
                Ok(())
            }
            5 => self.check_frames(),
            6 => {
                let Some(open) = self.slots[b as usize % SLOTS].clone() else {
                    return Ok(());
                };
                let info = text(&format!("/proc/self/fdinfo/{}", open.fd))?;
                let size = format!("size:\t{}\n", self.dev(open.minor).size);
                if open.usable && !info.contains(&size) {
                    wrong!("fdinfo: {info:?}");
                }
                Ok(())
            }
            7 | 8 => {
                let path = format!("/sys/class/mapdrv/mapdrv{minor}");
                for (name, value) in [
                    ("size", dev.size),
                    ("pages", dev.pages()),
                    ("fill", dev.fill.into()),
                ] {
                    if text(&format!("{path}/{name}"))?.trim() != value.to_string() {
                        wrong!("{path}/{name} is not {value}");
                    }
                }
                for name in [
                    "mappings",
                    "open_files",
                    "faults",
                    "written_bytes",
                    "generation",
                ] {
                    let value = text(&format!("{path}/{name}"))?;
                    if value.trim().parse::<i64>().is_err_and(|_| true) || value.starts_with('-') {
                        wrong!("{path}/{name} is {value:?}");
                    }
                }
                Ok(())
            }
            9 if self.privileged => {
                text(&format!("/sys/kernel/debug/mapdrv/mapdrv{minor}/stats")).map(drop)
            }
            10 if self.privileged && b >> 8 & 3 == 0 => {
                let path = format!("/sys/kernel/debug/mapdrv/mapdrv{minor}/trace");
                for value in ["1", "x", "0"] {
                    let _ = fs::write(&path, value);
                    let _ = fs::read(&path);
                }
                Ok(())
            }
            _ => text("/proc/self/status").map(drop),
        }
    }

    /// The frames that are mapped are those of the same page wherever that is mapped.
    fn check_frames(&mut self) -> Outcome {
        if !self.privileged {
            return Ok(());
        }
        let mut known: Vec<Vec<u64>> = self
            .world
            .devs
            .iter()
            .map(|dev| vec![0; dev.pages()])
            .collect();
        for (index, entry) in self.entries(0, PAGES)?.into_iter().enumerate() {
            let frame = entry & ((1 << 55) - 1);
            let Some(page) = self.pages[index].as_ref().filter(|_| entry >> 63 == 1) else {
                continue;
            };
            if !page.shared && super::is_copy(entry) || page.minor == ANON {
                continue;
            }
            let known = &mut known[usize::from(page.minor)][page.pgoff as usize];
            if *known != 0 && *known != frame {
                wrong!(
                    "page {} of device {} is in two frames",
                    page.pgoff,
                    page.minor
                );
            }
            *known = frame;
        }
        Ok(())
    }

    /// Where memory is to be, for machines with several nodes.
    pub(super) fn place(&mut self, [a, b, how, mode, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let addr = self.arena + first * PAGE;
        let (what, answer) = match how % 5 {
            0 | 1 => {
                let count = len.min(64);
                let pages: Vec<usize> = (0..count).map(|i| addr + i * PAGE).collect();
                let nodes = vec![0i32; count];
                let mut status = vec![0i32; count];
                let nodes = if how & 8 == 0 {
                    nodes.as_ptr() as usize
                } else {
                    0
                };
                let args = [
                    0,
                    count,
                    pages.as_ptr() as usize,
                    nodes,
                    status.as_mut_ptr() as usize,
                    2,
                ];
                ("move_pages", sys::call(libc::SYS_move_pages, &args))
            }
            2 | 3 => {
                let mask = [1u64, 0];
                let args = [
                    addr,
                    len * PAGE,
                    mode as usize % 6,
                    mask.as_ptr() as usize,
                    64,
                    mode as usize >> 8 & 7,
                ];
                ("mbind", sys::call(libc::SYS_mbind, &args))
            }
            _ => {
                let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or(0);
                let answer = sys::call(libc::SYS_pidfd_open, &[pid, 0]);
                let Ok(fd) = answer else { return Ok(()) };
                let _file = sys::file(fd);
                let vector = [addr, len * PAGE];
                let advice = [
                    libc::MADV_COLD,
                    libc::MADV_PAGEOUT,
                    libc::MADV_WILLNEED,
                    libc::MADV_COLLAPSE,
                ];
                let args = [
                    fd,
                    vector.as_ptr() as usize,
                    1,
                    advice[mode as usize % 4] as usize,
                    0,
                ];
                (
                    "process_madvise",
                    sys::call(libc::SYS_process_madvise, &args),
                )
            }
        };
        self.note(what, &answer);
        Ok(())
    }

    pub(super) fn futex(&mut self, [a, b, how, ..]: [u32; ARGS]) -> Outcome {
        let (first, _) = self.range(a, 0);
        let offset = (b as usize % PAGE) & !3;
        let addr = self.arena + first * PAGE + offset;
        let page = self.pages[first].clone();
        self.settle(first, 1)?;
        match how % 4 {
            // A mapping that all may see, and write to.
            0 | 1 => {
                let answer = sys::call(libc::SYS_futex, &[addr, 1, 1]);
                match page {
                    Some(page) if page.shared && page.prot == R | W => {
                        let huge = self.dev(usize::from(page.minor)).huge;
                        let errors: &[i32] = if huge { &[] } else { &[EFAULT] };
                        self.expect("futex(FUTEX_WAKE)", answer, errors, &[])?;
                    }
                    _ => self.note("futex(FUTEX_WAKE)", &answer),
                }
            }
            // The value is hardly that, and the time is over.
            2 => {
                let time = [0u64, 1];
                let answer = sys::call(
                    libc::SYS_futex,
                    &[addr, 0, b as usize, time.as_ptr() as usize],
                );
                self.note("futex(FUTEX_WAIT)", &answer);
            }
            _ => {
                let time = [0u64, 1];
                let answer = sys::call(
                    libc::SYS_futex,
                    &[addr, 128, b as usize, time.as_ptr() as usize],
                );
                self.note("futex(FUTEX_WAIT_PRIVATE)", &answer);
            }
        }
        Ok(())
    }

    /// Nobody but the driver can answer for its mappings' faults.
    pub(super) fn uffd(&mut self, [a, b, mode, ..]: [u32; ARGS]) -> Outcome {
        use std::os::fd::AsRawFd;
        let (first, len) = self.range(a, b);
        let len = self.stretch(first, len, |page| page.minor != ANON);
        if len == 0 {
            return Ok(());
        }
        let answer = sys::call(libc::SYS_userfaultfd, &[1 | libc::O_CLOEXEC as usize]);
        self.note("userfaultfd", &answer);
        let Ok(fd) = answer else { return Ok(()) };
        let file = sys::file(fd);
        let fd = file.as_raw_fd() as usize;
        // Asynchronous write protection, which needs unpopulated ranges to be markable.
        let mut api = [
            0xaau64,
            if mode & 8 == 0 { 0 } else { 1 << 15 | 1 << 13 },
            0,
        ];
        let answer = sys::call(
            libc::SYS_ioctl,
            &[fd, 0xc018_aa3f, api.as_mut_ptr() as usize],
        );
        self.note("UFFDIO_API", &answer);
        if answer.is_err() {
            return Ok(());
        }
        let modes = 1 + u64::from(mode) % 7;
        let mut register = [
            (self.arena + first * PAGE) as u64,
            (len * PAGE) as u64,
            modes,
            0,
        ];
        let answer = sys::call(
            libc::SYS_ioctl,
            &[fd, 0xc020_aa00, register.as_mut_ptr() as usize],
        );
        self.expect("UFFDIO_REGISTER", answer, &[EINVAL, EPERM], &[])?;
        Ok(())
    }

    /// Becomes a user without any rights.
    pub(super) fn drop(&mut self) -> Outcome {
        if self.threads || !self.privileged {
            return Ok(());
        }
        for (nr, args) in [
            (libc::SYS_setgroups, [0, 0, 0]),
            (libc::SYS_setresgid, [NOBODY; 3]),
            (libc::SYS_setresuid, [NOBODY; 3]),
        ] {
            let answer = sys::call(nr, &args);
            self.expect("setresuid", answer, &[], &[])?;
        }
        // This had made /proc/self another's.
        let _ = sys::call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, 1]);
        self.privileged = false;
        Ok(())
    }

    /// Touches a page as it must not be touched.
    pub(super) fn probe(&mut self, [a, b, ..]: [u32; ARGS]) -> Outcome {
        let (first, _) = self.range(a, 0);
        let addr = self.arena + first * PAGE + b as usize % PAGE;
        let write = b >> 16 & 1 == 1;
        let page = self.pages[first].clone().filter(|page| page.inherited);
        let may = page.is_some_and(|page| page.prot & if write { W } else { R | W } != 0);
        if may && write {
            return Ok(());
        }
        let pid = self.child(|_| {
            if write {
                sys::poke(addr, &[0x5a]);
            } else {
                sys::peek(addr, 1);
            }
            Ok(())
        })?;
        let status = self.reap(pid)?;
        let fine = if may {
            status == 0
        } else {
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
        };
        if !fine {
            let (what, must) = (
                if write { "write" } else { "read" },
                if may { "succeed" } else { "fail" },
            );
            wrong!(
                "a {what} at page {first} of the arena, which must {must}: {}",
                sys::ending(status)
            );
        }
        Ok(())
    }

    /// What is sealed stays as it is.
    pub(super) fn seal(&mut self, [a, b, _, ..]: [u32; ARGS]) -> Outcome {
        let (first, len) = self.range(a, b);
        let len = self.stretch(first, len, |page| page.inherited);
        if len == 0 {
            return Ok(());
        }
        let pid = self.child(|this| {
            let (addr, bytes) = (this.arena + first * PAGE, len * PAGE);
            let answer = sys::call(libc::SYS_mseal, &[addr, bytes, 0]);
            if this
                .expect("mseal", answer, &[], &[libc::ENOSYS])?
                .is_some()
            {
                let answer = sys::call(libc::SYS_munmap, &[addr, PAGE]);
                this.expect("munmap of what is sealed", answer, &[EPERM], &[])?;
                let answer = sys::call(libc::SYS_mprotect, &[addr, bytes, 0]);
                this.expect("mprotect of what is sealed", answer, &[EPERM], &[])?;
                let args = [addr, PAGE, 1, 0x32, usize::MAX, 0];
                let answer = sys::call_addr(libc::SYS_mmap, &args);
                this.expect("mmap over what is sealed", answer, &[EPERM], &[])?;
            }
            this.check()
        })?;
        self.reap_well("mseal", pid)
    }
}

/// A checksum.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What the program does that `exec` starts: reads a device by both ways.
pub fn inherited(text: &str) -> Outcome {
    let numbers: Vec<u64> = text
        .split(',')
        .filter_map(|word| word.parse().ok())
        .collect();
    let &[fd, size, expected] = &numbers[..] else {
        wrong!("bad argument {text:?}")
    };
    let (fd, size) = (fd as i32, size as usize);
    if sum(&read_all(fd, size)?) != expected {
        wrong!("after execve read finds something else");
    }
    let args = [
        0,
        size,
        R as usize,
        libc::MAP_SHARED as usize,
        fd as usize,
        0,
    ];
    let addr = sys::call_addr(libc::SYS_mmap, &args).map_err(|errno| format!("mmap: {errno}"))?;
    if sum(&sys::peek(addr, size)) != expected {
        wrong!("after execve a mapping holds something else");
    }
    Ok(())
}

/// A descriptor for the same file as `fd`, by way of a socket.
pub fn pass(fd: i32) -> Outcome<i32> {
    let mut pair = [0i32; 2];
    let bad = |errno| format!("a socket: {}", std::io::Error::from_raw_os_error(errno));
    let unix = libc::AF_UNIX as usize;
    sys::call(
        libc::SYS_socketpair,
        &[
            unix,
            libc::SOCK_STREAM as usize,
            0,
            pair.as_mut_ptr() as usize,
        ],
    )
    .map_err(bad)?;
    let [to, from] = pair.map(|fd| sys::file(fd as usize));
    use std::os::fd::AsRawFd;
    let byte = [0u8];
    let vector = [byte.as_ptr() as usize, 1];
    // struct cmsghdr and one descriptor, padded.
    let mut control = [20u64, 0, 0];
    control[1] = u64::from(libc::SOL_SOCKET as u32) | (libc::SCM_RIGHTS as u64) << 32;
    control[2] = fd as u64;
    let mut message = [
        0,
        0,
        vector.as_ptr() as usize,
        1,
        control.as_mut_ptr() as usize,
        20,
        0,
    ];
    let at = message.as_mut_ptr() as usize;
    sys::call(libc::SYS_sendmsg, &[to.as_raw_fd() as usize, at, 0]).map_err(bad)?;
    control = [0; 3];
    message[5] = 24;
    sys::call(
        libc::SYS_recvmsg,
        &[
            from.as_raw_fd() as usize,
            at,
            libc::MSG_CMSG_CLOEXEC as usize,
        ],
    )
    .map_err(bad)?;
    Ok(control[2] as i32)
}
