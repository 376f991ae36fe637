// SPDX-License-Identifier: GPL-2.0

//! The tests.

/// A list of tests: each a promise, and the function that checks it.
macro_rules! tests {
    ($($promise:literal: $run:expr,)*) => {
        pub const TESTS: &[crate::ktap::Test] = &[$(crate::ktap::Test { promise: $promise, run: $run }),*];
    };
}

mod big;
mod changes;
#[cfg(target_arch = "x86_64")]
mod compat;
mod contents;
mod files;
mod foreign;
mod fragmented;
mod inject;
mod ioctls;
mod leak;
mod mapping;
mod oracle;
mod params;
mod races;
mod refuse;
mod security;
mod stats;
mod unload;
mod walk;

use crate::ktap::Test;

/// The tests of the group called `name`.
pub fn find(name: &str) -> Option<&'static [Test]> {
    Some(match name {
        "big" => big::TESTS,
        "changes" => changes::TESTS,
        #[cfg(target_arch = "x86_64")]
        "compat" => compat::TESTS,
        "contents" => contents::TESTS,
        "files" => files::TESTS,
        "foreign" => foreign::TESTS,
        "fragmented" => fragmented::TESTS,
        "inject" => inject::TESTS,
        "inject-load" => inject::load::TESTS,
        "ioctls" => ioctls::TESTS,
        "leak" => leak::TESTS,
        "mapping" => mapping::TESTS,
        "oracle" => oracle::TESTS,
        "params" => params::TESTS,
        "race" => races::mixed::TESTS,
        "race-cpus" => races::cpus::TESTS,
        "race-fault" => races::fault::TESTS,
        "race-kill" => races::kill::TESTS,
        "race-memory" => races::memory::TESTS,
        "race-oom" => races::oom::TESTS,
        "race-unload" => races::unload::TESTS,
        "refuse" => refuse::TESTS,
        "stats" => stats::TESTS,
        "unload" => unload::TESTS,
        "walk" => walk::TESTS,
        _ => return security::find(name),
    })
}
