// SPDX-License-Identifier: GPL-2.0

//! What each mode may cost, and a test of it.

use anyhow::{Context, Result, bail, ensure};

use crate::peers::PEERS;
use crate::record::{Record, measure};

/// How much worse than it was something may be.
const SLACK: f64 = 1.03;

/// A line of the file `limits`.
struct Limit<'a> {
    metric: &'a str,
    goal: f64,
    was: f64,
    mode: &'a str,
}

fn limits() -> Result<Vec<Limit<'static>>> {
    include_str!("../limits")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (metric, rest) = line.split_once(' ').context("no goal")?;
            let (goal, rest) = rest.trim_start().split_once(' ').context("no figure")?;
            let (was, mode) = rest.trim_start().split_once(' ').context("no mode")?;
            Ok(Limit {
                metric,
                goal: goal.parse()?,
                was: was.parse()?,
                mode: mode.trim(),
            })
        })
        .collect()
}

/// The figure of `record` that a limit is about.
fn figure(record: &Record, metric: &str) -> Result<f64> {
    Ok(match metric {
        "total" => record.per_page(record.costs.total()),
        "fork" => record.costs.fork as f64,
        "random" => record.costs.random as f64,
        "sparse" => record.costs.sparse as f64,
        _ => bail!("no such metric: {metric}"),
    })
}

/// Prints KTAP, a test for each limit.
pub fn check() -> Result<()> {
    let limits = limits()?;
    let mut records = Vec::new();
    for peer in PEERS {
        if peer.ours() || peer.name.ends_with("huge pages") {
            let whole = limits
                .iter()
                .any(|limit| limit.mode == peer.name && limit.metric != "total");
            records.push(measure(peer, 256, 0, whole || !peer.ours())?);
        }
    }
    let find = |name: &str| {
        let found = records.iter().find(|record| record.peer == name);
        found.with_context(|| format!("no such mode: {name}"))
    };

    println!("KTAP version 1");
    let mut verdicts = Verdicts::default();
    for limit in &limits {
        let now = figure(find(limit.mode)?, limit.metric)?;
        // Having a child is too much work of other kinds to be the same each time.
        let slack = if limit.metric == "total" {
            SLACK
        } else {
            f64::INFINITY
        };
        let most = limit.goal.min(limit.was * slack);
        let what = format!(
            "{} costs {} for its {}",
            limit.mode,
            round(now),
            limit.metric
        );
        verdicts.say(now <= most, &format!("{what}, at most {}", round(most)));
    }
    for metric in ["random", "sparse"] {
        let ours = figure(find("mapdrv huge=1")?, metric)?;
        for peer in ["memfd, huge pages", "anonymous, huge pages"] {
            let theirs = figure(find(peer)?, metric)?;
            let what = format!(
                "mapdrv huge=1 costs {ours} for its {metric} touches, less than the {theirs} of {peer}"
            );
            verdicts.say(ours < theirs, &what);
        }
    }
    println!("1..{}", verdicts.number);
    ensure!(verdicts.failed == 0, "{} limits exceeded", verdicts.failed);
    Ok(())
}

#[derive(Default)]
struct Verdicts {
    number: u32,
    failed: u32,
}

impl Verdicts {
    fn say(&mut self, good: bool, what: &str) {
        self.number += 1;
        self.failed += u32::from(!good);
        let verdict = if good { "ok" } else { "not ok" };
        println!("{verdict} {} - {what}", self.number);
    }
}

/// Two digits where they matter.
fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_one_of_a_mode_and_a_metric() {
        let limits = limits().unwrap();
        assert!(!limits.is_empty());
        for limit in limits {
            assert!(
                PEERS.iter().any(|peer| peer.name == limit.mode),
                "{}",
                limit.mode
            );
            assert!(limit.was <= limit.goal, "{}", limit.mode);
            let record = Record {
                peer: String::new(),
                ours: true,
                mib: 256,
                round: 0,
                costs: Default::default(),
                read: Default::default(),
            };
            assert!(figure(&record, limit.metric).is_ok());
        }
    }
}
