// SPDX-License-Identifier: GPL-2.0

//! Running a sequence in processes of its own, and looking at the devices afterwards.

use crate::exec::{Exec, same};
use crate::kcov::Kcov;
use crate::seq::{Actors, Op, Rng, Round};
use crate::sys::{self, PAGE};
use crate::world::{self, Board, MAP_LEN, Memory, World};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the kernel says when it is unwell. What ends the machine is the host's to see.
const COMPLAINTS: &[&str] = &[
    "BUG: ",
    "WARNING: ",
    "UBSAN: ",
    "KASAN: ",
    "KCSAN: ",
    "KFENCE: ",
    "Bad page",
    "refcount_t: ",
    "circular locking",
    "recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called",
];

/// How long a sequence may take for one operation.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Runner {
    pub rounds: usize,
    ops: u64,
    faults: u64,
    loads: usize,
    board: &'static Board,
    memory: Memory,
    world: Option<World>,
    params: String,
    kcov: Vec<Kcov>,
    /// Edges and results that sequences of one actor have shown.
    seen: [Vec<bool>; 2],
    /// Edges that any sequence has shown.
    edges: Vec<bool>,
    kmsg: Option<File>,
    verbose: bool,
}

impl Runner {
    pub fn new(verbose: bool) -> Self {
        // Some operations are made to end by a signal; nobody need read of it.
        let _ = fs::write("/proc/sys/debug/exception-trace", "0");
        // Whatever a sequence leaves behind is waited for.
        let _ = sys::call(libc::SYS_prctl, &[libc::PR_SET_CHILD_SUBREAPER as usize, 1]);
        Self {
            rounds: 0,
            ops: 0,
            faults: 0,
            loads: 0,
            board: Board::new(),
            memory: Memory::new(),
            world: None,
            params: String::new(),
            kcov: (0..5).map_while(|_| Kcov::new()).collect(),
            seen: [vec![false; MAP_LEN], vec![false; MAP_LEN]],
            edges: vec![false; MAP_LEN],
            kmsg: kmsg().ok(),
            verbose,
        }
    }

    /// What has been done, in one line.
    pub fn summary(&self) -> String {
        let edges = match self.edges.iter().filter(|&&edge| edge).count() {
            _ if self.kcov.is_empty() => "no coverage from this kernel".into(),
            n => format!("{n} coverage edges"),
        };
        format!(
            "{} operations, {} rounds, {} loads, {} faults, {edges}",
            self.ops, self.rounds, self.loads, self.faults
        )
    }

    /// Loads the module, unless it is loaded like that.
    pub fn load(&mut self, params: &str) -> Result<(), String> {
        if self.world.is_some() && self.params == params {
            return Ok(());
        }
        self.unload()?;
        world::load(params).map_err(|error| format!("loading with {params}: {error}"))?;
        self.loads += 1;
        self.params = params.to_owned();
        self.world = Some(World::new(params, &mut self.memory, self.board));
        Ok(())
    }

    /// Unloads the module, which nobody must use any more.
    pub fn unload(&mut self) -> Result<(), String> {
        let Some(world) = self.world.take() else {
            return Ok(());
        };
        for dev in &world.devs {
            self.faults += attribute(dev.minor, "faults").unwrap_or(0);
        }
        world::unload().map_err(|error| format!("unloading: {error}"))
    }

    /// Runs a sequence. Returns whether it has shown something new.
    pub fn run(&mut self, round: &Round) -> Result<bool, String> {
        let Some(mut world) = self.world.take() else {
            return Err("no module".into());
        };
        let result = self.run_in(&mut world, round);
        self.world = Some(world);
        self.rounds += 1;
        self.ops += self.board.ops.load(Relaxed);
        result
    }

    fn run_in(&mut self, world: &mut World, round: &Round) -> Result<bool, String> {
        world.restore()?;
        self.board.clear();
        let pid = sys::fork(|| {
            // Killed as one, with whatever it has started.
            let _ = sys::call(libc::SYS_setpgid, &[0, 0]);
            i32::from(!self.act(world, round))
        });
        let pid = pid.map_err(|errno| format!("fork: {errno}"))?;
        let ending = self.wait(pid);
        // SAFETY: No pointers. The group is that of the child above.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        while sys::wait(-1, 0).is_ok() {}
        if let Some(text) = self.board.failure() {
            return Err(text);
        }
        if let Some(text) = self.complaint() {
            return Err(format!("the kernel complains: {text}"));
        }
        let status = ending?;
        if status != 0 {
            return Err(format!("{}: {}", self.place(), sys::ending(status)));
        }
        for dev in &world.devs {
            for name in ["mappings", "open_files", "faults_sigbus"] {
                let n = attribute(dev.minor, name)?;
                if n != 0 {
                    return Err(format!("{name} is {n} when all is over"));
                }
            }
            let map = dev.map()?;
            let result = if round.actors == Actors::One {
                same(
                    &format!("device {}, after the sequence", dev.minor),
                    map,
                    world.now[dev.minor],
                )
            } else {
                Ok(())
            };
            world::unmap(map);
            result?;
        }
        Ok(self.learn(round.actors == Actors::One))
    }

    /// What the kernel has complained of since the last time.
    fn complaint(&mut self) -> Option<String> {
        let mut found = None;
        let mut record = [0; 8192];
        loop {
            match self.kmsg.as_mut()?.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    if found.is_none() && COMPLAINTS.iter().any(|what| text.contains(what)) {
                        found = Some(text.lines().next().unwrap_or_default().to_owned());
                    }
                }
                // Some were overwritten before they could be read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => (),
                Err(_) => return found,
            }
        }
    }

    /// Waits for the child, as long as it gets on.
    fn wait(&self, pid: i32) -> Result<i32, String> {
        let fd = sys::call(libc::SYS_pidfd_open, &[pid as usize, 0]);
        let file = sys::file(fd.map_err(|errno| format!("pidfd_open: {errno}"))?);
        use std::os::fd::AsRawFd;
        let mut last = (0, Instant::now());
        loop {
            let mut poll = libc::pollfd {
                fd: file.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let _ = sys::call(libc::SYS_poll, &[&raw mut poll as usize, 1, 1000]);
            match sys::wait(pid, libc::WNOHANG) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => (),
                Err(errno) => return Err(format!("waitpid: {errno}")),
            }
            let ops = self.board.ops.load(Relaxed);
            if ops != last.0 {
                last = (ops, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                let stack = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
                return Err(format!(
                    "{}: does not end; {}",
                    self.place(),
                    stack.replace('\n', " ")
                ));
            }
        }
    }

    /// Which operations were going on.
    fn place(&self) -> String {
        let at: Vec<String> = self
            .board
            .at
            .iter()
            .map(|at| at.load(Relaxed))
            .filter(|&at| at > 0)
            .map(|at| at.to_string())
            .collect();
        format!("operation {}", at.join(", "))
    }

    /// The child's part.
    fn act(&self, world: &mut World, round: &Round) -> bool {
        let deal = |n: usize, k: usize| -> Vec<Op> {
            round.ops.iter().skip(k).step_by(n).copied().collect()
        };
        match round.actors {
            Actors::One => self.actor(world, 0, &round.ops, false, false),
            Actors::Processes(n) => {
                let pids: Vec<_> = (0..n)
                    .map(|k| {
                        sys::fork(|| i32::from(!self.actor(world, k, &deal(n, k), true, false)))
                    })
                    .collect();
                let mut good = true;
                for (k, pid) in pids.into_iter().enumerate() {
                    let Ok(pid) = pid else { return false };
                    // The last may go at any time.
                    let victim = k > 0 && k == n - 1;
                    if victim {
                        sys::kill(pid, libc::SIGKILL);
                    }
                    let status = sys::wait(pid, 0).ok().flatten().unwrap_or(1);
                    if status != 0 && !(victim && libc::WIFSIGNALED(status)) {
                        self.board.fail(&format!(
                            "{} of actor {k}: {}",
                            self.place(),
                            sys::ending(status)
                        ));
                        good = false;
                    }
                }
                good
            }
            Actors::Threads(n) => {
                let done = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (0..n)
                        .map(|k| {
                            let mut world = world.for_thread();
                            let ops = deal(n, k);
                            scope.spawn(move || self.actor(&mut world, k, &ops, true, true))
                        })
                        .collect();
                    scope.spawn(|| disturb(n, &done));
                    let good = threads
                        .into_iter()
                        .all(|thread| thread.join().unwrap_or(false));
                    done.store(true, Relaxed);
                    good
                })
            }
        }
    }

    fn actor(
        &self,
        world: &mut World,
        number: usize,
        ops: &[Op],
        weak: bool,
        threads: bool,
    ) -> bool {
        match Exec::new(world, number, weak, threads) {
            Ok(exec) => exec.run(ops, self.kcov.get(number), self.verbose),
            Err(text) => {
                self.board.fail(&text);
                false
            }
        }
    }

    /// Takes note of what the sequence has shown.
    fn learn(&mut self, alone: bool) -> bool {
        let mut new = false;
        for (i, map) in [&self.board.edges, &self.board.results]
            .into_iter()
            .enumerate()
        {
            for (at, byte) in map.iter().enumerate() {
                if byte.load(Relaxed) == 0 {
                    continue;
                }
                if alone && !self.seen[i][at] {
                    self.seen[i][at] = true;
                    new = true;
                }
                if i == 0 {
                    self.edges[at] = true;
                }
            }
        }
        new
    }
}

/// What sysfs says of a device.
fn attribute(minor: usize, name: &str) -> Result<u64, String> {
    let path = format!("/sys/class/mapdrv/mapdrv{minor}/{name}");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{path}: {text:?}"))
}

/// The kernel's messages, from now on.
fn kmsg() -> std::io::Result<File> {
    let flags = libc::O_NONBLOCK;
    let mut file = File::options()
        .read(true)
        .custom_flags(flags)
        .open("/dev/kmsg")?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Does to the arenas of other threads what must not change what they find there.
fn disturb(n: usize, done: &AtomicBool) {
    let mut rng = Rng::new(n as u64);
    let buffer = sys::memory(4 * PAGE, libc::MAP_PRIVATE);
    let pid = sys::call(libc::SYS_getpid, &[]).unwrap_or(0);
    while !done.load(Relaxed) {
        let (addr, pages) = Exec::somewhere(rng.below(n), &mut rng);
        let (bytes, at) = (pages * PAGE, buffer.as_mut_ptr() as usize);
        let _ = match rng.below(6) {
            0 | 1 => sys::call(
                libc::SYS_madvise,
                &[addr, bytes, libc::MADV_DONTNEED as usize],
            ),
            2 => sys::call(
                libc::SYS_madvise,
                &[addr, bytes, libc::MADV_PAGEOUT as usize],
            ),
            3 => sys::call(
                libc::SYS_madvise,
                &[addr, bytes, libc::MADV_POPULATE_READ as usize],
            ),
            _ => {
                let (local, remote) = ([at, buffer.len()], [addr, buffer.len().min(bytes)]);
                let args = [
                    pid,
                    local.as_ptr() as usize,
                    1,
                    remote.as_ptr() as usize,
                    1,
                    0,
                ];
                sys::call(libc::SYS_process_vm_readv, &args)
            }
        };
        let _ = sys::call(libc::SYS_sched_yield, &[]);
    }
}
