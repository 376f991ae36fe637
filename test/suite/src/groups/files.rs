// SPDX-License-Identifier: GPL-2.0

//! Reading, writing and seeking, by every call there is.

use crate::check::{Outcome, ensure, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::sys::{
    self, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_NONE, RW, check, count, lseek, pread, pwrite,
};
use io_uring::{IoUring, opcode, squeue, types};
use libc::{
    EBADF, EFAULT, EINVAL, ENOSPC, ENXIO, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET,
};
use std::ffi::{CString, c_int};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

tests! {
    "a read-only descriptor cannot be written, a write-only one cannot be read": modes,
    "pread gives the bytes asked for, wherever they start and end": preads,
    "pwrite changes the bytes asked for and no others, wherever they start and end": pwrites,
    "read and write go on where the last one ended; pread and pwrite do not move that": positions,
    "a read over the end is partial, at or behind the end it is empty": read_end,
    "a write over the end is partial, at or behind the end it is ENOSPC": write_end,
    "no bytes can be read and written anywhere": nothing,
    "a negative position is EINVAL": negative,
    "readv, preadv, writev, pwritev go through their buffers in order": vectors,
    "a read into memory that ends too early gives the count up to there; at once, EFAULT": read_fault,
    "a write from memory that ends too early gives the count up to there; at once, EFAULT": write_fault,
    "lseek with SEEK_SET, SEEK_CUR and SEEK_END stays inside the device": seek,
    "SEEK_DATA finds data everywhere, SEEK_HOLE only the end": seek_data,
    "fsync and fdatasync succeed": sync,
    "O_APPEND and O_TRUNC change nothing": append,
    "splice, tee and sendfile out of a device give its contents": splice_out,
    "splice and sendfile into a device change its contents": splice_in,
    "io_uring reads and writes, with plain, vectored and registered buffers": uring,
    "a node made by hand is the same device; one for a minor that is not there is ENXIO": node,
}

/// Everything that can be read of device 0 now.
pub fn contents(fd: &impl AsRawFd, setup: &Setup) -> Outcome<Vec<u8>> {
    let bytes = pread(fd, 0, setup.size as usize)?;
    equal("bytes read", bytes.len(), setup.size as usize)?;
    Ok(bytes)
}

/// Positions and lengths around the borders of pages, all inside the device.
fn ranges(setup: &Setup) -> Vec<(usize, usize)> {
    let size = setup.size as usize;
    let mut ranges = Vec::new();
    for start in [
        0,
        1,
        7,
        2048,
        4095,
        4096,
        4097,
        8191,
        8192,
        65_535,
        size.saturating_sub(1),
        size / 2,
    ] {
        for len in [1, 2, 8, 4095, 4096, 4097, 12_288, 70_000, size] {
            if start + len <= size {
                ranges.push((start, len));
            }
        }
    }
    ranges
}

/// Bytes unlike those that the device has, another lot for each `salt`.
pub fn noise(salt: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ salt.wrapping_mul(151)) as u8)
        .collect()
}

fn modes(_: &Setup) -> Outcome {
    refused("write", pwrite(&device::open(O_RDONLY)?, 0, b"x"), EBADF)?;
    refused("read", pread(&device::open(O_WRONLY)?, 0, 1), EBADF)?;
    equal("write", pwrite(&device::open(O_WRONLY)?, 0, b"x")?, 1)?;
    equal(
        "read",
        pread(&device::open(O_RDONLY)?, 0, 1)?,
        b"x".to_vec(),
    )
}

fn preads(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let all = contents(&fd, setup)?;
    for (start, len) in ranges(setup) {
        let found = pread(&fd, start as i64, len)?;
        same_bytes(
            format!("{len} bytes at {start}"),
            &found,
            &all[start..start + len],
        )?;
    }
    Ok(())
}

fn pwrites(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    for (salt, (start, len)) in ranges(setup).into_iter().enumerate() {
        let bytes = noise(salt, len);
        equal("bytes written", pwrite(&fd, start as i64, &bytes)?, len)?;
        all[start..start + len].copy_from_slice(&bytes);
        same_bytes(
            format!("after {len} bytes at {start}"),
            &contents(&fd, setup)?,
            &all,
        )?;
    }
    Ok(())
}

fn read(fd: &OwnedFd, len: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    // SAFETY: The buffer is as long as said.
    let got = count(unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len) })?;
    bytes.truncate(got);
    Ok(bytes)
}

fn write(fd: &OwnedFd, bytes: &[u8]) -> std::io::Result<usize> {
    // SAFETY: The buffer is as long as said.
    count(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

fn positions(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    same_bytes("first read", &read(&fd, 10)?, &all[..10])?;
    same_bytes("second read", &read(&fd, 5000)?, &all[10..5010])?;
    let bytes = noise(1, 100);
    equal("write", write(&fd, &bytes)?, 100)?;
    all[5010..5110].copy_from_slice(&bytes);
    equal("position", lseek(&fd, 0, SEEK_CUR)?, 5110)?;
    pread(&fd, 77, 10)?;
    pwrite(&fd, 88, &all[88..98])?;
    equal(
        "position after pread and pwrite",
        lseek(&fd, 0, SEEK_CUR)?,
        5110,
    )?;
    same_bytes("third read", &read(&fd, 10)?, &all[5110..5120])?;
    let other = device::open(O_RDWR)?;
    same_bytes("another opener's read", &read(&other, 6000)?, &all[..6000])
}

fn read_end(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let all = contents(&fd, setup)?;
    let size = setup.size as usize;
    for before in [1, 2, 4095, 4096, 4097] {
        let found = pread(&fd, (size - before) as i64, before + 1 + PAGE)?;
        same_bytes(
            format!("from {before} before the end"),
            &found,
            &all[size - before..],
        )?;
    }
    for position in [
        setup.size,
        setup.size + 1,
        setup.span() as u64 + 1,
        1 << 40,
        i64::MAX as u64 - 100,
    ] {
        let found = pread(&fd, position as i64, 100)?;
        equal(format!("bytes at {position:#x}"), found.len(), 0)?;
    }
    lseek(&fd, -3, SEEK_END)?;
    equal("read of 10 with 3 left", read(&fd, 10)?.len(), 3)?;
    equal("the next read", read(&fd, 10)?.len(), 0)
}

fn write_end(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    let size = setup.size as usize;
    let bytes = noise(2, 2 * PAGE);
    for before in [1, 2, 4095, 4096, 4097] {
        equal(
            "bytes written",
            pwrite(&fd, (size - before) as i64, &bytes)?,
            before,
        )?;
        all[size - before..].copy_from_slice(&bytes[..before]);
        same_bytes("contents", &contents(&fd, setup)?, &all)?;
    }
    for position in [
        setup.size,
        setup.size + 1,
        setup.span() as u64 + 1,
        1 << 40,
        i64::MAX as u64 - 100,
    ] {
        refused(
            format!("write at {position:#x}"),
            pwrite(&fd, position as i64, b"x"),
            ENOSPC,
        )?;
    }
    // What is behind the end of the device in its last page stays zero.
    let map = device::mapped(setup)?;
    let tail = map.bytes(size, map.len - size);
    same_bytes("tail of the last page", &tail, &vec![0; tail.len()])?;
    lseek(&fd, -3, SEEK_END)?;
    equal("write of 10 with room for 3", write(&fd, &bytes[..10])?, 3)?;
    refused("the next write", write(&fd, b"x"), ENOSPC)?;
    equal("position", lseek(&fd, 0, SEEK_CUR)?, setup.size as i64)
}

fn nothing(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    for position in [0, 1, setup.size, setup.size + 1, 1 << 40] {
        equal("read", pread(&fd, position as i64, 0)?.len(), 0)?;
        equal("write", pwrite(&fd, position as i64, b"")?, 0)?;
    }
    equal("writes that count", device::info(&fd)?.generation, {
        pwrite(&fd, 0, b"")?;
        device::info(&fd)?.generation
    })
}

fn negative(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    for position in [-1, i64::MIN] {
        refused("pread", pread(&fd, position, 1), EINVAL)?;
        refused("pwrite", pwrite(&fd, position, b"x"), EINVAL)?;
    }
    Ok(())
}

fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn vectors(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    let (mut a, mut b, mut c, mut d) = (noise(3, 100), vec![], noise(4, 9000), noise(5, 1));
    let total = a.len() + b.len() + c.len() + d.len();
    let parts = [iovec(&mut a), iovec(&mut b), iovec(&mut c), iovec(&mut d)];
    let raw = fd.as_raw_fd();

    // SAFETY: The vectors are valid.
    equal(
        "pwritev",
        count(unsafe { libc::pwritev(raw, parts.as_ptr(), 4, 4000) })?,
        total,
    )?;
    all[4000..4000 + total].copy_from_slice(&[&a[..], &b, &c, &d].concat());
    same_bytes("after pwritev", &contents(&fd, setup)?, &all)?;
    // SAFETY: As above.
    equal(
        "writev",
        count(unsafe { libc::writev(raw, parts.as_ptr(), 4) })?,
        total,
    )?;
    all[..total].copy_from_slice(&[&a[..], &b, &c, &d].concat());
    same_bytes("after writev", &contents(&fd, setup)?, &all)?;

    // SAFETY: As above.
    equal(
        "preadv",
        count(unsafe { libc::preadv(raw, parts.as_ptr(), 4, 12_345) })?,
        total,
    )?;
    same_bytes(
        "preadv",
        &[&a[..], &b, &c, &d].concat(),
        &all[12_345..12_345 + total],
    )?;
    // SAFETY: As above.
    equal(
        "readv",
        count(unsafe { libc::readv(raw, parts.as_ptr(), 4) })?,
        total,
    )?;
    same_bytes(
        "readv",
        &[&a[..], &b, &c, &d].concat(),
        &all[total..2 * total],
    )?;

    // At the end a vector is cut short, in the middle of a buffer.
    let near = setup.size as i64 - 150;
    // SAFETY: As above.
    equal(
        "preadv at the end",
        count(unsafe { libc::preadv(raw, parts.as_ptr(), 4, near) })?,
        150,
    )?;
    same_bytes(
        "preadv at the end",
        &[&a[..], &c[..50]].concat(),
        &all[near as usize..],
    )?;
    // SAFETY: As above.
    equal(
        "pwritev at the end",
        count(unsafe { libc::pwritev(raw, parts.as_ptr(), 4, near) })?,
        150,
    )?;
    same_bytes("after pwritev at the end", &contents(&fd, setup)?, &all)
}

/// A page of memory with nothing behind it.
fn last_page() -> Outcome<Map> {
    let map = Map::anonymous(2 * PAGE, RW)?;
    map.protect(PAGE, PAGE, PROT_NONE)?;
    Ok(map)
}

fn read_fault(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let all = contents(&fd, setup)?;
    let map = last_page()?;
    for (room, start) in [(1, 0usize), (100, 4090), (PAGE, 1)] {
        let to = map.addr + PAGE - room;
        lseek(&fd, start as i64, SEEK_SET)?;
        // SAFETY: The kernel checks the address.
        let got = count(unsafe { libc::read(fd.as_raw_fd(), to as *mut _, room + 50) })?;
        equal("bytes read", got, room)?;
        same_bytes(
            "bytes",
            &map.bytes(PAGE - room, room),
            &all[start..start + room],
        )?;
        equal("position", lseek(&fd, 0, SEEK_CUR)?, (start + room) as i64)?;
    }
    let position = lseek(&fd, 0, SEEK_CUR)?;
    for to in [map.addr + PAGE, 0, usize::MAX - 4095, 1 << 63] {
        // SAFETY: As above.
        let result = count(unsafe { libc::read(fd.as_raw_fd(), to as *mut _, 50) });
        refused(format!("read into {to:#x}"), result, EFAULT)?;
    }
    equal("position after that", lseek(&fd, 0, SEEK_CUR)?, position)
}

fn write_fault(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    let map = last_page()?;
    map.write(0, &noise(6, PAGE));
    for (room, start) in [(1, 0usize), (100, 4090), (PAGE, 1)] {
        let from = map.addr + PAGE - room;
        let before = device::info(&fd)?.generation;
        lseek(&fd, start as i64, SEEK_SET)?;
        // SAFETY: The kernel checks the address.
        let got = count(unsafe { libc::write(fd.as_raw_fd(), from as *const _, room + 50) })?;
        equal("bytes written", got, room)?;
        all[start..start + room].copy_from_slice(&map.bytes(PAGE - room, room));
        same_bytes("contents", &contents(&fd, setup)?, &all)?;
        equal("position", lseek(&fd, 0, SEEK_CUR)?, (start + room) as i64)?;
        equal("generation", device::info(&fd)?.generation, before + 1)?;
    }
    let before = (lseek(&fd, 0, SEEK_CUR)?, device::info(&fd)?.generation);
    for from in [map.addr + PAGE, 0, usize::MAX - 4095, 1 << 63] {
        // SAFETY: As above.
        let result = count(unsafe { libc::write(fd.as_raw_fd(), from as *const _, 50) });
        refused(format!("write from {from:#x}"), result, EFAULT)?;
    }
    same_bytes("contents after that", &contents(&fd, setup)?, &all)?;
    equal(
        "position and generation",
        (lseek(&fd, 0, SEEK_CUR)?, device::info(&fd)?.generation),
        before,
    )
}

fn seek(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let size = setup.size as i64;
    equal("SEEK_SET", lseek(&fd, 100, SEEK_SET)?, 100)?;
    equal("SEEK_CUR", lseek(&fd, -40, SEEK_CUR)?, 60)?;
    equal("SEEK_END", lseek(&fd, -10, SEEK_END)?, size - 10)?;
    equal("to the end", lseek(&fd, size, SEEK_SET)?, size)?;
    lseek(&fd, 60, SEEK_SET)?;
    let wrong = [
        (-1, SEEK_SET),
        (size + 1, SEEK_SET),
        (i64::MAX, SEEK_SET),
        (i64::MIN, SEEK_SET),
        (-61, SEEK_CUR),
        (size, SEEK_CUR),
        (1, SEEK_END),
        (-size - 1, SEEK_END),
        (i64::MAX, SEEK_END),
        (0, 5),
        (0, -1),
    ];
    for (offset, whence) in wrong {
        refused(
            format!("lseek {offset} {whence}"),
            lseek(&fd, offset, whence),
            EINVAL,
        )?;
    }
    equal("position after that", lseek(&fd, 0, SEEK_CUR)?, 60)
}

fn seek_data(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let size = setup.size as i64;
    for offset in [0, 1, 5000, size - 1] {
        equal("SEEK_DATA", lseek(&fd, offset, SEEK_DATA)?, offset)?;
        equal("SEEK_HOLE", lseek(&fd, offset, SEEK_HOLE)?, size)?;
    }
    for offset in [size, size + 1, i64::MAX, -1] {
        refused(
            format!("SEEK_DATA {offset}"),
            lseek(&fd, offset, SEEK_DATA),
            ENXIO,
        )?;
        refused(
            format!("SEEK_HOLE {offset}"),
            lseek(&fd, offset, SEEK_HOLE),
            ENXIO,
        )?;
    }
    Ok(())
}

fn sync(_: &Setup) -> Outcome {
    for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
        let fd = device::open(flags)?;
        // SAFETY: No pointers.
        unsafe {
            check(libc::fsync(fd.as_raw_fd()))?;
            check(libc::fdatasync(fd.as_raw_fd()))?;
        }
    }
    equal(
        "write with O_SYNC",
        pwrite(&device::open(O_RDWR | libc::O_SYNC)?, 0, b"x")?,
        1,
    )
}

fn append(setup: &Setup) -> Outcome {
    let before = contents(&device::open(O_RDONLY)?, setup)?;
    let fd = device::open(O_RDWR | libc::O_APPEND | libc::O_TRUNC)?;
    same_bytes("after O_TRUNC", &contents(&fd, setup)?, &before)?;
    equal("write", write(&fd, b"first")?, 5)?;
    equal("write", write(&fd, b"second")?, 6)?;
    same_bytes("start of the device", &pread(&fd, 0, 11)?, b"firstsecond")?;
    // SAFETY: No pointers.
    refused(
        "ftruncate",
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), 0) }),
        EINVAL,
    )?;
    refused(
        "O_EXCL",
        device::open(O_RDWR | libc::O_CREAT | libc::O_EXCL),
        libc::EEXIST,
    )
}

/// An open pipe with room for `len` bytes.
pub fn pipe(len: usize) -> Outcome<(OwnedFd, OwnedFd)> {
    use std::os::fd::FromRawFd;

    let mut ends = [0; 2];
    // SAFETY: There is room for two descriptors, which are then ours.
    let (reader, writer) = unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    // SAFETY: No pointers.
    check(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, len as c_int) })?;
    Ok((reader, writer))
}

/// An empty file in memory.
pub fn memfd() -> Outcome<OwnedFd> {
    use std::os::fd::FromRawFd;

    // SAFETY: The name is a C string; the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(check(libc::memfd_create(c"test".as_ptr(), 0))? as c_int) })
}

const PIPE: usize = 1 << 18;

fn splice_out(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let all = contents(&fd, setup)?;
    let (reader, writer) = pipe(PIPE)?;
    let (reader2, writer2) = pipe(PIPE)?;
    for start in [0usize, 1, 4095, 5000] {
        let mut position = start as i64;
        // SAFETY: The position is ours.
        let moved = count(unsafe {
            libc::splice(
                fd.as_raw_fd(),
                &raw mut position,
                writer.as_raw_fd(),
                ptr::null_mut(),
                40_000,
                0,
            )
        })?;
        equal("position", position as usize, start + moved)?;
        // SAFETY: No pointers.
        equal(
            "tee",
            count(unsafe { libc::tee(reader.as_raw_fd(), writer2.as_raw_fd(), moved, 0) })?,
            moved,
        )?;
        same_bytes("spliced", &read(&reader, PIPE)?, &all[start..start + moved])?;
        same_bytes("tee'd", &read(&reader2, PIPE)?, &all[start..start + moved])?;
    }
    let mut position = setup.size as i64 - 10;
    // SAFETY: As above.
    let moved = count(unsafe {
        libc::splice(
            fd.as_raw_fd(),
            &raw mut position,
            writer.as_raw_fd(),
            ptr::null_mut(),
            100,
            0,
        )
    })?;
    equal("bytes spliced at the end", moved, 10)?;
    // SAFETY: As above.
    let moved = count(unsafe {
        libc::splice(
            fd.as_raw_fd(),
            &raw mut position,
            writer.as_raw_fd(),
            ptr::null_mut(),
            100,
            0,
        )
    })?;
    equal("bytes spliced behind that", moved, 0)?;

    let file = memfd()?;
    let mut position = 0;
    while (position as usize) < all.len() {
        // SAFETY: As above.
        let moved = unsafe {
            libc::sendfile(
                file.as_raw_fd(),
                fd.as_raw_fd(),
                &raw mut position,
                all.len(),
            )
        };
        ensure("sendfile sent nothing", count(moved)? > 0)?;
    }
    same_bytes("sent", &pread(&file, 0, all.len() + 1)?, &all)
}

fn splice_in(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    let (reader, writer) = pipe(PIPE)?;
    for start in [0usize, 1, 4095, 5000] {
        let bytes = noise(start, 20_000);
        equal("write to the pipe", write(&writer, &bytes)?, bytes.len())?;
        let mut position = start as i64;
        let mut left = bytes.len();
        while left > 0 {
            // SAFETY: The position is ours.
            let moved = count(unsafe {
                libc::splice(
                    reader.as_raw_fd(),
                    ptr::null_mut(),
                    fd.as_raw_fd(),
                    &raw mut position,
                    left,
                    0,
                )
            })?;
            ensure("splice moved nothing", moved > 0)?;
            left -= moved;
        }
        all[start..start + bytes.len()].copy_from_slice(&bytes);
        same_bytes(format!("spliced to {start}"), &contents(&fd, setup)?, &all)?;
    }
    let file = memfd()?;
    let bytes = noise(7, 50_000);
    equal("pwrite", pwrite(&file, 0, &bytes)?, bytes.len())?;
    lseek(&fd, 3, SEEK_SET)?;
    let mut position = 0;
    while (position as usize) < bytes.len() {
        // SAFETY: As above.
        let moved = unsafe {
            libc::sendfile(
                fd.as_raw_fd(),
                file.as_raw_fd(),
                &raw mut position,
                bytes.len(),
            )
        };
        ensure("sendfile sent nothing", count(moved)? > 0)?;
    }
    all[3..3 + bytes.len()].copy_from_slice(&bytes);
    same_bytes("sent", &contents(&fd, setup)?, &all)
}

/// Submits one entry and waits for its result.
pub fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Outcome<i32> {
    // SAFETY: What the entry points to outlives this call, which waits for its completion.
    let pushed = unsafe { ring.submission().push(entry) };
    ensure("the queue is full", pushed.is_ok())?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next();
    Ok(completion.expect("waited for").result())
}

fn uring(setup: &Setup) -> Outcome {
    const LEN: usize = 10_000;
    let fd = device::open(O_RDWR)?;
    let mut all = contents(&fd, setup)?;
    let mut ring = IoUring::new(4)?;
    let file = types::Fd(fd.as_raw_fd());
    let mut bytes = vec![0; LEN];

    let entry = opcode::Read::new(file, bytes.as_mut_ptr(), LEN as u32)
        .offset(4001)
        .build();
    equal("read", submit(&mut ring, &entry)?, LEN as i32)?;
    same_bytes("read", &bytes, &all[4001..4001 + LEN])?;

    bytes = noise(8, LEN);
    let entry = opcode::Write::new(file, bytes.as_ptr(), LEN as u32)
        .offset(9000)
        .build();
    equal("write", submit(&mut ring, &entry)?, LEN as i32)?;
    all[9000..9000 + LEN].copy_from_slice(&bytes);
    same_bytes("after write", &contents(&fd, setup)?, &all)?;

    let (head, tail) = bytes.split_at_mut(3);
    let parts = [iovec(head), iovec(tail)];
    let entry = opcode::Readv::new(file, parts.as_ptr(), 2)
        .offset(1)
        .build();
    equal("readv", submit(&mut ring, &entry)?, LEN as i32)?;
    same_bytes("readv", &bytes, &all[1..1 + LEN])?;

    let buffers = [iovec(&mut bytes)];
    // SAFETY: The buffer outlives the ring's use of it.
    unsafe { ring.submitter().register_buffers(&buffers)? };
    let entry = opcode::ReadFixed::new(file, bytes.as_mut_ptr(), LEN as u32, 0)
        .offset(777)
        .build();
    equal(
        "read into a registered buffer",
        submit(&mut ring, &entry)?,
        LEN as i32,
    )?;
    same_bytes(
        "read into a registered buffer",
        &bytes,
        &all[777..777 + LEN],
    )?;
    bytes.copy_from_slice(&noise(9, LEN));
    let entry = opcode::WriteFixed::new(file, bytes.as_ptr(), LEN as u32, 0)
        .offset(20_001)
        .build();
    equal(
        "write from a registered buffer",
        submit(&mut ring, &entry)?,
        LEN as i32,
    )?;
    all[20_001..20_001 + LEN].copy_from_slice(&bytes);
    same_bytes("after that", &contents(&fd, setup)?, &all)?;

    let entry = opcode::Write::new(file, bytes.as_ptr(), 1)
        .offset(setup.size)
        .build();
    equal("write at the end", submit(&mut ring, &entry)?, -ENOSPC)?;
    let entry = opcode::Fsync::new(file).build();
    equal("fsync", submit(&mut ring, &entry)?, 0)
}

fn node(setup: &Setup) -> Outcome {
    let devices = fs::read_to_string("/proc/devices")?;
    let major = devices
        .lines()
        .find_map(|line| line.strip_suffix(" mapdrv")?.trim().parse().ok());
    let major: u32 = major.ok_or_else(|| crate::check::wrong("no major"))?;
    let path = "/tmp/by-hand";
    let make = |minor| {
        let _ = fs::remove_file(path);
        let name = CString::new(path)?;
        // SAFETY: The name is a C string.
        check(unsafe {
            libc::mknod(
                name.as_ptr(),
                libc::S_IFCHR | 0o600,
                libc::makedev(major, minor),
            )
        })?;
        sys::open(path, O_RDWR)
    };
    for minor in 0..setup.devices {
        let ours = make(minor)?;
        equal("minor", device::info(&ours)?.minor, minor)?;
        let theirs = sys::open(&device::path(minor), O_RDONLY)?;
        pwrite(&ours, 0, &noise(minor as usize + 20, 100))?;
        same_bytes(
            "a write through it",
            &pread(&theirs, 0, 100)?,
            &noise(minor as usize + 20, 100),
        )?;
    }
    for minor in [setup.devices, 64, 1 << 19] {
        refused(format!("minor {minor}"), make(minor), ENXIO)?;
    }
    Ok(fs::remove_file(path)?)
}
