// SPDX-License-Identifier: GPL-2.0

//! What docs/security.md claims, and what the tests of that have in common.

mod access;
mod addresses;
mod caps;
mod limits;
mod pins;
mod readonly;
mod residue;
mod sealed;

use crate::check::Outcome;
use crate::ktap::Test;
use crate::sys::{check, count};
use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The tests of the group called `name`.
pub fn find(name: &str) -> Option<&'static [Test]> {
    Some(match name {
        "access" => access::TESTS,
        "addresses" => addresses::TESTS,
        "caps" => caps::TESTS,
        "limits" => limits::TESTS,
        "pins" => pins::TESTS,
        "readonly" => readonly::TESTS,
        "residue" => residue::TESTS,
        "sealed" => sealed::open::TESTS,
        "sealed-enforced" => sealed::enforced::TESTS,
        "sealed-locked" => sealed::locked::TESTS,
        _ => return None,
    })
}

/// Whether the kernel is one that checks itself. There all takes long, and unloading several seconds,
/// as the kernel puts off what it waits for.
fn slow() -> bool {
    std::env::var_os("SLOW").is_some()
}

const NOBODY: u32 = 65534;

/// Capabilities, as bits.
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_MODULE: u64 = 1 << 16;
const ALL_CAPS: u64 = (1 << 41) - 1;

/// Leaves this thread with just the capabilities `caps`.
fn set_caps(caps: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;

    let header = [VERSION_3, 0];
    let half = |shift: u32| (caps >> shift) as u32;
    let data = [half(0), half(0), 0, half(32), half(32), 0];
    // SAFETY: Both are as version 3 wants them.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Becomes a user for good, with supplementary groups, and with just the capabilities `caps`.
fn become_user(uid: u32, gid: u32, groups: &[u32], caps: u64) -> Outcome {
    // SAFETY: The list of groups is as long as said.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1))?;
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
    }
    set_caps(caps)?;
    // SAFETY: No pointers. Changing the user has made /proc/self another's; this undoes it.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) })?;
    Ok(())
}

/// Passes a descriptor to whoever has the other end.
fn send(socket: &UnixStream, fd: &impl AsRawFd) -> io::Result<()> {
    with_message(|message, control| {
        // SAFETY: The control buffer has room for one descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header)
                .cast::<c_int>()
                .write_unaligned(fd.as_raw_fd());
            (*message).msg_controllen = control;
            count(libc::sendmsg(socket.as_raw_fd(), message, 0)).map(drop)
        }
    })
}

/// Takes a descriptor that the other end has passed.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    with_message(|message, _| {
        // SAFETY: As above; what has been received is nobody else's.
        unsafe {
            count(libc::recvmsg(
                socket.as_raw_fd(),
                message,
                libc::MSG_CMSG_CLOEXEC,
            ))?;
            let header = libc::CMSG_FIRSTHDR(message);
            if header.is_null() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let fd = libc::CMSG_DATA(header).cast::<c_int>().read_unaligned();
            Ok(OwnedFd::from_raw_fd(fd))
        }
    })
}

/// A message of one byte with room for one descriptor, and how much room that is.
fn with_message<T>(body: impl FnOnce(*mut libc::msghdr, usize) -> T) -> T {
    let mut byte = [0u8];
    let mut control = [0u64; 8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: Zeroes are a valid message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: No pointers.
    let room = unsafe { libc::CMSG_SPACE(4) } as usize;
    body(&raw mut message, room)
}

/// A descriptor of another process's.
fn take_from(pid: c_int, fd: c_int) -> io::Result<OwnedFd> {
    // SAFETY: No pointers; the descriptors are new.
    unsafe {
        let process = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let process = OwnedFd::from_raw_fd(process as c_int);
        let taken = check(libc::syscall(
            libc::SYS_pidfd_getfd,
            process.as_raw_fd(),
            fd,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(taken as c_int))
    }
}

/// Loads the module in an open file; unlike [`crate::module::insert`], needs no path.
fn load(file: &impl AsRawFd, params: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: The parameters are a C string.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), params.as_ptr(), 0) })
        .map(drop)
}

#[cfg(test)]
mod documentation {
    /// Every test that docs/security.md names is there, and every test of these groups is named.
    #[test]
    fn names_tests_that_exist() {
        let text = include_str!("../../../../docs/security.md");
        let cells = text.lines().filter(|line| line.starts_with("| "));
        let cells = cells.filter_map(|line| line.trim_end_matches(" |").rsplit(" | ").next());
        let mut named = Vec::new();
        for name in cells.flat_map(|cell| cell.split("<br>")) {
            let Some((group, promise)) = name
                .strip_prefix('`')
                .and_then(|name| name.split_once("`: "))
            else {
                continue;
            };
            let tests = crate::groups::find(group).unwrap_or_else(|| panic!("no group {group}"));
            let there = tests.iter().any(|test| test.promise == promise);
            assert!(there, "no test in {group}: {promise}");
            named.push(promise);
        }
        for group in [
            "access",
            "addresses",
            "caps",
            "limits",
            "pins",
            "readonly",
            "residue",
            "sealed",
            "sealed-enforced",
            "sealed-locked",
        ] {
            for test in super::find(group).expect("it is ours") {
                assert!(named.contains(&test.promise), "not named: {}", test.promise);
            }
        }
    }
}
