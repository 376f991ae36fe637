// SPDX-License-Identifier: GPL-2.0

//! Others that use a mapping: debuggers, the block layer, pipes, io_uring.

use super::files::{memfd, noise, pipe, submit};
use crate::check::{Fail, Outcome, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{
    self, MAP_PRIVATE, MAP_SHARED, Map, O_RDWR, PROT_READ, RW, check, count, pread, pwrite,
};
use crate::uapi::MODE_VMALLOC;
use io_uring::{IoUring, opcode, types};
use libc::{EFAULT, EIO};
use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

tests! {
    "a debugger reads and writes a mapping through ptrace, touched before or not": ptrace,
    "a debugger's write to a read-only private mapping does not reach the device": ptrace_private,
    "/proc/PID/mem reads and writes a shared mapping, and cannot write a read-only one": mem,
    "process_vm_readv and process_vm_writev reach a mapping, touched before or not": process_vm,
    "an O_DIRECT write from a mapping to a disk writes the device's bytes": direct_out,
    "an O_DIRECT read from a disk into a mapping reaches the device and every other mapping": direct_in,
    "an O_DIRECT read into a private mapping does not reach the device": direct_private,
    "vmsplice and tee of a mapping give the device's bytes, and later writes to them": vmsplice,
    "a mapping is an io_uring registered buffer: written to a file, read from one": uring,
    "a system call reads from and writes to a mapping as to any memory": syscalls,
    "a device is read and written from and to its own mapping": itself,
    "a futex in a mapping works within a process; between processes with huge=1 only, else it is EFAULT": futex,
}

/// A child that has device 0 mapped and waits; its mapping is at the same address as `map`.
fn debuggee(map: &Map, touch: bool) -> Outcome<Child> {
    let mut child = Child::new(|line| {
        if touch {
            map.touch();
        }
        line.say()?;
        line.hear()
    })?;
    child.line.hear()?;
    Ok(child)
}

/// Ends a debuggee.
fn release(mut child: Child) -> Outcome {
    child.line.say()?;
    child.end()
}

fn ptrace_call(request: libc::c_uint, pid: i32, addr: usize, data: usize) -> Outcome<i64> {
    // SAFETY: The addresses are the debuggee's.
    Ok(check(unsafe {
        libc::ptrace(request, pid, addr as *mut c_void, data as *mut c_void)
    })?)
}

/// Has a stopped debuggee, for the time of `body`.
fn stopped(child: &Child, body: impl FnOnce(i32) -> Outcome) -> Outcome {
    ptrace_call(libc::PTRACE_ATTACH, child.pid, 0, 0)?;
    let status = process::wait(child.pid)?;
    equal("stopped", libc::WIFSTOPPED(status), true)?;
    body(child.pid)?;
    ptrace_call(libc::PTRACE_DETACH, child.pid, 0, 0).map(drop)
}

/// A word of a debuggee; -1 is no error here.
fn peek(pid: i32, addr: usize) -> u64 {
    let mut word = 0u64;
    // SAFETY: As the system call, not the library's: the word is ours.
    unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKDATA,
            pid,
            addr,
            &raw mut word,
        )
    };
    word
}

fn ptrace(setup: &Setup) -> Outcome {
    for touch in [false, true] {
        let (fd, map) = device::open_and_map(setup)?;
        pwrite(&fd, 0, &noise(30, setup.size as usize))?;
        let child = debuggee(&map, touch)?;
        stopped(&child, |pid| {
            for page in 0..setup.pages() - 1 {
                let offset = page * PAGE + 16;
                let expected = pread(&fd, offset as i64, 8)?;
                equal(
                    "word",
                    peek(pid, map.addr + offset).to_ne_bytes().to_vec(),
                    expected,
                )?;
                ptrace_call(libc::PTRACE_POKEDATA, pid, map.addr + offset, page)?;
                equal(
                    "word in the device",
                    pread(&fd, offset as i64, 8)?,
                    page.to_ne_bytes().to_vec(),
                )?;
            }
            Ok(())
        })?;
        release(child)?;
    }
    Ok(())
}

fn ptrace_private(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let before = pread(&fd, 0, 2 * PAGE)?;
    let map = Map::new(&fd, 0, 2 * PAGE, PROT_READ, MAP_PRIVATE)?;
    let child = debuggee(&map, true)?;
    stopped(&child, |pid| {
        ptrace_call(libc::PTRACE_POKEDATA, pid, map.addr + 8, 0x55)?;
        equal("word", peek(pid, map.addr + 8), 0x55)
    })?;
    release(child)?;
    same_bytes("the device", &pread(&fd, 0, 2 * PAGE)?, &before)?;
    same_bytes("the parent's mapping", &map.bytes(0, map.len), &before)
}

fn mem(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let size = setup.size as usize;
    pwrite(&fd, 0, &noise(31, size))?;
    for prot in [PROT_READ, RW] {
        let map = Map::new(&fd, 0, setup.span(), prot, MAP_SHARED)?;
        let child = debuggee(&map, false)?;
        let mem = sys::open(&format!("/proc/{}/mem", child.pid), O_RDWR)?;
        same_bytes(
            "read",
            &pread(&mem, map.addr as i64, size)?,
            &pread(&fd, 0, size)?,
        )?;
        let at = (map.addr + 5000) as i64;
        if prot == RW {
            equal("written", pwrite(&mem, at, b"from afar")?, 9)?;
            same_bytes("the device", &pread(&fd, 5000, 9)?, b"from afar")?;
        } else {
            refused("write", pwrite(&mem, at, b"x"), EIO)?;
        }
        release(child)?;
    }
    Ok(())
}

fn process_vm(setup: &Setup) -> Outcome {
    for touch in [false, true] {
        let (fd, map) = device::open_and_map(setup)?;
        let size = setup.size as usize;
        pwrite(&fd, 0, &noise(32, size))?;
        let child = debuggee(&map, touch)?;
        let mut bytes = vec![0u8; size];
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: size,
        };
        let remote = libc::iovec {
            iov_base: map.addr as *mut c_void,
            iov_len: size,
        };
        // SAFETY: The local vector is ours.
        let got = unsafe {
            libc::process_vm_readv(child.pid, &raw const local, 1, &raw const remote, 1, 0)
        };
        equal("read", count(got)?, size)?;
        same_bytes("read", &bytes, &noise(32, size))?;
        bytes.copy_from_slice(&noise(33, size));
        // SAFETY: As above.
        let got = unsafe {
            libc::process_vm_writev(child.pid, &raw const local, 1, &raw const remote, 1, 0)
        };
        equal("written", count(got)?, size)?;
        same_bytes("the device", &pread(&fd, 0, size)?, &noise(33, size))?;
        release(child)?;
    }
    Ok(())
}

const BLOCK: usize = 16 * PAGE;

/// The disk, opened past the page cache.
fn disk() -> Outcome<OwnedFd> {
    sys::open("/dev/vda", O_RDWR | libc::O_DIRECT)
        .map_err(|error| Fail::Skip(format!("no disk: {error}")))
}

fn direct_out(setup: &Setup) -> Outcome {
    let disk = disk()?;
    for (flags, touch) in [
        (MAP_SHARED, false),
        (MAP_SHARED, true),
        (MAP_PRIVATE, false),
        (MAP_PRIVATE, true),
    ] {
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, setup.span(), RW, flags)?;
        let bytes = noise(34 + usize::from(touch), 2 * BLOCK);
        pwrite(&fd, 0, &bytes)?;
        if touch {
            map.touch();
        }
        // SAFETY: The mapping is that long.
        let put = unsafe {
            libc::pwrite(
                disk.as_raw_fd(),
                (map.addr + PAGE) as *const c_void,
                BLOCK,
                0,
            )
        };
        equal("written", count(put)?, BLOCK)?;
        let buffer = Map::anonymous(BLOCK, RW)?;
        // SAFETY: As above.
        let got = unsafe { libc::pread(disk.as_raw_fd(), buffer.addr as *mut c_void, BLOCK, 0) };
        equal("read back", count(got)?, BLOCK)?;
        same_bytes(
            "on the disk",
            &buffer.bytes(0, BLOCK),
            &bytes[PAGE..PAGE + BLOCK],
        )?;
    }
    Ok(())
}

/// Puts bytes on the disk.
fn put_on_disk(disk: &OwnedFd, bytes: &[u8]) -> Outcome {
    let buffer = Map::anonymous(bytes.len(), RW)?;
    buffer.write(0, bytes);
    // SAFETY: The buffer is that long.
    let put = unsafe {
        libc::pwrite(
            disk.as_raw_fd(),
            buffer.addr as *const c_void,
            bytes.len(),
            0,
        )
    };
    equal("written", count(put)?, bytes.len())
}

fn direct_in(setup: &Setup) -> Outcome {
    let disk = disk()?;
    for touch in [false, true] {
        let (fd, map) = device::open_and_map(setup)?;
        if touch {
            map.touch();
        }
        let other = device::mapped(setup)?;
        other.touch();
        let bytes = noise(36 + usize::from(touch), BLOCK);
        put_on_disk(&disk, &bytes)?;
        // SAFETY: The mapping is that long.
        let got =
            unsafe { libc::pread(disk.as_raw_fd(), (map.addr + PAGE) as *mut c_void, BLOCK, 0) };
        equal("read", count(got)?, BLOCK)?;
        same_bytes("the device", &pread(&fd, PAGE as i64, BLOCK)?, &bytes)?;
        same_bytes("another mapping", &other.bytes(PAGE, BLOCK), &bytes)?;
    }
    // Into a read-only mapping it cannot be.
    let map = device::mapped(setup)?;
    // SAFETY: The kernel checks the address.
    let got = unsafe { libc::pread(disk.as_raw_fd(), map.addr as *mut c_void, BLOCK, 0) };
    refused("into a read-only mapping", count(got), EFAULT)
}

fn direct_private(setup: &Setup) -> Outcome {
    let disk = disk()?;
    let fd = device::open(O_RDWR)?;
    let before = pread(&fd, 0, setup.size as usize)?;
    let map = Map::new(&fd, 0, setup.span(), RW, MAP_PRIVATE)?;
    let bytes = noise(38, BLOCK);
    put_on_disk(&disk, &bytes)?;
    // SAFETY: The mapping is that long.
    let got = unsafe { libc::pread(disk.as_raw_fd(), map.addr as *mut c_void, BLOCK, 0) };
    equal("read", count(got)?, BLOCK)?;
    same_bytes("the mapping", &map.bytes(0, BLOCK), &bytes)?;
    same_bytes("the device", &pread(&fd, 0, before.len())?, &before)
}

fn vmsplice(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    pwrite(&fd, 0, &noise(39, 8 * PAGE))?;
    let (reader, writer) = pipe(1 << 20)?;
    let (reader2, writer2) = pipe(1 << 20)?;
    let part = libc::iovec {
        iov_base: (map.addr + 100) as *mut c_void,
        iov_len: 4 * PAGE,
    };
    // SAFETY: The mapping is that long.
    let moved = count(unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const part, 1, 0) })?;
    equal("bytes", moved, 4 * PAGE)?;
    // SAFETY: No pointers.
    equal(
        "tee",
        count(unsafe { libc::tee(reader.as_raw_fd(), writer2.as_raw_fd(), moved, 0) })?,
        moved,
    )?;
    // The pipe holds the pages, not a copy.
    map.put(PAGE, 0x77);
    let expected = pread(&fd, 100, 4 * PAGE)?;
    drop(map);
    for pipe in [&reader, &reader2] {
        let mut bytes = vec![0u8; moved];
        // SAFETY: The buffer is that long.
        let got = unsafe { libc::read(pipe.as_raw_fd(), bytes.as_mut_ptr().cast(), moved) };
        equal("read", count(got)?, moved)?;
        same_bytes("through the pipe", &bytes, &expected)?;
    }
    Ok(())
}

fn uring(setup: &Setup) -> Outcome {
    const LEN: usize = 10 * PAGE;
    let (fd, map) = device::open_and_map(setup)?;
    pwrite(&fd, 0, &noise(40, LEN))?;
    let file = memfd()?;
    let mut ring = IoUring::new(4)?;
    let buffer = libc::iovec {
        iov_base: map.addr as *mut c_void,
        iov_len: map.len,
    };
    // SAFETY: The mapping outlives the ring's use of it.
    unsafe { ring.submitter().register_buffers(&[buffer])? };
    let target = types::Fd(file.as_raw_fd());
    let entry = opcode::WriteFixed::new(target, map.addr as *const u8, LEN as u32, 0)
        .offset(0)
        .build();
    equal("write", submit(&mut ring, &entry)?, LEN as i32)?;
    same_bytes("the file", &pread(&file, 0, LEN + 1)?, &noise(40, LEN))?;
    pwrite(&file, 0, &noise(41, LEN))?;
    let to = (map.addr + 100) as *mut u8;
    let entry = opcode::ReadFixed::new(target, to, LEN as u32, 0)
        .offset(0)
        .build();
    equal("read", submit(&mut ring, &entry)?, LEN as i32)?;
    same_bytes("the device", &pread(&fd, 100, LEN)?, &noise(41, LEN))?;
    // The ring's pages are the device's, whatever becomes of the mapping.
    map.advise(0, map.len, libc::MADV_DONTNEED)?;
    let entry = opcode::ReadFixed::new(target, map.addr as *mut u8, LEN as u32, 0)
        .offset(0)
        .build();
    equal("read", submit(&mut ring, &entry)?, LEN as i32)?;
    same_bytes("the device", &pread(&fd, 0, LEN)?, &noise(41, LEN))
}

fn syscalls(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        pwrite(&fd, 0, &noise(42, 8 * PAGE))?;
        let map = Map::new(&fd, 0, setup.span(), RW, flags)?;
        let file = memfd()?;
        // SAFETY: The mapping is that long.
        let put = unsafe { libc::write(file.as_raw_fd(), map.addr as *const c_void, 3 * PAGE) };
        equal("written", count(put)?, 3 * PAGE)?;
        same_bytes(
            "the file",
            &pread(&file, 0, 3 * PAGE)?,
            &noise(42, 3 * PAGE),
        )?;
        // SAFETY: As above.
        let got = unsafe {
            libc::pread(
                file.as_raw_fd(),
                (map.addr + 5 * PAGE + 10) as *mut c_void,
                2 * PAGE,
                0,
            )
        };
        equal("read", count(got)?, 2 * PAGE)?;
        same_bytes(
            "the mapping",
            &map.bytes(5 * PAGE + 10, 2 * PAGE),
            &noise(42, 2 * PAGE),
        )?;
        let reached = pread(&fd, (5 * PAGE + 10) as i64, 2 * PAGE)? == noise(42, 2 * PAGE);
        equal("it reached the device", reached, flags == MAP_SHARED)?;
    }
    Ok(())
}

fn itself(setup: &Setup) -> Outcome {
    let (fd, map) = device::open_and_map(setup)?;
    let bytes = noise(43, 4 * PAGE);
    pwrite(&fd, 0, &bytes)?;
    // The pages are not touched yet: the copy faults while the driver reads and writes.
    // SAFETY: The mapping is that long.
    let got = unsafe {
        libc::pread(
            fd.as_raw_fd(),
            (map.addr + 8 * PAGE) as *mut c_void,
            4 * PAGE,
            0,
        )
    };
    equal("read", count(got)?, 4 * PAGE)?;
    same_bytes(
        "the device",
        &pread(&fd, (8 * PAGE) as i64, 4 * PAGE)?,
        &bytes,
    )?;
    map.advise(0, map.len, libc::MADV_DONTNEED)?;
    // SAFETY: As above.
    let put = unsafe {
        libc::pwrite(
            fd.as_raw_fd(),
            (map.addr + 8 * PAGE) as *const c_void,
            4 * PAGE,
            (20 * PAGE) as i64,
        )
    };
    equal("written", count(put)?, 4 * PAGE)?;
    same_bytes("the device", &map.bytes(20 * PAGE, 4 * PAGE), &bytes)
}

fn futex(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let map = Map::new(&fd, 0, PAGE, RW, MAP_SHARED)?;
    map.put(0, 5);
    let call = |op: i32, value: u32| {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1,
        };
        // SAFETY: The word is in the mapping, the time is ours.
        check(unsafe {
            libc::syscall(
                libc::SYS_futex,
                map.addr,
                op,
                value,
                &raw const now,
                ptr::null::<u32>(),
                0,
            )
        })
    };
    let private = libc::FUTEX_PRIVATE_FLAG;
    refused(
        "wait, another value",
        call(libc::FUTEX_WAIT | private, 6),
        libc::EAGAIN,
    )?;
    refused(
        "wait, in vain",
        call(libc::FUTEX_WAIT | private, 5),
        libc::ETIMEDOUT,
    )?;
    equal(
        "wake, nobody there",
        call(libc::FUTEX_WAKE | private, 1)?,
        0,
    )?;
    // The kernel finds a shared futex by the page's file; those from vmalloc are of none.
    let errno = if device::info(&fd)?.mode == MODE_VMALLOC {
        EFAULT
    } else {
        libc::ETIMEDOUT
    };
    refused("shared wait", call(libc::FUTEX_WAIT, 5), errno)
}
