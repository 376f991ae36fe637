// SPDX-License-Identifier: GPL-2.0

//! Other processes.

use crate::check::{Fail, Outcome, ensure, wrong};
use crate::sys::{self, check};
use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic;
use std::time::Duration;

/// Longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(200);

/// How often the environment wants everything that goes round and round to be done, and how much
/// longer it may take: `TIMES`, or 1.
pub fn times() -> u32 {
    let times = std::env::var("TIMES").ok();
    times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Runs `body` in a child, which never returns from here.
///
/// A child has one thread, as its parent should have.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<c_int> {
    // SAFETY: This program forks only while it has one thread.
    let pid = check(unsafe { libc::fork() })? as c_int;
    if pid == 0 {
        // SAFETY: No pointers. The alarm is the last resort against a test that hangs.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(PATIENCE.as_secs() as u32 * times());
        }
        let status = panic::catch_unwind(panic::AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: No pointers. What the parent has buffered is the parent's to write.
        unsafe { libc::_exit(status) }
    }
    Ok(pid)
}

/// Waits for a child to end, or to stop; returns its wait status.
pub fn wait(pid: c_int) -> io::Result<c_int> {
    let mut status = 0;
    // SAFETY: The status is ours.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) })?;
    Ok(status)
}

/// The signal that ends a child which does `body`, if one does.
pub fn signal_in(body: impl FnOnce()) -> io::Result<Option<c_int>> {
    let pid = fork(|| {
        body();
        0
    })?;
    let status = wait(pid)?;
    Ok(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)))
}

/// A child that does what a test tells it, step by step, over a socket.
pub struct Child {
    pub pid: c_int,
    pub line: Line,
}

/// One end of a conversation in lines of one byte.
pub struct Line(UnixStream);

impl Line {
    /// Says that a step is done.
    pub fn say(&mut self) -> Outcome {
        Ok(self.0.write_all(b".")?)
    }

    /// Whether the other end is closed; nothing must be said any more.
    pub fn closed(&self) -> Outcome<bool> {
        self.0.set_nonblocking(true)?;
        match (&self.0).read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            result => Ok(result? == 0),
        }
    }

    /// Waits for the other to say so.
    pub fn hear(&mut self) -> Outcome {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        if byte == *b"!" {
            let mut text = String::new();
            self.0.read_to_string(&mut text)?;
            return Err(wrong(format!("in the child: {text}")));
        }
        Ok(())
    }
}

impl Child {
    /// Starts a child. What it returns is the outcome of [`Child::end`].
    pub fn new(body: impl FnOnce(&mut Line) -> Outcome) -> Outcome<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE * times()))?;
        theirs.set_read_timeout(Some(PATIENCE * times()))?;
        let (mut ours, mut theirs) = (Some(ours), Some(theirs));
        let pid = fork(|| {
            drop(ours.take());
            let mut line = Line(theirs.take().expect("taken once"));
            let outcome = body(&mut line);
            let text = match &outcome {
                Ok(()) => return 0,
                Err(Fail::Wrong(text) | Fail::Skip(text)) => text,
            };
            let _ = line
                .0
                .write_all(b"!")
                .and_then(|()| line.0.write_all(text.as_bytes()));
            1
        })?;
        drop(theirs.take());
        Ok(Self {
            pid,
            line: Line(ours.take().expect("taken once")),
        })
    }

    /// Tells the child, by closing the line, and waits for it to end well.
    pub fn tell(self) -> Outcome {
        self.line.0.shutdown(std::net::Shutdown::Write)?;
        self.end()
    }

    /// Waits for the child to end well.
    pub fn end(mut self) -> Outcome {
        let status = wait(self.pid)?;
        let mut text = String::new();
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1 {
            self.line.0.read_to_string(&mut text)?;
            return Err(wrong(format!(
                "in the child: {}",
                text.trim_start_matches(['.', '!'])
            )));
        }
        ensure(
            format!("the child ended with wait status {status:#x}"),
            status == 0,
        )
    }
}

/// Runs `body` in a child, and waits for it.
pub fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    Child::new(|_| body())?.end()
}

/// Becomes a user without any rights, for good.
pub fn become_nobody() -> Outcome {
    const NOBODY: u32 = 65534;
    // SAFETY: No pointers but an empty list.
    unsafe {
        sys::check(libc::setgroups(0, std::ptr::null()))?;
        sys::check(libc::setgid(NOBODY))?;
        sys::check(libc::setuid(NOBODY))?;
        // Changing the user has made /proc/self another's; this undoes it.
        sys::check(libc::prctl(libc::PR_SET_DUMPABLE, 1))?;
    }
    Ok(())
}
