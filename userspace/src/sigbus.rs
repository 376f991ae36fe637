// SPDX-License-Identifier: GPL-2.0

//! Turning SIGBUS on a mapping into an error.
//!
//! A thread that touches a mapping says so first, in a variable of its own. When the kernel then
//! raises SIGBUS in this thread at an address of that mapping, the handler puts zero pages in
//! place of the whole mapping and marks it lost; the access goes on, and its result is thrown away
//! for the mark. Every other SIGBUS goes to whoever would have had it.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

thread_local! {
    /// The mapping that this thread is touching, or null.
    ///
    /// Without a destructor and with a constant initial value, so that a handler may use it.
    static TOUCHED: Cell<*const Watch> = const { Cell::new(ptr::null()) };
}

/// What SIGBUS did before [`catch`].
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Makes SIGBUS on a touched mapping an error for the whole process from now on.
pub(crate) fn catch() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut previous = MaybeUninit::uninit();
    // SAFETY: A null action changes nothing; `previous` may be written.
    let result = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call above succeeded and so filled it in.
    if PREVIOUS.set(unsafe { previous.assume_init() }).is_err() {
        return Ok(());
    }

    // SAFETY: All zeroes are a valid `sigaction`: the default action, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for and does only what is allowed
    // in a handler: atomics, a plain thread-local variable, and system calls.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A range of addresses to be touched with care.
#[derive(Debug)]
pub(crate) struct Watch {
    base: NonNull<u8>,
    len: usize,
    /// The address at which it was lost, 0 while all is well.
    lost_at: AtomicUsize,
}

impl Watch {
    /// Watches the `len` bytes from `base`.
    ///
    /// # Safety
    ///
    /// They must be one or more whole mappings of the caller's own, without references into them,
    /// until this value is dropped.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self {
            base,
            len,
            lost_at: AtomicUsize::new(0),
        }
    }

    /// Does `access`, which touches the range.
    ///
    /// # Errors
    ///
    /// How far from the start of the range the access was that lost it, then or earlier.
    pub(crate) fn touch<R>(&self, access: impl FnOnce() -> R) -> Result<R, usize> {
        let _outer = Touching(TOUCHED.replace(self));
        // The handler runs in this thread: the compiler's order is all that matters.
        compiler_fence(Ordering::SeqCst);
        let result = access();
        compiler_fence(Ordering::SeqCst);
        match self.lost_at.load(Ordering::Relaxed) {
            0 => Ok(result),
            address => Err(address - self.base.addr().get()),
        }
    }

    /// Puts zero pages in place of the range if `address` is in it.
    fn lose(&self, address: usize) -> bool {
        let start = self.base.addr().get();
        if !(start..start + self.len).contains(&address) {
            return false;
        }
        // SAFETY: The range is the owner's alone, without references into it, by the contract of
        // `new`; reads and writes through pointers go on in the new pages.
        let replaced = unsafe {
            mmap_anonymous(
                self.base.as_ptr().cast(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        };
        self.lost_at.store(address, Ordering::Relaxed);
        replaced.is_ok()
    }
}

/// Restores on drop what the thread touched before.
struct Touching(*const Watch);

impl Drop for Touching {
    fn drop(&mut self) {
        TOUCHED.set(self.0);
    }
}

/// The handler of SIGBUS.
extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let touched = TOUCHED.get();
    // SAFETY: With SA_SIGINFO the kernel passes a valid `siginfo_t`, and for its own SIGBUS (a
    // positive code) with an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // SAFETY: `touch` has put it there and has not returned, so it is borrowed and alive.
    if code > 0 && !touched.is_null() && unsafe { (*touched).lose(address) } {
        return;
    }

    // Not ours: back to what was before. A fault happens again when this handler returns; a signal
    // that somebody sent does not, so send it again.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` is what the kernel gave.
        unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
    }
    if code <= 0 {
        // SAFETY: Always safe; the signal stays blocked until this handler returns.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Runs a test that ends its process; the signal that it ended by.
    fn signal_of(test: &str) -> Option<i32> {
        let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &test])
            .output()
            .unwrap()
            .status
            .signal()
    }

    #[test]
    fn a_sigbus_of_others_still_kills() {
        assert_eq!(signal_of("touch_what_is_not_watched"), Some(libc::SIGBUS));
    }

    #[test]
    #[ignore = "ends the process; another test runs it"]
    fn touch_what_is_not_watched() {
        super::catch().unwrap();
        let stand_in = crate::stand_in::StandIn::new(4096);
        let mapping = stand_in.device.map_all(crate::Access::Read).unwrap();
        stand_in.file.as_file().set_len(0).unwrap();
        let byte = std::ptr::with_exposed_provenance::<u8>(mapping.address());
        // SAFETY: The mapping is alive; that the page behind it is gone ends the process.
        panic!("read {}", unsafe { byte.read_volatile() });
    }
}
