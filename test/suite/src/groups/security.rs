// SPDX-License-Identifier: GPL-2.0

//! What docs/security.md claims.

mod pins;

use crate::ktap::Test;

/// The tests of the group called `name`.
pub fn find(name: &str) -> Option<&'static [Test]> {
    Some(match name {
        "pins" => pins::TESTS,
        _ => return None,
    })
}
