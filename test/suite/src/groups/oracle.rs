// SPDX-License-Identifier: GPL-2.0

//! The walk of the page tables, against the kernel's own: see `test/modules/walk_oracle`.

use crate::check::{Outcome, equal, refused};
use crate::device::Setup;
use crate::{kmsg, module};

tests! {
    "the walk agrees with vmalloc_to_page for every page of 65 MiB": agrees,
    "the same for one page": one_page,
}

fn run(params: &str, pages: usize) -> Outcome {
    let log = kmsg::Log::from_now()?;
    module::insert("walk_oracle", params)?;
    module::remove("walk_oracle")?;
    let lines = log.lines_of("walk_oracle")?;
    let expected = format!("{pages} pages of 4096 bytes agree");
    equal(
        "matching lines in the log",
        lines.iter().filter(|line| line.contains(&expected)).count(),
        1,
    )
}

fn agrees(_: &Setup) -> Outcome {
    run("", 16_640)
}

fn one_page(_: &Setup) -> Outcome {
    run("pages=1", 1)?;
    // What the module finds does end up in the result of loading it.
    refused(
        "no pages",
        module::insert("walk_oracle", "pages=0"),
        libc::EINVAL,
    )
}
