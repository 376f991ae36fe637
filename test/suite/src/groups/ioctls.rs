// SPDX-License-Identifier: GPL-2.0

//! ioctls: structures that grow, and every way to get a call wrong.

use crate::check::{Outcome, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::pattern::PAGE;
use crate::sys::{self, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_NONE, PROT_READ, RW};
use crate::uapi::{
    IOC_INFO, IOC_MIN_SIZE, IOC_NR_INFO, IOC_NR_STATS, IOC_NR_WALK, IOC_STATS, IOC_TYPE, IOC_WALK,
    Info, Stats, Walk, iowr,
};
use libc::{E2BIG, EFAULT, EINVAL, ENOTTY};
use std::os::fd::OwnedFd;

tests! {
    "all calls work on descriptors of any mode": modes,
    "a shorter structure is answered with the fields it has, and nothing behind it is touched": shorter,
    "a longer structure whose tail is zero is answered, its tail still zero": longer,
    "a longer structure with anything in its tail is E2BIG and left as it was": too_big,
    "a structure without the fields that are read is EINVAL": too_short,
    "unknown flags are EINVAL": flags,
    "an unknown number, type or direction is ENOTTY, and so are other devices' calls": unknown,
    "memory that is not there, or only half of it, is EFAULT": bad_pointer,
    "memory that can only be read is EFAULT": read_only,
    "a structure may lie at any address": unaligned,
}

/// Every call, with the size of its structure as this version knows it.
const CALLS: [(u32, usize); 3] = [
    (IOC_NR_INFO, size_of::<Info>()),
    (IOC_NR_WALK, size_of::<Walk>()),
    (IOC_NR_STATS, size_of::<Stats>()),
];

fn call(fd: &OwnedFd, nr: u32, bytes: &mut [u8]) -> std::io::Result<()> {
    sys::ioctl(fd, iowr(nr, bytes.len()), bytes.as_mut_ptr() as usize).map(drop)
}

fn modes(setup: &Setup) -> Outcome {
    for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
        let fd = device::open(flags)?;
        equal("info", device::info(&fd)?.size, setup.size)?;
        device::walk(&fd, 0)?;
        device::stats(&fd)?;
    }
    // A descriptor that is only a path is no open file.
    refused(
        "O_PATH",
        device::info(&device::open(libc::O_PATH)?),
        libc::EBADF,
    )
}

fn shorter(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for (nr, known) in CALLS {
        let mut full = vec![0; known];
        call(&fd, nr, &mut full)?;
        for size in IOC_MIN_SIZE..known {
            let mut memory = vec![0xee; known];
            memory[..size].fill(0);
            call(&fd, nr, &mut memory[..size])?;
            same_bytes(
                format!("call {nr}, {size} bytes"),
                &memory[..size],
                &full[..size],
            )?;
            same_bytes("behind them", &memory[size..], &vec![0xee; known - size])?;
        }
    }
    Ok(())
}

fn longer(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for (nr, known) in CALLS {
        let mut full = vec![0; known];
        call(&fd, nr, &mut full)?;
        for size in [
            known + 1,
            known + 7,
            known + 8,
            known + 63,
            known + 64,
            known + 65,
            4096,
            16_383,
        ] {
            let mut memory = vec![0xee; size + 8];
            memory[..size].fill(0);
            call(&fd, nr, &mut memory[..size])?;
            same_bytes(format!("call {nr}, {size} bytes"), &memory[..known], &full)?;
            same_bytes("tail", &memory[known..size], &vec![0; size - known])?;
            same_bytes("behind it", &memory[size..], &[0xee; 8])?;
        }
    }
    Ok(())
}

fn too_big(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for (nr, known) in CALLS {
        let size = known + 150;
        for at in known..size {
            let mut memory = vec![0; size];
            memory[at] = 1;
            let before = memory.clone();
            refused(
                format!("call {nr}, byte {at} of {size} set"),
                call(&fd, nr, &mut memory),
                E2BIG,
            )?;
            same_bytes("structure", &memory, &before)?;
        }
    }
    Ok(())
}

fn too_short(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for (nr, _) in CALLS {
        for size in 0..IOC_MIN_SIZE {
            let mut memory = vec![0; size];
            refused(
                format!("call {nr}, {size} bytes"),
                call(&fd, nr, &mut memory),
                EINVAL,
            )?;
        }
    }
    Ok(())
}

fn flags(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    for (nr, known) in CALLS {
        for bit in 0..64 {
            let mut memory = vec![0; known];
            memory[..8].copy_from_slice(&(1u64 << bit).to_ne_bytes());
            let before = memory.clone();
            refused(
                format!("call {nr}, flag {bit}"),
                call(&fd, nr, &mut memory),
                EINVAL,
            )?;
            same_bytes("structure", &memory, &before)?;
        }
    }
    Ok(())
}

fn unknown(_: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    let memory = [0u64; 64];
    let at = memory.as_ptr() as usize;
    let known: Vec<u32> = CALLS.iter().map(|&(nr, _)| nr).collect();
    for nr in (0..256).filter(|nr| !known.contains(nr)) {
        refused(
            format!("number {nr}"),
            sys::ioctl(&fd, iowr(nr, 72), at),
            ENOTTY,
        )?;
    }
    for cmd in [IOC_INFO, IOC_WALK, IOC_STATS] {
        for kind in (0..256).filter(|&kind| kind != IOC_TYPE && kind != u32::from(b'T')) {
            let other = (cmd & !(0xff << 8)) | (kind << 8);
            refused(
                format!("type {kind:#x}"),
                sys::ioctl(&fd, other, at),
                ENOTTY,
            )?;
        }
        for direction in 0..3 {
            let other = (cmd & !(3 << 30)) | (direction << 30);
            refused(
                format!("direction {direction}"),
                sys::ioctl(&fd, other, at),
                ENOTTY,
            )?;
        }
    }
    for cmd in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD] {
        refused(format!("{cmd:#x}"), sys::ioctl(&fd, cmd as u32, at), ENOTTY)?;
    }
    Ok(())
}

fn bad_pointer(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let map = Map::anonymous(2 * PAGE, RW)?;
    map.protect(PAGE, PAGE, PROT_NONE)?;
    for (nr, known) in CALLS {
        for at in [
            0,
            1,
            map.addr + PAGE,
            0xffff_8880_0000_0000,
            usize::MAX,
            usize::MAX - known + 1,
            1 << 63,
        ] {
            refused(
                format!("call {nr} at {at:#x}"),
                sys::ioctl(&fd, iowr(nr, known), at),
                EFAULT,
            )?;
        }
        for part in [1, 8, IOC_MIN_SIZE, IOC_MIN_SIZE + 1, known - 1] {
            let at = map.addr + PAGE - part;
            refused(
                format!("call {nr}, {part} bytes there"),
                sys::ioctl(&fd, iowr(nr, known), at),
                EFAULT,
            )?;
        }
        // What such a call got to write is not taken back.
        map.write(0, &[0; PAGE]);
        let at = map.addr + PAGE - known - 100;
        refused(
            "a long one",
            sys::ioctl(&fd, iowr(nr, known + 200), at),
            EFAULT,
        )?;
    }
    Ok(())
}

fn read_only(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let map = Map::anonymous(PAGE, PROT_READ)?;
    for (nr, known) in CALLS {
        refused(
            format!("call {nr}"),
            sys::ioctl(&fd, iowr(nr, known), map.addr),
            EFAULT,
        )?;
    }
    Ok(())
}

fn unaligned(_: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let map = Map::anonymous(2 * PAGE, RW)?;
    for (nr, known) in CALLS {
        let mut expected = vec![0; known];
        call(&fd, nr, &mut expected)?;
        for offset in [1, 3, 4, PAGE - 5, PAGE - known + 1] {
            map.write(offset, &vec![0; known]);
            sys::ioctl(&fd, iowr(nr, known), map.addr + offset)?;
            same_bytes(
                format!("call {nr} at {offset}"),
                &map.bytes(offset, known),
                &expected,
            )?;
        }
    }
    Ok(())
}
