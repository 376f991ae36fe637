// SPDX-License-Identifier: GPL-2.0

//! System calls as they are: the fuzzer wants to make wrong ones.

use libc::{c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::ptr;

pub const PAGE: usize = 4096;

/// What a system call returned, or its errno.
pub type Answer = Result<usize, i32>;

/// Makes any system call.
///
/// Addresses that the kernel is to write to, or to map something at, lie in memory that was set
/// aside for that: the arena, or a buffer that the caller owns.
pub fn call(nr: c_long, args: &[usize]) -> Answer {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: See above; the kernel checks everything else.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| errno())
}

/// As [`call`], for calls that return an address.
pub fn call_addr(nr: c_long, args: &[usize]) -> Answer {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: As above.
    match unsafe { libc::syscall(nr, a, b, c, d, e, f) } {
        -1 => Err(errno()),
        addr => Ok(addr as usize),
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Copies memory that is mapped, readable and nobody's Rust object.
pub fn peek(addr: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: The model says that all of it can be read; if it is wrong, this process dies, and the
    // process above says so.
    unsafe { ptr::copy(addr as *const u8, bytes.as_mut_ptr(), len) };
    std::hint::black_box(bytes)
}

/// Writes to memory that is mapped, writable and nobody's Rust object.
pub fn poke(addr: usize, bytes: &[u8]) {
    // SAFETY: As above.
    unsafe { ptr::copy(bytes.as_ptr(), addr as *mut u8, bytes.len()) }
}

/// Memory of this process, or shared with those it forks; never unmapped.
pub fn memory(len: usize, flags: c_int) -> &'static mut [u8] {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: New memory, anywhere.
    let addr = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            prot,
            flags | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(addr != libc::MAP_FAILED, "out of memory");
    // SAFETY: It is as long as that, zero, and nobody else's.
    unsafe { std::slice::from_raw_parts_mut(addr.cast(), len) }
}

/// Makes memory inaccessible.
pub fn forbid(addr: usize, len: usize) {
    // SAFETY: The caller owns it and does not use it any more.
    unsafe { libc::mprotect(addr as *mut c_void, len, libc::PROT_NONE) };
}

/// A file from a descriptor that the caller has just been given.
pub fn file(fd: usize) -> File {
    // SAFETY: The descriptor is the caller's.
    unsafe { File::from_raw_fd(fd as c_int) }
}

/// Runs `body` in a child, which ends with the status that it returns; gives its process id.
pub fn fork(body: impl FnOnce() -> i32) -> Result<i32, i32> {
    // SAFETY: The C library keeps its own locks consistent; no Rust lock is held across a fork.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        0 => {
            // SAFETY: No pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let body = std::panic::AssertUnwindSafe(body);
            let status = std::panic::catch_unwind(body).unwrap_or(101);
            // SAFETY: No pointers.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child; returns its wait status.
pub fn wait(pid: i32, options: c_int) -> Result<Option<c_int>, i32> {
    let mut status = 0;
    loop {
        // SAFETY: The status is ours.
        match unsafe { libc::waitpid(pid, &raw mut status, options) } {
            -1 if errno() == libc::EINTR => (),
            -1 => return Err(errno()),
            0 => return Ok(None),
            _ => return Ok(Some(status)),
        }
    }
}

pub fn kill(pid: i32, signal: c_int) {
    // SAFETY: No pointers. The process is a child of this one that has not been waited for.
    unsafe { libc::kill(pid, signal) };
}

/// How a child ended, in words.
pub fn ending(status: c_int) -> String {
    if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit status {}", libc::WEXITSTATUS(status))
    }
}
