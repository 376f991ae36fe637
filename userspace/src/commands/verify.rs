// SPDX-License-Identifier: GPL-2.0

//! `mapdrv verify`

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use mapdrv::{Device, Mismatch, Options, Report, Selection};
use serde::Serialize;
use signal_hook::consts::SIGINT;

use crate::cli::{Method, Verify};
use crate::failure::{FAILED, Failure};
use crate::output::{BAD, GOOD, HEAD, OfDevice, Output, count, size};

/// Mismatches shown.
const SHOWN: usize = 10;

/// A report as JSON.
#[derive(Serialize)]
struct Json<'a> {
    method: String,
    ok: bool,
    pages: u64,
    bytes: u64,
    faults: u64,
    seconds: f64,
    mismatches: u64,
    first: &'a [Mismatch],
}

pub fn run(args: &Verify, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let interrupted = interruption()?;
    let mut ok = true;
    for &method in &args.method {
        let report = verify(&device, args, method, &interrupted)?;
        if interrupted.load(Ordering::Relaxed) {
            // By the signal, as if it had not been caught.
            signal_hook::low_level::emulate_default_handler(SIGINT)?;
        }
        ok &= report.is_ok();
        let device = device.path();
        if out.json {
            let value = json(method, &report);
            out.object(&OfDevice { device, value })?;
        } else {
            render(device, method, &report, out)?;
        }
        out.flush()?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { FAILED.into() })
}

/// What becomes true at the first Ctrl-C; the second ends the program at once.
fn interruption() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_default(SIGINT, interrupted.clone())?;
    signal_hook::flag::register(SIGINT, interrupted.clone())?;
    Ok(interrupted)
}

/// Verifies by one method, with a progress bar.
fn verify(
    device: &Device,
    args: &Verify,
    method: Method,
    interrupted: &AtomicBool,
) -> mapdrv::Result<Report> {
    let selection = match args.random {
        None => Selection::All,
        Some(count) => Selection::Random {
            count,
            seed: RandomState::new().hash_one(0),
        },
    };
    let bar = progress_bar(match args.random {
        None => device.mappable(),
        Some(count) => count.saturating_mul(device.page_size().into()),
    });
    let report = device.verify(&Options {
        method: match method {
            Method::Mmap => mapdrv::Method::Mmap,
            Method::Read => mapdrv::Method::Read,
            Method::Direct => mapdrv::Method::Direct {
                directory: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
            },
        },
        selection,
        jobs: args.jobs,
        keep: SHOWN,
        cancel: Some(interrupted),
        progress: Some(&|bytes| bar.inc(bytes)),
    });
    bar.finish_and_clear();
    report
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    let template = match terminal_size::terminal_size_of(io::stderr()) {
        Some((terminal_size::Width(width), _)) if width < 60 => "{percent:>3}% {wide_bar}",
        _ => "{percent:>3}% {wide_bar} {binary_total_bytes} {binary_bytes_per_sec} {eta}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is right");
    ProgressBar::new(bytes).with_style(style)
}

/// The name of a method on the command line.
fn name(method: Method) -> String {
    let value = method.to_possible_value().expect("no method is hidden");
    value.get_name().into()
}

fn json(method: Method, report: &Report) -> Json<'_> {
    Json {
        method: name(method),
        ok: report.is_ok(),
        pages: report.pages,
        bytes: report.bytes,
        faults: report.faults,
        seconds: report.elapsed.as_secs_f64(),
        mismatches: report.mismatches,
        first: &report.first,
    }
}

fn render(device: &Path, method: Method, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let seconds = report.elapsed.as_secs_f64();
    let rate = (report.bytes as f64 / seconds) as u64;
    let verdict = if report.is_ok() {
        format!("{GOOD}ok{GOOD:#}")
    } else {
        format!("{BAD}WRONG{BAD:#}")
    };
    writeln!(
        out,
        "{}: {}: {verdict}: {}, {}, {}, {seconds:.3} s, {}/s",
        device.display(),
        name(method),
        count(report.pages, "page"),
        count(report.bytes, "byte"),
        count(report.faults, "page fault"),
        size(rate),
    )?;
    if report.mismatches == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "{} not as expected; the first:",
        count(report.mismatches, "word")
    )?;
    writeln!(
        out,
        "{HEAD}{:>9}  {:>12}  {:<23}  FOUND{HEAD:#}",
        "PAGE", "OFFSET", "EXPECTED"
    )?;
    for mismatch in &report.first {
        let from = (mismatch.offset % 8) as usize;
        writeln!(
            out,
            "{:>9}  {:>#12x}  {:<23}  {}",
            mismatch.page,
            mismatch.offset,
            spaced(&mismatch.expected[from..]),
            spaced(&mismatch.found[from..]),
        )?;
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
fn spaced(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::output::{assert_documented, printed};

    fn report() -> Report {
        let mut report = Report::default();
        report.pages = 256;
        report.bytes = 1 << 20;
        report.faults = 16;
        report.elapsed = Duration::from_millis(125);
        report
    }

    fn wrong() -> Report {
        let mut report = report();
        let mut mismatch = Mismatch::default();
        mismatch.page = 5;
        mismatch.offset = 0x5003;
        mismatch.expected = *b"Hello fr";
        mismatch.found = *b"Hel\0\0 fr";
        report.first.push(mismatch);
        mismatch.page = 1_310_719;
        mismatch.offset = 0x1_3fff_fff8;
        report.first.push(mismatch);
        report.mismatches = 12;
        report
    }

    fn rendered(report: &Report) -> String {
        printed(|out| render(Path::new("mapfile"), Method::Mmap, report, out))
    }

    #[test]
    fn right() {
        expect![[r#"
            mapfile: mmap: ok: 256 pages, 1048576 bytes, 16 page faults, 0.125 s, 8.00 MiB/s
        "#]]
        .assert_eq(&rendered(&report()));
    }

    #[test]
    fn not_right() {
        expect![[r#"
            mapfile: mmap: WRONG: 256 pages, 1048576 bytes, 16 page faults, 0.125 s, 8.00 MiB/s
            12 words not as expected; the first:
                 PAGE        OFFSET  EXPECTED                 FOUND
                    5        0x5003  6c 6f 20 66 72           00 00 20 66 72
              1310719   0x13ffffff8  48 65 6c 6c 6f 20 66 72  48 65 6c 00 00 20 66 72
        "#]]
        .assert_eq(&rendered(&wrong()));
    }

    #[test]
    fn as_json() {
        let mut report = wrong();
        report.first.truncate(1);
        assert_documented(&json(Method::Direct, &report));
    }
}
