// SPDX-License-Identifier: GPL-2.0

//! A descriptor that is only for reading never lets anything be written, whatever is done with it.

use super::{receive, send, slow, take_from};
use crate::check::{Outcome, ensure, equal, refused, same_bytes};
use crate::device::{self, Setup};
use crate::groups::files::{contents, memfd, pipe, submit};
use crate::pattern::PAGE;
use crate::process::{self, Child};
use crate::sys::{
    self, MAP_PRIVATE, MAP_SHARED, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_NONE,
    PROT_READ, PROT_WRITE, RW, count, pread, pwrite,
};
use crate::uapi::IOC_INFO;
use io_uring::{IoUring, opcode, types};
use libc::{EACCES, EBADF, EINVAL};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_long, c_void};
use std::fs;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

tests! {
    "each way of writing to a mapping that the search below tries does write to one that is writable": control,
    "no sequence of calls makes a shared mapping of a read-only descriptor writable": shared,
    "no sequence of calls makes writes to a private mapping of a read-only descriptor reach the device": private,
    "neither F_SETFL nor duplicates make a read-only descriptor writable": duplicates,
    "opening a read-only descriptor again by /proc takes the permissions of the node": reopen,
    "a read-only descriptor stays so when it is passed over a socket, to root as well": passed,
    "a read-only descriptor stays so when it is taken from another process": taken,
    "system calls that write to a file refuse a read-only descriptor": calls,
}

/// How long the sequences are that are tried: 3; less where it takes long, and where most of what
/// differs is how the first page is mapped.
fn depth(setup: &Setup) -> usize {
    3 - usize::from(slow()) - usize::from(setup.params.contains("huge=1"))
}

/// Where attacks go to, and with what. The first part of the place is a mapping of the device; the
/// second is where it may be moved to.
struct Place {
    fd: OwnedFd,
    len: usize,
    at: usize,
    /// What the tracer is told: where to write.
    told: Map,
    traced: bool,
    mem: OwnedFd,
    bytes: OwnedFd,
    pipe: (OwnedFd, OwnedFd),
    ring: RefCell<IoUring>,
    uffd: Option<OwnedFd>,
    salt: Cell<u8>,
    _reserved: Map,
}

const HUGE: usize = 2 << 20;

/// How far behind each of [`targets`] there are zeroes, as an ioctl wants them.
const ZEROES: usize = 2048;

impl Place {
    fn new(fd: OwnedFd, len: usize, told: Map, traced: bool) -> Outcome<Self> {
        let reserved = Map::anonymous(2 * len + 3 * HUGE, PROT_NONE)?;
        let bytes = memfd()?;
        // SAFETY: No pointers.
        let uffd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) } as c_int;
        let uffd = (uffd >= 0).then(|| {
            // SAFETY: It is new.
            unsafe { OwnedFd::from_raw_fd(uffd) }
        });
        if let Some(uffd) = &uffd {
            let mut api = [0xaa, 0, 0u64];
            sys::ioctl(uffd, 0xc018_aa3f, api.as_mut_ptr() as usize)?;
        }
        Ok(Self {
            fd,
            len,
            at: reserved.addr.next_multiple_of(HUGE),
            told,
            traced,
            mem: sys::open("/proc/self/mem", O_RDWR)?,
            bytes,
            pipe: pipe(PAGE)?,
            ring: RefCell::new(IoUring::new(4)?),
            uffd,
            salt: Cell::new(0),
            _reserved: reserved,
        })
    }

    /// Where the mapping may be moved to.
    fn other(&self) -> usize {
        self.at + self.len.next_multiple_of(HUGE)
    }

    /// Makes the mapping afresh; nothing else is left in the place.
    fn reset(&self, prot: c_int, flags: c_int) -> Outcome {
        let none = MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let len = self.other() - self.at + self.len;
        mem::forget(Map::at(self.at, -1, 0, len, PROT_NONE, none)?);
        let fd = self.fd.as_raw_fd();
        let flags = flags | libc::MAP_FIXED;
        mem::forget(Map::at(self.at, fd, 0, self.len, prot, flags)?);
        Ok(())
    }

    /// A number that is not the last one's.
    fn word(&self) -> u64 {
        self.salt.set(self.salt.get().wrapping_add(1));
        u64::from_ne_bytes([self.salt.get(); 8])
    }

    /// Has the tracer write to all the [`targets`], in all ways that it has.
    fn by_tracer(&self) {
        if self.traced {
            self.told.put(0, self.word());
            for (n, addr) in targets(self).into_iter().enumerate() {
                self.told.put(8 + 8 * n, addr as u64);
            }
            // SAFETY: No pointers. The tracer keeps the signal for itself.
            unsafe { libc::raise(libc::SIGTRAP) };
        }
    }
}

/// A system call whose outcome does not matter.
///
/// Every argument is made as wide as a register: what is passed on the stack, the sixth, is otherwise
/// half of it left over from before.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: What it may change is the place of the search, or nothing.
        let _ = unsafe { libc::syscall($number $(, $argument as c_long)*) };
    };
}

/// A way of writing to memory, and whether it works where memory can be written.
type Attack = (&'static str, bool, fn(&Place, usize));

const ATTACKS: [Attack; 14] = [
    ("a store", true, |place, addr| {
        store(addr, place.word() as u8)
    }),
    ("/proc/self/mem", true, |place, addr| {
        let _ = pwrite(&place.mem, addr as i64, &place.word().to_ne_bytes());
    }),
    ("process_vm_writev", true, |place, addr| {
        let word = place.word();
        let (from, to) = (part(&raw const word as usize), part(addr));
        // SAFETY: No pointers.
        let pid = unsafe { libc::getpid() };
        call!(
            libc::SYS_process_vm_writev,
            pid,
            &raw const from,
            1,
            &raw const to,
            1,
            0
        );
    }),
    ("a read of a file", true, |place, addr| {
        let _ = pwrite(&place.bytes, 0, &place.word().to_ne_bytes());
        call!(libc::SYS_pread64, place.bytes.as_raw_fd(), addr, 8, 0);
    }),
    ("a read of the device itself", true, |place, addr| {
        call!(
            libc::SYS_pread64,
            place.fd.as_raw_fd(),
            addr,
            8,
            128 + place.word() % 64
        );
    }),
    ("an ioctl of the device itself", true, |place, addr| {
        let cmd = c_long::from(IOC_INFO);
        call!(libc::SYS_ioctl, place.fd.as_raw_fd(), cmd, addr + ZEROES);
    }),
    ("getrandom", true, |_, addr| {
        call!(libc::SYS_getrandom, addr, 8, 0);
    }),
    ("an atomic operation of a futex", true, |place, addr| {
        let set = (libc::FUTEX_OP_ADD << 28) | (1 << 12);
        let op = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
        call!(libc::SYS_futex, place.told.addr, op, 1, 1, addr, set);
    }),
    ("vmsplice out of a pipe", true, |place, addr| {
        let word = place.word();
        let (reader, writer) = &place.pipe;
        call!(libc::SYS_write, writer.as_raw_fd(), &raw const word, 8);
        let to = part(addr);
        call!(libc::SYS_vmsplice, reader.as_raw_fd(), &raw const to, 1, 0);
        drain(reader);
    }),
    (
        "a page given to a pipe, spliced to a file and written there",
        false,
        |place, addr| {
            let (reader, writer) = &place.pipe;
            let page = libc::iovec {
                iov_base: (addr & !(PAGE - 1)) as *mut c_void,
                iov_len: PAGE,
            };
            call!(
                libc::SYS_vmsplice,
                writer.as_raw_fd(),
                &raw const page,
                1,
                libc::SPLICE_F_GIFT
            );
            let none = ptr::null::<i64>();
            let mut to = 0i64;
            let file = place.bytes.as_raw_fd();
            let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
            call!(
                libc::SYS_splice,
                reader.as_raw_fd(),
                none,
                file,
                &raw mut to,
                PAGE,
                flags
            );
            let _ = pwrite(&place.bytes, 0, &place.word().to_ne_bytes());
            drain(reader);
        },
    ),
    ("an io_uring read", true, |place, addr| {
        let _ = pwrite(&place.bytes, 0, &place.word().to_ne_bytes());
        let file = types::Fd(place.bytes.as_raw_fd());
        let entry = opcode::Read::new(file, addr as *mut u8, 8)
            .offset(0)
            .build();
        let _ = submit(&mut place.ring.borrow_mut(), &entry);
    }),
    (
        "an io_uring read into a registered buffer",
        true,
        |place, addr| {
            let _ = pwrite(&place.bytes, 0, &place.word().to_ne_bytes());
            let mut ring = place.ring.borrow_mut();
            // SAFETY: The buffer is taken back below.
            if unsafe { ring.submitter().register_buffers(&[part(addr)]) }.is_ok() {
                let file = types::Fd(place.bytes.as_raw_fd());
                let entry = opcode::ReadFixed::new(file, addr as *mut u8, 8, 0)
                    .offset(0)
                    .build();
                let _ = submit(&mut ring, &entry);
                let _ = ring.submitter().unregister_buffers();
            }
        },
    ),
    ("a copy by userfaultfd", false, |place, addr| {
        if let Some(uffd) = &place.uffd {
            let page = addr & !(PAGE - 1);
            let mut copy = [page, place.told.addr, PAGE, 0, 0];
            let _ = sys::ioctl(uffd, 0xc028_aa03, copy.as_mut_ptr() as usize);
            let mut zero = [page, PAGE, 0, 0];
            let _ = sys::ioctl(uffd, 0xc020_aa04, zero.as_mut_ptr() as usize);
        }
    }),
    ("recvmsg", true, |place, addr| {
        let Ok((one, other)) = UnixStream::pair() else {
            return;
        };
        let word = place.word();
        call!(libc::SYS_write, one.as_raw_fd(), &raw const word, 8);
        call!(libc::SYS_recvfrom, other.as_raw_fd(), addr, 8, 0, 0, 0);
    }),
];

fn part(addr: usize) -> libc::iovec {
    libc::iovec {
        iov_base: addr as *mut c_void,
        iov_len: 8,
    }
}

fn drain(pipe: &OwnedFd) {
    // SAFETY: No pointers.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mut rest = [0u8; PAGE];
    // SAFETY: The buffer is as long as said.
    while unsafe { libc::read(pipe.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) } > 0 {}
}

/// Stores a byte, or does nothing where that is a fault: see [`skip_faults`].
fn store(addr: usize, value: u8) {
    // SAFETY: The address is in the place of the search.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov byte ptr [rdi], sil", in("rdi") addr, in("rsi") u64::from(value));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("strb w1, [x0]", in("x0") addr, in("x1") u64::from(value));
    }
}

/// Has a fault skip the instruction, which must be one of [`store`].
fn skip_faults() {
    unsafe extern "C" fn skip(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: This is what the kernel passes.
        unsafe {
            let context = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
            #[cfg(target_arch = "x86_64")]
            {
                context.gregs[libc::REG_RIP as usize] += 3;
            }
            #[cfg(target_arch = "aarch64")]
            {
                context.pc += 4;
            }
        }
    }
    // SAFETY: The handler is one for SA_SIGINFO; zeroes are a valid action.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = skip as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

/// What changes a mapping.
type Step = (&'static str, fn(&Place));

/// How many of [`STEPS`], from the first, are tried in sequences longer than two.
const MAIN: usize = 8;

/// What may be done to a mapping between attacks.
const STEPS: [Step; 14] = [
    ("mprotect", |place| {
        for prot in [RW, PROT_WRITE, RW | PROT_EXEC] {
            call!(libc::SYS_mprotect, place.at, place.len, prot);
            call!(libc::SYS_mprotect, place.at + PAGE, PAGE, prot);
            call!(libc::SYS_mprotect, place.other(), place.len, prot);
            call!(libc::SYS_pkey_mprotect, place.at, PAGE, prot, 0);
            call!(libc::SYS_pkey_mprotect, place.at, PAGE, prot, -1);
        }
    }),
    ("mremap move", |place| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        call!(
            libc::SYS_mremap,
            place.at,
            place.len,
            place.len,
            flags,
            place.other()
        );
    }),
    ("mremap copy", |place| {
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        call!(
            libc::SYS_mremap,
            place.at,
            0,
            place.len,
            fixed,
            place.other()
        );
        let leave = fixed | libc::MREMAP_DONTUNMAP;
        call!(
            libc::SYS_mremap,
            place.at,
            place.len,
            place.len,
            leave,
            place.other()
        );
    }),
    ("populate", |place| {
        for advice in [libc::MADV_POPULATE_WRITE, libc::MADV_POPULATE_READ] {
            call!(libc::SYS_madvise, place.at, place.len, advice);
        }
    }),
    ("madvise away", |place| {
        // DONTNEED, REMOVE, FREE, COLD, PAGEOUT
        for advice in [4, 9, 8, 20, 21] {
            call!(libc::SYS_madvise, place.at, PAGE, advice);
            call!(libc::SYS_madvise, place.at, place.len, advice);
        }
    }),
    ("remap_file_pages", |place| {
        call!(libc::SYS_remap_file_pages, place.at, PAGE, 0, 1, 0);
    }),
    ("mmap over it", |place| {
        let fd = place.fd.as_raw_fd();
        for flags in [MAP_SHARED, libc::MAP_SHARED_VALIDATE, MAP_PRIVATE] {
            let flags = flags | libc::MAP_FIXED;
            call!(libc::SYS_mmap, place.at + PAGE, PAGE, RW, flags, fd, PAGE);
        }
    }),
    ("a debugger's writes", |place| {
        place.by_tracer();
    }),
    ("mprotect none", |place| {
        call!(libc::SYS_mprotect, place.at + PAGE, PAGE, PROT_NONE);
    }),
    ("mprotect read", |place| {
        call!(libc::SYS_mprotect, place.at, place.len, PROT_READ);
    }),
    ("madvise other", |place| {
        // MERGEABLE, HUGEPAGE, DONTFORK, DOFORK, DODUMP, WIPEONFORK, KEEPONFORK, COLLAPSE, GUARD_…
        for advice in [12, 14, 10, 11, 17, 18, 19, 25, 102, 103] {
            call!(libc::SYS_madvise, place.at, place.len, advice);
        }
    }),
    ("userfaultfd", |place| {
        if let Some(uffd) = &place.uffd {
            for mode in [2, 1, 3, 4, 7] {
                let mut range = [place.at, place.len, mode, 0];
                let _ = sys::ioctl(uffd, 0xc020_aa00, range.as_mut_ptr() as usize);
            }
            for mode in [1, 0] {
                let mut range = [place.at, place.len, mode];
                let _ = sys::ioctl(uffd, 0xc018_aa06, range.as_mut_ptr() as usize);
            }
            // Somebody would have to answer the faults.
            let mut range = [place.at, place.len];
            let _ = sys::ioctl(uffd, 0x8010_aa01, range.as_mut_ptr() as usize);
        }
    }),
    ("mlock and mbind", |place| {
        call!(libc::SYS_mlock, place.at, PAGE);
        let node = 1u64;
        for mode in 0..4 {
            call!(
                libc::SYS_mbind,
                place.at,
                place.len,
                mode,
                &raw const node,
                64,
                2
            );
            call!(libc::SYS_set_mempolicy, mode, &raw const node, 64);
        }
        call!(libc::SYS_munlock, place.at, PAGE);
    }),
    ("fork", |place| {
        // SAFETY: This process has one thread; the child ends at once.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                STEPS[0].1(place);
                for addr in targets(place) {
                    ATTACKS[0].2(place, addr);
                    ATTACKS[3].2(place, addr);
                }
                libc::_exit(0);
            }
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
    }),
];

/// Where attacks go: to what has been left alone, to what has been changed, to what has been moved.
fn targets(place: &Place) -> [usize; 3] {
    [place.at + 200, place.at + PAGE + 208, place.other() + 216]
}

/// Fails if a device is mapped shared and writable in this process.
fn check_maps() -> Outcome {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines().filter(|line| line.contains("/dev/mapdrv")) {
        let prot = line.split(' ').nth(1).unwrap_or_default();
        ensure(
            format!("a mapping is `{line}`"),
            !(prot.contains('x') || prot.contains('w') && prot.contains('s')),
        )?;
    }
    Ok(())
}

/// Tries all sequences of steps up to a length of `depth`, attacks after each, and looks at the device.
fn search(place: &Place, depth: usize, start: impl Fn() -> Outcome) -> Outcome {
    let before = pread(&place.fd, 0, place.len)?;
    let near = &before[..before.len().min(3 * PAGE)];
    let mut tried = 0;
    for length in 0..=depth {
        let steps = if length > 2 { MAIN } else { STEPS.len() };
        for number in 0..steps.pow(length as u32) {
            let mut left = number;
            let sequence: Vec<usize> = (0..length)
                .map(|_| {
                    let step = left % steps;
                    left /= steps;
                    step
                })
                .collect();
            start()?;
            for &step in &sequence {
                STEPS[step].1(place);
            }
            check_maps()?;
            for addr in targets(place) {
                for (_, _, attack) in &ATTACKS {
                    attack(place, addr);
                }
            }
            place.by_tracer();
            tried += 1;
            if pread(&place.fd, 0, near.len())? != near {
                let names: Vec<&str> = sequence.iter().map(|&step| STEPS[step].0).collect();
                return Err(crate::check::wrong(format!(
                    "the device was written after {names:?}"
                )));
            }
        }
    }
    check_maps()?;
    ensure(format!("only {tried} sequences"), tried > STEPS.len())?;
    same_bytes("the device", &pread(&place.fd, 0, place.len)?, &before)
}

/// Runs `body` with a place in a child, which its parent traces. All of it is nobody's.
fn traced(fd: OwnedFd, setup: &Setup, body: impl FnOnce(&Place) -> Outcome) -> Outcome {
    process::become_nobody()?;
    let told = Map::at(0, -1, 0, PAGE, RW, MAP_SHARED | libc::MAP_ANONYMOUS)?;
    let addr = told.addr;
    let child = Child::new(|line| {
        // SAFETY: No pointers.
        sys::check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
        // SAFETY: No pointers.
        unsafe { libc::alarm(0) };
        skip_faults();
        line.say()?;
        line.hear()?;
        body(&Place::new(
            fd,
            setup.span(),
            Map { addr, len: PAGE },
            true,
        )?)
    });
    let mut child = child?;
    child.line.hear()?;
    let mem = sys::open(&format!("/proc/{}/mem", child.pid), O_RDWR)?;
    child.line.say()?;
    while let Some(signal) = stopped(child.pid)? {
        let (mut deliver, debugger) = (signal, signal == libc::SIGTRAP);
        if debugger {
            deliver = 0;
            for n in 1..4 {
                write_from_outside(child.pid, &mem, told.get(8 * n) as usize, told.get(0));
            }
        }
        // SAFETY: No pointers.
        sys::check(unsafe { libc::ptrace(libc::PTRACE_CONT, child.pid, 0, deliver) })?;
    }
    child.end()
}

/// Waits for a traced child: for the signal that has stopped it, or its end, which is left for others
/// to see.
fn stopped(pid: c_int) -> Outcome<Option<c_int>> {
    // SAFETY: Zeroes are valid, and the place is ours.
    let info = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
        sys::check(libc::waitid(libc::P_PID, pid as u32, &raw mut info, flags))?;
        info
    };
    if !matches!(info.si_code, libc::CLD_STOPPED | libc::CLD_TRAPPED) {
        return Ok(None);
    }
    let status = process::wait(pid)?;
    Ok(Some(libc::WSTOPSIG(status)))
}

/// Writes to another process, in all ways there are.
fn write_from_outside(pid: c_int, mem: &OwnedFd, addr: usize, word: u64) {
    for request in [libc::PTRACE_POKEDATA, libc::PTRACE_POKETEXT] {
        call!(libc::SYS_ptrace, request, pid, addr, word);
    }
    let _ = pwrite(mem, addr as i64 + 8, &word.to_ne_bytes());
    let (from, to) = (part(&raw const word as usize), part(addr + 16));
    call!(
        libc::SYS_process_vm_writev,
        pid,
        &raw const from,
        1,
        &raw const to,
        1,
        0
    );
}

fn control(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDWR)?;
    traced(fd, setup, |place| {
        place.reset(RW, MAP_SHARED)?;
        let addr = place.at + 200;
        for (name, works, attack) in &ATTACKS {
            pwrite(&place.fd, 200, &[0; ZEROES + 200])?;
            let before = pread(&place.fd, 0, PAGE)?;
            attack(place, addr);
            let written = pread(&place.fd, 0, PAGE)? != before;
            equal(format!("{name} writes"), written, *works)?;
        }
        // One by one, what the debugger has.
        pwrite(&place.fd, 200, &[0; 64])?;
        place.by_tracer();
        let word = place.told.get(0).to_ne_bytes();
        same_bytes(
            "by the debugger",
            &pread(&place.fd, 200, 24)?,
            &[word; 3].concat(),
        )?;
        let wrong = check_maps();
        ensure("a writable mapping is not noticed", wrong.is_err())
    })
}

/// A device with zeroes where they are wanted, opened for reading.
fn prepared() -> Outcome<OwnedFd> {
    let fd = device::open(O_RDWR)?;
    for page in [0, PAGE] {
        pwrite(&fd, (page + 200 + ZEROES) as i64, &[0; 200])?;
    }
    Ok(device::open(O_RDONLY)?)
}

fn shared(setup: &Setup) -> Outcome {
    traced(prepared()?, setup, |place| {
        search(place, depth(setup), || place.reset(PROT_READ, MAP_SHARED))
    })
}

fn private(setup: &Setup) -> Outcome {
    traced(prepared()?, setup, |place| {
        search(place, depth(setup), || place.reset(PROT_READ, MAP_PRIVATE))
    })
}

/// Fails if `fd` lets anything be written.
fn check_read_only(what: &str, fd: &OwnedFd, setup: &Setup) -> Outcome {
    let before = contents(fd, setup)?;
    refused(format!("{what}: write"), pwrite(fd, 0, b"x"), EBADF)?;
    for prot in [RW, PROT_WRITE] {
        for flags in [MAP_SHARED, libc::MAP_SHARED_VALIDATE] {
            let map = Map::new(fd, 0, PAGE, prot, flags);
            refused(format!("{what}: mmap"), map.map(|map| map.addr), EACCES)?;
        }
    }
    let map = Map::new(fd, 0, setup.span(), PROT_READ, MAP_SHARED)?;
    refused(
        format!("{what}: mprotect"),
        map.protect(0, map.len, RW),
        EACCES,
    )?;
    check_maps()?;
    same_bytes(what, &contents(fd, setup)?, &before)
}

fn duplicates(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    process::in_child(|| {
        process::become_nobody()?;
        check_read_only("as it is", &fd, setup)?;
        for flags in [
            O_RDWR,
            O_WRONLY,
            O_WRONLY | libc::O_APPEND,
            3,
            libc::O_DIRECT | O_RDWR,
        ] {
            // SAFETY: No pointers.
            let _ = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) };
            // SAFETY: No pointers.
            let now = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            equal("access mode", now & libc::O_ACCMODE, O_RDONLY)?;
            check_read_only("after F_SETFL", &fd, setup)?;
        }
        check_read_only("a duplicate", &fd.try_clone()?, setup)
    })
}

fn reopen(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    process::in_child(|| {
        process::become_nobody()?;
        let map = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED)?;
        let number = fd.as_raw_fd();
        for dir in ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"] {
            for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
                let again = sys::open(&format!("{dir}/{number}"), flags);
                refused(format!("{dir}, {flags}"), again, EACCES)?;
            }
        }
        let range = format!("{:x}-{:x}", map.addr, map.addr + PAGE);
        let by_mapping = format!("/proc/self/map_files/{range}");
        ensure(
            "opened by map_files",
            sys::open(&by_mapping, O_RDWR).is_err(),
        )?;
        Ok(())
    })?;
    // Who may open the node for reading, may so again, and no more.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(device::path(0), fs::Permissions::from_mode(0o604))?;
    process::in_child(|| {
        process::become_nobody()?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        refused("for writing", sys::open(&path, O_RDWR), EACCES)?;
        check_read_only("opened again", &sys::open(&path, O_RDONLY)?, setup)
    })?;
    fs::set_permissions(device::path(0), fs::Permissions::from_mode(0o600))?;
    // The positive control: root may open the node, and so this.
    sys::open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), O_RDWR)?;
    Ok(())
}

fn passed(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let (here, there) = UnixStream::pair()?;
    process::in_child(|| {
        process::become_nobody()?;
        check_read_only("before", &fd, setup)?;
        Ok(send(&here, &fd)?)
    })?;
    let again = receive(&there)?;
    check_read_only("received by root", &again, setup)?;
    send(&here, &again)?;
    process::in_child(|| {
        process::become_nobody()?;
        check_read_only("received by nobody", &receive(&there)?, setup)
    })
}

fn taken(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    let number = fd.as_raw_fd();
    process::become_nobody()?;
    let mut child = Child::new(|line| {
        line.say()?;
        line.hear()
    })?;
    child.line.hear()?;
    drop(fd);
    let taken = take_from(child.pid, number)?;
    check_read_only("taken", &taken, setup)?;
    child.line.say()?;
    child.end()
}

fn calls(setup: &Setup) -> Outcome {
    let fd = device::open(O_RDONLY)?;
    process::become_nobody()?;
    let before = contents(&fd, setup)?;
    let file = memfd()?;
    pwrite(&file, 0, &[0x5a; PAGE])?;
    let (reader, writer) = pipe(PAGE)?;
    pwrite_to_pipe(&writer)?;
    let raw = fd.as_raw_fd();
    let none = ptr::null_mut::<i64>();
    // SAFETY: The pointers are null.
    let results = unsafe {
        let (from, at) = (file.as_raw_fd(), none);
        [
            count(libc::splice(reader.as_raw_fd(), at, raw, at, 8, 0)),
            count(libc::sendfile(raw, from, at, 8)),
            count(libc::copy_file_range(from, at, raw, at, 8, 0)),
        ]
    };
    // The last one is for regular files only, and says so first.
    let expected = [
        ("splice", EBADF),
        ("sendfile", EBADF),
        ("copy_file_range", EINVAL),
    ];
    for ((name, errno), result) in expected.into_iter().zip(results) {
        refused(name, result, errno)?;
    }
    let mut ring = IoUring::new(4)?;
    let byte = [0x5au8; 8];
    let entry = opcode::Write::new(types::Fd(raw), byte.as_ptr(), 8)
        .offset(0)
        .build();
    equal("io_uring write", submit(&mut ring, &entry)?, -EBADF)?;
    ring.submitter().register_files(&[raw])?;
    let entry = opcode::Write::new(types::Fixed(0), byte.as_ptr(), 8)
        .offset(0)
        .build();
    equal(
        "io_uring write to a registered file",
        submit(&mut ring, &entry)?,
        -EBADF,
    )?;
    // Else it would hold the file until it is gone, some time after it is closed.
    ring.submitter().unregister_files()?;
    same_bytes("the device", &contents(&fd, setup)?, &before)
}

fn pwrite_to_pipe(writer: &OwnedFd) -> Outcome {
    // SAFETY: The buffer is as long as said.
    let put = unsafe { libc::write(writer.as_raw_fd(), [0x5au8; 8].as_ptr().cast(), 8) };
    equal("bytes in the pipe", sys::count(put)?, 8)
}
