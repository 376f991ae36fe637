// SPDX-License-Identifier: GPL-2.0

//! A fuzzer for `map_driver`, to be run as root in a virtual machine, beside `map_driver.ko`.
//!
//! It loads the module with random parameters, again and again, and does random sequences of
//! operations to its devices and to mappings of them, in processes of their own. Each sequence is
//! printed before it is run. After each operation, and at the end, what can be seen of the devices
//! is compared with what must be there. Sequences that make code run, or calls answer, as none has
//! before are kept, and varied.

#![allow(
    clippy::precedence,
    reason = "numbers are taken apart by shifts and masks, as in C"
)]

mod exec;
mod kcov;
mod round;
mod seq;
mod sys;
#[allow(dead_code)]
#[path = "../../../uapi/mapdrv.rs"]
mod uapi;
mod world;

use round::Runner;
use seq::{Actors, Op, Rng, Round};
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: mapdrv-fuzz [--seed N] [--rounds N | --seconds N] | --replay FILE

  --seed N       where the random numbers start [1]
  --rounds N     end after that many sequences [200]
  --seconds N    end after that long
  --replay FILE  run the sequences in FILE, one a line, and show what each call returned
";

/// Sequences between two loads of the module.
const PER_LOAD: usize = 12;
/// Most operations in a sequence.
const LEN: usize = 60;

struct Options {
    seed: u64,
    rounds: usize,
    seconds: Option<u64>,
    replay: Option<String>,
}

fn options() -> Option<Options> {
    let mut options = Options {
        seed: 1,
        rounds: 200,
        seconds: None,
        replay: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.as_str() {
            "--seed" => options.seed = value.parse().ok()?,
            "--rounds" => options.rounds = value.parse().ok()?,
            "--seconds" => options.seconds = Some(value.parse().ok()?),
            "--replay" => options.replay = Some(value),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, option, text] = &args[..] {
        // Started by an operation, without any environment.
        if option == "--inherited" {
            return match exec::others::inherited(text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(text) => {
                    println!("# {text}");
                    ExitCode::FAILURE
                }
            };
        }
    }
    let Some(options) = options() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|panic| println!("# {panic}")));
    let result = match &options.replay {
        Some(path) => replay(path),
        None => fuzz(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("# {text}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the sequences in a file.
fn replay(path: &str) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let mut runner = Runner::new(true);
    for line in text.lines() {
        let line = line
            .strip_prefix("# round ")
            .and_then(|line| line.split_once(": "))
            .map_or(line, |(_, text)| text);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let round: Round = line.parse()?;
        println!("# round {}: {round}", runner.rounds + 1);
        runner.load(&round.params)?;
        runner.run(&round)?;
    }
    runner.unload()?;
    println!("# {}", runner.summary());
    Ok(())
}

/// Sequences that have shown something new.
#[derive(Default)]
struct Corpus(Vec<Vec<Op>>);

impl Corpus {
    fn next(&self, rng: &mut Rng, params: &str) -> Round {
        let len = 10 + rng.below(LEN - 10);
        let actors = match rng.below(8) {
            0 => Actors::Processes(2 + rng.below(3)),
            1 => Actors::Threads(2 + rng.below(3)),
            _ => Actors::One,
        };
        // Those of several are longer: each does a part.
        let len = if actors == Actors::One { len } else { len * 3 };
        if self.0.is_empty() || actors != Actors::One || rng.one_in(2) {
            return seq::random(rng, params, actors, len);
        }
        // Late finds are better.
        let n = self.0.len();
        let from = &self.0[rng.below(n).max(rng.below(n))];
        let other = &self.0[rng.below(n)];
        let ops = seq::mutated(rng, from, other, LEN);
        Round {
            params: params.to_owned(),
            actors,
            ops,
        }
    }
}

fn fuzz(options: &Options) -> Result<(), String> {
    let start = Instant::now();
    let limit = options.seconds.map(Duration::from_secs);
    println!("KTAP version 1\n1..1");
    println!("# seed {}", options.seed);
    let mut runner = Runner::new(false);
    let mut corpus = Corpus::default();
    let over = |rounds: usize| match limit {
        Some(limit) => start.elapsed() >= limit,
        None => rounds >= options.rounds,
    };
    let mut result = Ok(());
    while result.is_ok() && !over(runner.rounds) {
        let mut rng = Rng::new(
            options
                .seed
                .wrapping_mul(1 << 32)
                .wrapping_add(runner.rounds as u64),
        );
        let params = seq::params(&mut rng);
        result = runner.load(&params);
        for _ in 0..PER_LOAD {
            if result.is_err() || over(runner.rounds) {
                break;
            }
            let round = corpus.next(&mut rng, &params);
            println!("# round {}: {round}", runner.rounds + 1);
            match runner.run(&round) {
                Ok(true) => corpus.0.push(round.ops),
                Ok(false) => (),
                Err(text) => {
                    println!("# wrong: {text}");
                    minimise(&mut runner, &round);
                    result = Err(format!("seed {}: {text}", options.seed));
                }
            }
        }
        let unloaded = runner.unload();
        result = result.and(unloaded);
    }
    println!("# {}; {} sequences kept", runner.summary(), corpus.0.len());
    let word = if result.is_ok() { "ok" } else { "not ok" };
    println!("{word} 1 - random calls do what docs/abi.md says, and nothing else");
    result
}

/// Leaves out of a sequence what is not needed for it to fail, and prints the rest.
fn minimise(runner: &mut Runner, round: &Round) {
    const ATTEMPTS: usize = 100;
    let mut ops = round.ops.clone();
    let mut attempts = 0;
    let mut fails = |ops: &[Op]| {
        attempts += 1;
        let round = Round {
            ops: ops.to_vec(),
            ..round.clone()
        };
        if attempts > ATTEMPTS {
            return false;
        }
        // From the very beginning, and to the end.
        let _ = runner.unload();
        if runner.load(&round.params).is_err() {
            return false;
        }
        runner.run(&round).is_err() | runner.unload().is_err()
    };
    if !fails(&ops) {
        println!("# it does not fail a second time; what came before may matter");
        return;
    }
    let mut size = ops.len().div_ceil(2);
    loop {
        let mut start = 0;
        let before = ops.len();
        while start < ops.len() {
            let end = (start + size).min(ops.len());
            let fewer = [&ops[..start], &ops[end..]].concat();
            if fails(&fewer) {
                ops = fewer;
            } else {
                start = end;
            }
        }
        if size == 1 && ops.len() == before {
            break;
        }
        size = (size / 2).max(1);
    }
    println!(
        "# minimised from {} to {} operations:",
        round.ops.len(),
        ops.len()
    );
    println!(
        "# minimal: {}",
        Round {
            ops,
            ..round.clone()
        }
    );
}
