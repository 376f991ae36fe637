// SPDX-License-Identifier: GPL-2.0

//! `mapdrv list`

use std::io::{self, Write};
use std::process::ExitCode;

use mapdrv::Listed;

use crate::commands::info::mode;
use crate::failure::Failure;
use crate::output::{HEAD, Output, size};

pub fn run(out: &mut Output) -> Result<ExitCode, Failure> {
    let devices = mapdrv::devices()?;
    if out.json {
        for device in &devices {
            out.object(device)?;
        }
    } else {
        render(&devices, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(devices: &[Listed], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{HEAD}{:<14} {:>11} {:>11} {:<8} {:>8}{HEAD:#}",
        "NODE", "SIZE", "PAGES", "MODE", "MAPPINGS"
    )?;
    for device in devices {
        writeln!(
            out,
            "{:<14} {:>11} {:>11} {:<8} {:>8}",
            device.path.display(),
            size(device.size),
            device.pages,
            mode(device.mode),
            device.mappings
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use mapdrv::Mode;

    use super::*;
    use crate::output::{assert_line_documented, printed};

    fn device(number: u32, size: u64, mode: Mode) -> Listed {
        let mut device = Listed::default();
        device.path = format!("/dev/mapdrv{number}").into();
        device.size = size;
        device.pages = size.div_ceil(4096);
        device.mode = mode;
        device.mappings = number.into();
        device
    }

    #[test]
    fn table() {
        let devices = [device(0, 1, Mode::Vmalloc), device(63, 5 << 30, Mode::Huge)];
        expect![[r#"
            NODE                  SIZE       PAGES MODE     MAPPINGS
            /dev/mapdrv0           1 B           1 vmalloc         0
            /dev/mapdrv63     5.00 GiB     1310720 huge           63
        "#]]
        .assert_eq(&printed(|out| render(&devices, out)));
    }

    #[test]
    fn json() {
        let line = serde_json::to_string(&device(1, 4097, Mode::Huge)).unwrap();
        assert_line_documented(&line);
    }
}
