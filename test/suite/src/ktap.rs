// SPDX-License-Identifier: GPL-2.0

//! Running groups of tests and printing how they went, as KTAP.

use crate::check::{Fail, Outcome, wrong};
use crate::device::Setup;
use crate::module::{self, Loaded};
use crate::{groups, process};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic;

/// A test: the promise it checks, and how.
pub struct Test {
    pub promise: &'static str,
    pub run: fn(&Setup) -> Outcome,
}

/// Runs the lines of a plan. Returns whether everything went well.
pub fn run(plan: &[&str]) -> Result<bool, String> {
    let mut steps = Vec::new();
    for line in plan {
        let (name, params) = line
            .split_once(' ')
            .ok_or(format!("`{line}`: give a group and parameters"))?;
        let tests = groups::find(name).ok_or(format!("there is no group `{name}`"))?;
        steps.push((name, params.trim(), tests));
    }
    panic::set_hook(Box::new(|_| ()));
    println!("KTAP version 1\n1..{}", steps.len());
    let mut good = true;
    for (number, (name, params, tests)) in steps.into_iter().enumerate() {
        let result = group(params, tests);
        if let Err(Fail::Wrong(text)) = &result {
            comment("", text);
        }
        let title = format!("{name} {}", params.trim_start_matches(['-', ' ']));
        println!(
            "{} {} - {}",
            word(result.is_ok()),
            number + 1,
            title.trim_end()
        );
        good &= result.is_ok();
    }
    Ok(good)
}

/// Runs one group.
fn group(params: &str, tests: &[Test]) -> Outcome {
    let setup = Setup::new(params.trim_start_matches(['-', ' ']));
    let loaded = if params.starts_with('-') {
        None
    } else {
        Some(Loaded::new(&setup.params).map_err(|error| wrong(format!("insmod: {error}")))?)
    };
    println!("  KTAP version 1\n  1..{}", tests.len());
    let mut failed = 0;
    for (number, test) in tests.iter().enumerate() {
        let outcome = isolated(test, &setup);
        if loaded.is_none() {
            module::clear()?;
        }
        let (good, note) = match &outcome {
            Ok(()) => (true, String::new()),
            Err(Fail::Skip(why)) => (true, format!(" # SKIP {why}")),
            Err(Fail::Wrong(text)) => {
                comment("  ", text);
                (false, String::new())
            }
        };
        println!("  {} {} - {}{note}", word(good), number + 1, test.promise);
        failed += usize::from(!good);
    }
    if let Some(loaded) = loaded {
        loaded
            .unload()
            .map_err(|error| wrong(format!("rmmod: {error}")))?;
    }
    let traces = module::traces()?;
    if !traces.is_empty() {
        return Err(wrong(format!(
            "left behind after rmmod: {}",
            traces.join(", ")
        )));
    }
    if failed > 0 {
        return Err(Fail::Wrong(format!("{failed} of {} failed", tests.len())));
    }
    Ok(())
}

fn word(good: bool) -> &'static str {
    if good { "ok" } else { "not ok" }
}

fn comment(indent: &str, text: &str) {
    for line in text.lines() {
        println!("{indent}# {line}");
    }
}

/// Runs a test in a process of its own, which takes with it whatever it has opened or mapped, and
/// may die.
fn isolated(test: &Test, setup: &Setup) -> Outcome {
    let (mut reader, writer) = UnixStream::pair()?;
    let mut writer = Some(writer);
    let pid = process::fork(|| {
        // SAFETY: No pointers. What the test starts is to be found by its group.
        unsafe { libc::setpgid(0, 0) };
        let outcome = panic::catch_unwind(|| (test.run)(setup)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(Fail::Wrong(format!("panic: {}", text.unwrap_or("?"))))
        });
        report(writer.as_mut().expect("not taken yet"), &outcome)
    })?;
    drop(writer.take());
    let status = process::wait(pid);
    // SAFETY: No pointers. The group's leader has been waited for, and the group is ours.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    let status = status?;
    // Whoever inherited the other end is dead by now, or about to be.
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if libc::WIFSIGNALED(status) {
        return Err(Fail::Wrong(format!(
            "ended by signal {}",
            libc::WTERMSIG(status)
        )));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        4 => Err(Fail::Skip(text)),
        _ => Err(Fail::Wrong(text)),
    }
}

/// Passes an outcome on, half of it as an exit status.
fn report(writer: &mut UnixStream, outcome: &Outcome) -> i32 {
    let (status, text) = match outcome {
        Ok(()) => return 0,
        Err(Fail::Skip(text)) => (4, text),
        Err(Fail::Wrong(text)) => (1, text),
    };
    let _ = writer.write_all(&text.as_bytes()[..text.len().min(4000)]);
    status
}
