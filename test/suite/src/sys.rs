// SPDX-License-Identifier: GPL-2.0

//! System calls, with little in between: the tests want the kernel's own answers.

use crate::pattern::PAGE;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

pub use libc::{
    MAP_PRIVATE, MAP_SHARED, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_NONE, PROT_READ,
    PROT_WRITE,
};

pub const RW: c_int = PROT_READ | PROT_WRITE;

/// Turns a system call's -1 into the error it stands for.
pub fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// As [`check`], for calls that return a count.
pub fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub fn open(path: &str, flags: c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: The path is a C string.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })?;
    // SAFETY: The descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

pub fn pread(fd: &impl AsRawFd, offset: i64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    // SAFETY: The buffer is as long as said.
    let got =
        count(unsafe { libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len, offset) })?;
    bytes.truncate(got);
    Ok(bytes)
}

pub fn pwrite(fd: &impl AsRawFd, offset: i64, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: The buffer is as long as said.
    count(unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset) })
}

/// Reads all that is left, in pieces of `step` bytes.
pub fn read_all(fd: &impl AsRawFd, step: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0u8; step];
    loop {
        // SAFETY: The buffer is as long as said.
        match count(unsafe { libc::read(fd.as_raw_fd(), piece.as_mut_ptr().cast(), step) })? {
            0 => return Ok(all),
            got => all.extend_from_slice(&piece[..got]),
        }
    }
}

pub fn lseek(fd: &impl AsRawFd, offset: i64, whence: c_int) -> io::Result<i64> {
    // SAFETY: No pointers.
    check(unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) })
}

/// The ioctl `cmd` with the address `arg`, whatever is there.
pub fn ioctl(fd: &impl AsRawFd, cmd: u32, arg: usize) -> io::Result<i64> {
    // SAFETY: The kernel checks the address; callers pass one that is theirs, or none's.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), cmd.into(), arg) })
}

/// A piece of this process's address space; unmapped when dropped.
#[derive(Debug)]
pub struct Map {
    pub addr: usize,
    pub len: usize,
}

impl Map {
    /// Maps `len` bytes of `fd` from `offset` on.
    pub fn new(
        fd: &impl AsRawFd,
        offset: u64,
        len: usize,
        prot: c_int,
        flags: c_int,
    ) -> io::Result<Self> {
        Self::at(0, fd.as_raw_fd(), offset, len, prot, flags)
    }

    /// Maps `len` bytes of nothing.
    pub fn anonymous(len: usize, prot: c_int) -> io::Result<Self> {
        Self::at(0, -1, 0, len, prot, MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    /// `mmap` as it is.
    pub fn at(
        addr: usize,
        fd: c_int,
        offset: u64,
        len: usize,
        prot: c_int,
        flags: c_int,
    ) -> io::Result<Self> {
        // SAFETY: Only tests that own the place ask for one.
        let at = unsafe { libc::mmap(addr as *mut c_void, len, prot, flags, fd, offset as i64) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            addr: at as usize,
            len,
        })
    }

    pub fn pages(&self) -> usize {
        self.len / PAGE
    }

    fn ptr(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= self.len, "outside the mapping");
        (self.addr + offset) as *mut u8
    }

    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: Both are `len` bytes long; if the mapping cannot be read, the test fails.
        unsafe { ptr::copy(self.ptr(offset, len), bytes.as_mut_ptr(), len) };
        std::hint::black_box(bytes)
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: As above.
        unsafe { ptr::copy(bytes.as_ptr(), self.ptr(offset, bytes.len()), bytes.len()) }
    }

    pub fn get(&self, offset: usize) -> u64 {
        // SAFETY: As above.
        unsafe { self.ptr(offset, 8).cast::<u64>().read_volatile() }
    }

    pub fn put(&self, offset: usize, word: u64) {
        // SAFETY: As above.
        unsafe { self.ptr(offset, 8).cast::<u64>().write_volatile(word) }
    }

    /// Reads a byte of every page.
    pub fn touch(&self) {
        for offset in (0..self.len).step_by(PAGE) {
            self.get(offset);
        }
    }

    pub fn protect(&self, offset: usize, len: usize, prot: c_int) -> io::Result<()> {
        // SAFETY: The place is ours.
        check(unsafe { libc::mprotect(self.ptr(offset, len).cast(), len, prot) }).map(drop)
    }

    pub fn advise(&self, offset: usize, len: usize, advice: c_int) -> io::Result<()> {
        // SAFETY: The place is ours.
        check(unsafe { libc::madvise(self.ptr(offset, len).cast(), len, advice) }).map(drop)
    }

    /// Unmaps a piece; the rest stays.
    pub fn unmap(&self, offset: usize, len: usize) -> io::Result<()> {
        // SAFETY: The place is ours.
        check(unsafe { libc::munmap(self.ptr(offset, len).cast(), len) }).map(drop)
    }

    /// Moves or resizes it; on failure it stays.
    pub fn remap(&mut self, len: usize, flags: c_int, to: usize) -> io::Result<()> {
        // SAFETY: The place is ours, and so is where it goes.
        let at = unsafe {
            libc::mremap(
                self.addr as *mut c_void,
                self.len,
                len,
                flags,
                to as *mut c_void,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        (self.addr, self.len) = (at as usize, len);
        Ok(())
    }

    /// Which pages are in the page tables, by `mincore`'s neighbour pagemap: frame number or none.
    pub fn pfn(&self, page: usize) -> io::Result<Option<u64>> {
        Ok(frame(pagemap(self.addr + page * PAGE)?))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: The place is ours.
        unsafe { libc::munmap(self.addr as *mut c_void, self.len) };
    }
}

/// The entry of `/proc/self/pagemap` for `addr`.
pub fn pagemap(addr: usize) -> io::Result<u64> {
    let file = open("/proc/self/pagemap", O_RDONLY)?;
    let bytes = pread(&file, (addr / PAGE * 8) as i64, 8)?;
    let bytes = bytes.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The frame number in an entry of pagemap, if the page is present.
pub fn frame(entry: u64) -> Option<u64> {
    (entry >> 63 != 0).then_some(entry & ((1 << 55) - 1))
}
