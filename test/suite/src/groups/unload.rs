// SPDX-License-Identifier: GPL-2.0

//! Unloading is refused as long as anything of the driver's is in use, and works after that.

use crate::check::{Outcome, equal, refused};
use crate::device::{self, Setup};
use crate::module::{self, Loaded};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, PROT_READ};
use std::fs::{self, File};

tests! {
    "rmmod works on a module that nobody uses": unused,
    "rmmod is refused while a file is open": open,
    "rmmod is refused while only a mapping is left": mapped,
    "rmmod is refused until the last of file and mapping is gone, in either order": either_order,
    "rmmod is refused until the last piece of a split mapping is gone": pieces,
    "rmmod is refused while a moved mapping is left": moved,
    "rmmod is refused while a child has the mapping, and works after its exit": forked,
    "rmmod is refused while a killed child was holding it, and works after": killed,
    "rmmod is refused while a duplicate, or one in flight through a socket, is left": duplicates,
    "rmmod is refused while a descriptor is in an epoll set, and works after": epoll,
    "a mapping left alone keeps its contents while rmmod is tried": contents,
    "rmmod is refused while a file in debugfs is open, and works after": debugfs,
    "pages that io_uring holds outlive mapping, file and module": pinned,
    "a file in sysfs that is open while the module goes can be read without harm": sysfs,
}

#[track_caller]
fn busy(what: &str) -> Outcome {
    refused(
        format!("rmmod with {what}"),
        module::remove(module::NAME),
        libc::EWOULDBLOCK,
    )
}

fn load(setup: &Setup) -> Outcome<Loaded> {
    Ok(Loaded::new(&setup.params)?)
}

fn map(flags: i32) -> Outcome<Map> {
    Ok(Map::new(
        &device::open(O_RDONLY)?,
        0,
        16 * PAGE,
        PROT_READ,
        flags,
    )?)
}

fn unused(setup: &Setup) -> Outcome {
    load(setup)?.unload()?;
    let loaded = load(setup)?;
    device::mapped(setup)?.touch();
    loaded.unload()?;
    equal("traces", module::traces()?, vec![])
}

fn open(setup: &Setup) -> Outcome {
    for flags in [O_RDONLY, libc::O_WRONLY, O_RDWR] {
        let loaded = load(setup)?;
        let fd = device::open(flags)?;
        busy("an open file")?;
        drop(fd);
        loaded.unload()?;
    }
    Ok(())
}

fn mapped(setup: &Setup) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        for touch in [false, true] {
            let loaded = load(setup)?;
            let map = map(flags)?;
            if touch {
                map.touch();
            }
            busy("a mapping")?;
            drop(map);
            loaded.unload()?;
        }
    }
    Ok(())
}

fn either_order(setup: &Setup) -> Outcome {
    for file_first in [false, true] {
        let loaded = load(setup)?;
        let fd = device::open(O_RDONLY)?;
        let map = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?;
        map.touch();
        busy("both")?;
        if file_first {
            drop(fd);
            busy("the mapping")?;
            drop(map);
        } else {
            drop(map);
            busy("the file")?;
            drop(fd);
        }
        loaded.unload()?;
    }
    Ok(())
}

fn pieces(setup: &Setup) -> Outcome {
    // Pages 5 and 10 go first, then the rest, in every order of three.
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let loaded = load(setup)?;
        let map = map(MAP_SHARED)?;
        map.touch();
        map.unmap(5 * PAGE, PAGE)?;
        map.unmap(10 * PAGE, PAGE)?;
        for piece in order {
            busy("a piece")?;
            let (start, end) = [(0, 5), (6, 10), (11, 16)][piece];
            map.unmap(start * PAGE, (end - start) * PAGE)?;
        }
        loaded.unload()?;
    }
    Ok(())
}

fn moved(setup: &Setup) -> Outcome {
    let loaded = load(setup)?;
    let mut map = map(MAP_SHARED)?;
    map.touch();
    let place = Map::anonymous(map.len, PROT_READ)?;
    map.remap(
        map.len,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        place.addr,
    )?;
    std::mem::forget(place);
    busy("a moved mapping")?;
    map.remap(PAGE, 0, 0)?;
    busy("a shrunk mapping")?;
    drop(map);
    Ok(loaded.unload()?)
}

fn forked(setup: &Setup) -> Outcome {
    for touch in [false, true] {
        let loaded = load(setup)?;
        let map = map(MAP_SHARED)?;
        if touch {
            map.touch();
        }
        let mut child = Child::new(|line| {
            line.say()?;
            line.hear()
        })?;
        child.line.hear()?;
        drop(map);
        busy("a child's mapping")?;
        child.line.say()?;
        child.end()?;
        loaded.unload()?;
    }
    // The other way round: the child goes first.
    let loaded = load(setup)?;
    let map = map(MAP_PRIVATE)?;
    process::in_child(|| {
        map.touch();
        Ok(())
    })?;
    busy("the parent's mapping")?;
    drop(map);
    Ok(loaded.unload()?)
}

fn killed(setup: &Setup) -> Outcome {
    let loaded = load(setup)?;
    let mut child = Child::new(|line| {
        let fd = device::open(O_RDWR)?;
        let map = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?;
        map.touch();
        line.say()?;
        line.hear()
    })?;
    child.line.hear()?;
    busy("a child's file")?;
    // SAFETY: The child is ours and has not been waited for.
    unsafe { libc::kill(child.pid, libc::SIGKILL) };
    process::wait(child.pid)?;
    Ok(loaded.unload()?)
}

fn duplicates(setup: &Setup) -> Outcome {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    let loaded = load(setup)?;
    let fd = device::open(O_RDONLY)?;
    let copy = fd.try_clone()?;
    drop(fd);
    busy("a duplicate")?;

    let (one, other) = UnixStream::pair()?;
    let byte = IoSlice::new(b".");
    let mut control = [0u64; 3];
    let mut message = libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: (&raw const byte).cast_mut().cast(),
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&control),
        msg_flags: 0,
    };
    // SAFETY: The control buffer has room for one header with a descriptor: 16 and 4 bytes, padded.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(copy.as_raw_fd());
        libc::sendmsg(one.as_raw_fd(), &raw mut message, 0)
    };
    equal("sendmsg", sys::count(sent)?, 1)?;
    drop(copy);
    busy("a descriptor in flight")?;
    drop((one, other));
    Ok(loaded.unload()?)
}

fn epoll(setup: &Setup) -> Outcome {
    use std::os::fd::AsRawFd;

    let loaded = load(setup)?;
    let fd = device::open(O_RDONLY)?;
    // SAFETY: No pointers.
    let epoll = sys::check(unsafe { libc::epoll_create1(0) })? as i32;
    let mut event = libc::epoll_event {
        events: libc::EPOLLPRI as u32,
        u64: 0,
    };
    // SAFETY: The event is valid for the call.
    sys::check(unsafe {
        libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
    })?;
    busy("an open file")?;
    // The set holds no reference: it forgets the file when it is closed.
    drop(fd);
    loaded.unload()?;
    // SAFETY: The event is valid for the call.
    equal(
        "events",
        sys::check(unsafe { libc::epoll_wait(epoll, &raw mut event, 1, 0) })?,
        0,
    )
}

fn contents(setup: &Setup) -> Outcome {
    let loaded = load(setup)?;
    let map = map(MAP_SHARED)?;
    for page in 0..map.pages() {
        busy("a mapping")?;
        equal(
            "page",
            map.bytes(page * PAGE, PAGE),
            setup.pattern(0).page(page as u64).to_vec(),
        )?;
    }
    drop(map);
    Ok(loaded.unload()?)
}

/// All files below a directory.
fn files(top: &str) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        let path = entry.path().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.extend(files(&path)?);
        } else if entry.file_type()?.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

fn debugfs(setup: &Setup) -> Outcome {
    let loaded = load(setup)?;
    let paths = files("/sys/kernel/debug/mapdrv")?;
    loaded.unload()?;
    for path in paths {
        let loaded = load(setup)?;
        let file = File::open(&path)?;
        busy(&path)?;
        drop(file);
        loaded.unload()?;
    }
    Ok(())
}

fn sysfs(setup: &Setup) -> Outcome {
    let loaded = load(setup)?;
    let mut paths = files("/sys/class/mapdrv/mapdrv0/")?;
    paths.extend(files("/sys/module/map_driver/")?);
    loaded.unload()?;
    for path in paths {
        let loaded = load(setup)?;
        let Ok(file) = File::open(&path) else {
            loaded.unload()?;
            continue;
        };
        let fd = file;
        let _ = sys::pread(&fd, 0, 4096);
        match loaded.unload() {
            // It is gone: the file answers, with an error or what it had.
            Ok(()) => drop(sys::pread(&fd, 0, 4096)),
            Err(error) => {
                equal(&path, error.raw_os_error(), Some(libc::EWOULDBLOCK))?;
                drop(fd);
                module::remove(module::NAME)?;
            }
        }
    }
    Ok(())
}

fn pinned(setup: &Setup) -> Outcome {
    use super::files::{memfd, submit};
    use io_uring::{IoUring, opcode, types};
    use std::os::fd::AsRawFd;

    let loaded = load(setup)?;
    let (fd, map) = device::open_and_map(setup)?;
    let mut ring = IoUring::new(4)?;
    let (at, len) = (map.addr, map.len);
    let buffer = libc::iovec {
        iov_base: at as *mut _,
        iov_len: len,
    };
    // SAFETY: The ring keeps the pages, not the addresses.
    unsafe { ring.submitter().register_buffers(&[buffer])? };
    drop((map, fd));
    loaded.unload()?;
    // Memory that was freed would now be somebody else's.
    Map::anonymous(64 << 20, sys::RW)?.touch();
    let file = memfd()?;
    let entry =
        opcode::WriteFixed::new(types::Fd(file.as_raw_fd()), at as *const u8, len as u32, 0)
            .offset(0)
            .build();
    equal("written", submit(&mut ring, &entry)?, len as i32)?;
    equal(
        "contents",
        sys::pread(&file, 0, len)?,
        setup.pattern(0).all(),
    )
}
