// SPDX-License-Identifier: GPL-2.0

//! `mapdrv stat`

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use mapdrv::{Device, Stats};

use crate::cli::Stat;
use crate::failure::Failure;
use crate::output::{HEAD, OfDevice, Output};

/// Lines between two headings.
const PAGE: u64 = 20;

pub fn run(args: &Stat, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let mut before = Stats::default();
    let lines = match args.interval {
        Some(_) => args.count.unwrap_or(u64::MAX),
        None => 1,
    };
    for line in 0..lines {
        if let Some(interval) = args.interval.filter(|_| line > 0) {
            thread::sleep(interval);
        }
        let now = device.stats()?;
        let value = added(&now, &before);
        if out.json {
            out.object(&OfDevice {
                device: device.path(),
                value,
            })?;
        } else {
            if line % PAGE == 0 {
                heading(out)?;
            }
            render(&value, out)?;
        }
        out.flush()?;
        before = now;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was added to the counters; what is counted at the moment stays as it is.
fn added(now: &Stats, before: &Stats) -> Stats {
    let mut added = *now;
    for (counter, before) in [
        (&mut added.faults, before.faults),
        (&mut added.faults_sigbus, before.faults_sigbus),
        (&mut added.pages_installed, before.pages_installed),
        (&mut added.read_bytes, before.read_bytes),
        (&mut added.written_bytes, before.written_bytes),
    ] {
        *counter = counter.saturating_sub(before);
    }
    added
}

fn heading(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{HEAD}{:>10} {:>6} {:>11} {:>5} {:>4} {:>11} {:>11}{HEAD:#}",
        "FAULTS", "SIGBUS", "PAGES", "MAPS", "OPEN", "READ", "WRITTEN"
    )
}

fn render(stats: &Stats, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>10} {:>6} {:>11} {:>5} {:>4} {:>11} {:>11}",
        stats.faults,
        stats.faults_sigbus,
        stats.pages_installed,
        stats.mappings,
        stats.open_files,
        stats.read_bytes,
        stats.written_bytes
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use mapdrv::uapi;

    use super::*;
    use crate::output::{assert_documented, printed};

    fn stats(faults: u64, mappings: u64) -> Stats {
        uapi::Stats {
            faults,
            pages_installed: 16 * faults,
            mappings,
            open_files: 1,
            read_bytes: 5 << 30,
            ..uapi::Stats::default()
        }
        .into()
    }

    #[test]
    fn table() {
        let text = printed(|out| {
            // So that not all lines are indented: what all have in common is not compared.
            writeln!(out, "1234567890")?;
            heading(out)?;
            render(&stats(65_536, 3), out)
        });
        expect![[r#"
            1234567890
                FAULTS SIGBUS       PAGES  MAPS OPEN        READ     WRITTEN
                 65536      0     1048576     3    1  5368709120           0
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn json() {
        assert_documented(&stats(1, 2));
    }

    #[test]
    fn counters_are_differences_and_the_rest_is_not() {
        let added = added(&stats(10, 2), &stats(7, 5));
        assert_eq!((added.faults, added.pages_installed), (3, 48));
        assert_eq!((added.mappings, added.open_files), (2, 1));
        assert_eq!(added.read_bytes, 0);
    }
}
