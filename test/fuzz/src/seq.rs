// SPDX-License-Identifier: GPL-2.0

//! Sequences of operations: as text, made at random, and made from others.
//!
//! An operation is a name and a few numbers. What the numbers mean is for [`crate::exec`] to say;
//! any numbers mean something, so any part of a sequence is a sequence.

use std::fmt;

/// A generator of random numbers that is the same everywhere.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::uapi::word(0x6d61_7064_7276, self.0)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

pub const ARGS: usize = 6;

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub kind: Kind,
    pub args: [u32; ARGS],
}

macro_rules! kinds {
    ($($kind:ident $name:literal $args:literal $weight:literal)*) => {
        /// What an operation does.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($kind),* }

        /// Name, number of arguments, how often.
        pub const KINDS: &[(Kind, &str, usize, usize)] = &[$((Kind::$kind, $name, $args, $weight)),*];
    };
}

kinds! {
    Open "open" 3 6
    Close "close" 1 3
    Dup "dup" 3 2
    Read "read" 5 8
    Write "write" 6 12
    Seek "seek" 3 5
    Poll "poll" 2 2
    Ioctl "ioctl" 5 12
    Fcntl "fcntl" 3 3
    Move "move" 5 4
    Map "map" 6 16
    Unmap "unmap" 2 6
    Protect "protect" 3 7
    Remap "remap" 5 7
    Advise "advise" 3 9
    Lock "lock" 3 4
    Sync "sync" 3 3
    Load "load" 2 8
    Store "store" 3 12
    Fork "fork" 4 4
    Exec "exec" 2 1
    Trace "trace" 4 3
    Vm "vm" 4 4
    Mem "mem" 4 4
    Look "look" 2 4
    Place "place" 4 3
    Futex "futex" 3 2
    Uffd "uffd" 3 2
    Drop "drop" 0 1
    Probe "probe" 2 3
    Check "check" 0 3
    Seal "seal" 3 1
}

impl Op {
    pub fn random(rng: &mut Rng) -> Self {
        let total: usize = KINDS.iter().map(|kind| kind.3).sum();
        let mut n = rng.below(total);
        let mut kind = Kind::Check;
        for &(this, _, _, weight) in KINDS {
            if n < weight {
                kind = this;
                break;
            }
            n -= weight;
        }
        let mut op = Self {
            kind,
            args: [0; ARGS],
        };
        for arg in &mut op.args[..kind.args()] {
            *arg = number(rng);
        }
        op
    }

    pub fn new(kind: Kind, args: [u32; ARGS]) -> Self {
        Self { kind, args }
    }
}

impl Kind {
    fn args(self) -> usize {
        KINDS[self as usize].2
    }

    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }
}

/// Small numbers, numbers with few bits, and others.
fn number(rng: &mut Rng) -> u32 {
    match rng.below(4) {
        0 => rng.below(8) as u32,
        1 => rng.below(256) as u32,
        2 => (1u32 << rng.below(32))
            .wrapping_add(rng.below(5) as u32)
            .wrapping_sub(2),
        _ => rng.next() as u32,
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        self.args[..self.kind.args()]
            .iter()
            .try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl std::str::FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let &(kind, ..) = KINDS
            .iter()
            .find(|kind| kind.1 == name)
            .ok_or(format!("no such operation: {text:?}"))?;
        let mut args = [0; ARGS];
        for (arg, word) in args.iter_mut().zip(words) {
            *arg = word
                .parse()
                .map_err(|_| format!("not a number: {text:?}"))?;
        }
        Ok(Self { kind, args })
    }
}

/// How many do something at the same time, and what they share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actors {
    One,
    Processes(usize),
    Threads(usize),
}

/// A round: what is done to devices as they are after loading.
#[derive(Clone, PartialEq, Eq)]
pub struct Round {
    /// The module's parameters.
    pub params: String,
    pub actors: Actors,
    pub ops: Vec<Op>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.params)?;
        match self.actors {
            Actors::One => (),
            Actors::Processes(n) => write!(f, " processes={n}")?,
            Actors::Threads(n) => write!(f, " threads={n}")?,
        }
        self.ops.iter().try_for_each(|op| write!(f, "; {op}"))
    }
}

impl std::str::FromStr for Round {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let mut actors = Actors::One;
        let mut params = Vec::new();
        for word in parts.next().unwrap_or_default().split_whitespace() {
            let number = |text: &str| text.parse().map_err(|_| format!("bad number in {word:?}"));
            if let Some(n) = word.strip_prefix("processes=") {
                actors = Actors::Processes(number(n)?);
            } else if let Some(n) = word.strip_prefix("threads=") {
                actors = Actors::Threads(number(n)?);
            } else {
                params.push(word);
            }
        }
        let ops = parts.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self {
            params: params.join(" "),
            actors,
            ops,
        })
    }
}

/// Random parameters for the module.
pub fn params(rng: &mut Rng) -> String {
    const SMALL: [usize; 9] = [
        1, 4095, 4096, 4097, 65_536, 69_633, 262_144, 262_145, 1_000_000,
    ];
    const LARGE: [usize; 5] = [1_048_576, 2_097_152, 2_097_153, 4_206_592, 6_291_456];

    let huge = rng.one_in(3);
    let large = rng.one_in(if huge { 2 } else { 5 });
    let size = if large {
        rng.pick(&LARGE)
    } else {
        rng.pick(&SMALL)
    };
    let mut params = format!("size={size}");
    if !large && rng.one_in(2) {
        params += &format!(" devices={}", 2 + rng.below(2));
    }
    if rng.one_in(4) {
        params += " fill=0";
    }
    if rng.one_in(2) {
        params += " mode=438";
    }
    if huge {
        params += " huge=1";
    } else {
        params += &format!(
            " fault_around={}",
            rng.pick(&[4096, 8192, 65_536, 65_536, 2 << 20])
        );
    }
    params
}

/// A round out of nothing: first something to work on.
pub fn random(rng: &mut Rng, params: &str, actors: Actors, len: usize) -> Round {
    let mut ops = Vec::with_capacity(len);
    for slot in 0..1 + rng.below(3) as u32 {
        // For reading and writing, mostly; mapped shared or private, for both or one.
        let access = if rng.one_in(4) { 0 } else { 2 };
        let how = rng.pick(&[0, 0, 24, 24, 1, 25]);
        ops.push(Op::new(Kind::Open, [slot, number(rng), access, 0, 0, 0]));
        let mut map = Op::random_of(Kind::Map, rng);
        map.args[0] = slot;
        map.args[4] = how;
        ops.push(map);
    }
    // What one may do depends on who one was when opening, and is when asking.
    if params.contains("mode=438") && rng.one_in(3) {
        ops.insert(0, Op::new(Kind::Drop, [0; ARGS]));
    } else if rng.one_in(6) {
        ops.push(Op::new(Kind::Drop, [0; ARGS]));
    }
    while ops.len() < len {
        ops.push(Op::random(rng));
    }
    Round {
        params: params.to_owned(),
        actors,
        ops,
    }
}

impl Op {
    fn random_of(kind: Kind, rng: &mut Rng) -> Self {
        let mut op = Self::new(kind, [0; ARGS]);
        for arg in &mut op.args[..kind.args()] {
            *arg = number(rng);
        }
        op
    }
}

/// A round made from one that was worth keeping, and perhaps from another.
pub fn mutated(rng: &mut Rng, from: &[Op], other: &[Op], max: usize) -> Vec<Op> {
    let mut ops = from.to_vec();
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(ops.len() + 1);
        match rng.below(7) {
            0 if at < ops.len() => {
                ops.remove(at);
            }
            1 | 2 => ops.insert(at, Op::random(rng)),
            3 if at < ops.len() => {
                let kind = ops[at].kind;
                if kind.args() > 0 {
                    ops[at].args[rng.below(kind.args())] = number(rng);
                }
            }
            4 if at < ops.len() => {
                let arg = rng.below(ARGS);
                ops[at].args[arg] ^= 1 << rng.below(32);
            }
            5 if !other.is_empty() => {
                let start = rng.below(other.len());
                let len = 1 + rng.below((other.len() - start).min(12));
                let tail = ops.split_off(at);
                ops.extend_from_slice(&other[start..start + len]);
                ops.extend(tail);
            }
            _ if at < ops.len() => {
                let op = ops[at];
                ops.insert(rng.below(ops.len() + 1), op);
            }
            _ => (),
        }
    }
    ops.truncate(max);
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_reads_as_it_is_written() {
        let mut rng = Rng::new(1);
        for _ in 0..100 {
            let params = params(&mut rng);
            let actors = rng.pick(&[Actors::One, Actors::Threads(3), Actors::Processes(2)]);
            let round = random(&mut rng, &params, actors, 30);
            let text = round.to_string();
            assert!(
                text.parse::<Round>().is_ok_and(|again| again == round),
                "{text}"
            );
        }
    }

    #[test]
    fn a_seed_gives_the_same_round_again() {
        let make = || random(&mut Rng::new(7), "size=1", Actors::One, 50).to_string();
        assert_eq!(make(), make());
    }
}
