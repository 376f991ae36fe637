// SPDX-License-Identifier: GPL-2.0

//! `mapdrv info`

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use mapdrv::{Device, Mode};

use crate::cli::Info;
use crate::failure::Failure;
use crate::output::{HEAD, OfDevice, Output, count, size};

pub fn run(args: &Info, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let info = device.info()?;
    if out.json {
        out.object(&OfDevice {
            device: device.path(),
            value: info,
        })?;
    } else {
        render(device.path(), &info, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(device: &Path, info: &mapdrv::Info, out: &mut impl Write) -> io::Result<()> {
    let contents = if info.fill {
        format!("the published pattern, seed {:#018x}", info.seed)
    } else {
        "zeroes".into()
    };
    let window = info.fault_around / u64::from(info.page_size.max(1));
    for (name, value) in [
        ("device", device.display().to_string()),
        ("minor", info.minor.to_string()),
        (
            "size",
            format!("{} ({})", count(info.size, "byte"), size(info.size)),
        ),
        (
            "pages",
            format!("{} of {} bytes", info.pages, info.page_size),
        ),
        ("mode", mode(info.mode).into()),
        ("one fault maps", format!("up to {}", count(window, "page"))),
        ("loaded with", contents),
        (
            "generation",
            format!("{} since", count(info.generation, "write")),
        ),
        ("mappings", info.mappings.to_string()),
    ] {
        writeln!(out, "{HEAD}{name:<15}{HEAD:#} {value}")?;
    }
    Ok(())
}

/// The mode of mapping, in a word.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Vmalloc => "vmalloc",
        Mode::Huge => "huge",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use mapdrv::uapi;

    use super::*;
    use crate::output::{assert_documented, printed};

    fn device() -> mapdrv::Info {
        uapi::Info {
            size: 1_000_000,
            pages: 245,
            page_size: 4096,
            mode: uapi::MODE_HUGE,
            seed: uapi::seed(3),
            generation: 1,
            fault_around: 65536,
            fill: 1,
            minor: 3,
            mappings: 2,
            ..uapi::Info::default()
        }
        .into()
    }

    #[test]
    fn text() {
        let path = Path::new("mapfile");
        expect![[r#"
            device          mapfile
            minor           3
            size            1000000 bytes (976.56 KiB)
            pages           245 of 4096 bytes
            mode            huge
            one fault maps  up to 16 pages
            loaded with     the published pattern, seed 0xfd32ebc4998121d3
            generation      1 write since
            mappings        2
        "#]]
        .assert_eq(&printed(|out| render(path, &device(), out)));
    }

    #[test]
    fn a_device_of_zeroes() {
        let mut device = device();
        device.fill = false;
        let text = printed(|out| render(Path::new("mapfile"), &device, out));
        assert!(text.contains("loaded with     zeroes\n"), "{text}");
    }

    #[test]
    fn json() {
        assert_documented(&device());
    }
}
