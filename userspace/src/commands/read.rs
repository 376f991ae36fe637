// SPDX-License-Identifier: GPL-2.0

//! `mapdrv read`

use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;

use mapdrv::{Access, Device};
use serde::Serialize;

use crate::cli::Read;
use crate::failure::Failure;
use crate::output::{OfDevice, Output};

/// Bytes copied out of the mapping at a time: text that ends soon needs no more pages than one.
const BLOCK: u64 = 4 << 10;

/// Bytes written at a time.
const BUFFER: usize = 64 << 10;

/// What was read, as JSON: one of `text` and `bytes`.
#[derive(Serialize)]
struct Json {
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<u8>>,
}

pub fn run(args: &Read, out: &mut Output) -> Result<ExitCode, Failure> {
    let device = Device::open(&args.device.path)?;
    let range = range(args, device.path().display(), device.size())?;

    if out.json {
        let mut bytes = Vec::new();
        let offset = range.start;
        let value = if args.hex || args.raw {
            raw(&device, range, &mut bytes)?;
            Json {
                offset,
                text: None,
                bytes: Some(bytes),
            }
        } else {
            text(&device, range, &mut bytes)?;
            Json {
                offset,
                text: Some(String::from_utf8_lossy(&bytes).into_owned()),
                bytes: None,
            }
        };
        let device = device.path();
        out.object(&OfDevice { device, value })?;
        return Ok(ExitCode::SUCCESS);
    }

    // Not `out`, which takes control sequences away: what the device holds is no text of ours.
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout());
    if args.raw {
        raw(&device, range, &mut out)?;
    } else if args.hex {
        hex(&device, range, &mut out)?;
    } else if io::stdout().is_terminal() {
        let mut bytes = Vec::new();
        text(&device, range, &mut bytes)?;
        writeln!(out, "{}", harmless(&String::from_utf8_lossy(&bytes)))?;
    } else {
        text(&device, range, &mut out)?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The bytes asked for, of those there are.
fn range(args: &Read, device: impl std::fmt::Display, size: u64) -> Result<Range<u64>, Failure> {
    let start = args.offset;
    if start > size {
        return Err(Failure::Usage(format!(
            "{device}: offset {start:#x} is past the end, {size:#x}"
        )));
    }
    let len = args.len.unwrap_or(u64::MAX);
    Ok(start..start.saturating_add(len).min(size))
}

/// Hands the bytes of `range` to `each`, block by block, while it wants more.
fn blocks(
    device: &Device,
    range: Range<u64>,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<bool>,
) -> Result<(), Failure> {
    if range.is_empty() {
        return Ok(());
    }
    let mapping = device.map(range.clone(), Access::Read)?;
    let mut block = vec![0; BLOCK.min(range.end - range.start) as usize];
    for start in range.clone().step_by(BLOCK as usize) {
        let block = &mut block[..BLOCK.min(range.end - start) as usize];
        mapping.copy_to(start, block)?;
        if !each(start, block)? {
            break;
        }
    }
    Ok(())
}

/// Writes all bytes of `range`.
fn raw(device: &Device, range: Range<u64>, out: &mut impl Write) -> Result<(), Failure> {
    blocks(device, range, |_, block| {
        out.write_all(block).map(|()| true)
    })
}

/// Writes the bytes up to the first NUL or newline.
fn text(device: &Device, range: Range<u64>, out: &mut impl Write) -> Result<(), Failure> {
    blocks(device, range, |_, block| {
        let end = block.iter().position(|&byte| byte == 0 || byte == b'\n');
        out.write_all(&block[..end.unwrap_or(block.len())])?;
        Ok(end.is_none())
    })
}

/// Text that does nothing to a terminal.
fn harmless(text: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(harmless).collect()
}

/// Writes `range` as `hexdump -C` does.
fn hex(device: &Device, range: Range<u64>, out: &mut impl Write) -> Result<(), Failure> {
    let (empty, end) = (range.is_empty(), range.end);
    let mut dump = HexDump::default();
    blocks(device, range, |start, block| {
        for (offset, line) in (start..).step_by(16).zip(block.chunks(16)) {
            dump.line(offset, line, out)?;
        }
        Ok(true)
    })?;
    if !empty {
        writeln!(out, "{end:08x}")?;
    }
    Ok(())
}

/// What is remembered from line to line of a hex dump: equal lines after the first are one `*`.
#[derive(Default)]
struct HexDump {
    last: Vec<u8>,
    repeating: bool,
}

impl HexDump {
    fn line(&mut self, offset: u64, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        if bytes.len() == 16 && bytes == self.last {
            if !self.repeating {
                writeln!(out, "*")?;
            }
            self.repeating = true;
            return Ok(());
        }
        self.repeating = false;
        self.last.clear();
        self.last.extend_from_slice(bytes);

        write!(out, "{offset:08x} ")?;
        for i in 0..16 {
            if i % 8 == 0 {
                write!(out, " ")?;
            }
            match bytes.get(i) {
                Some(byte) => write!(out, "{byte:02x} ")?,
                None => write!(out, "   ")?,
            }
        }
        let text = bytes.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        writeln!(out, " |{}|", text.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::output::{assert_documented, printed};

    #[test]
    fn hex_dump() {
        let mut bytes = b"Hello from the kernel!".to_vec();
        bytes.resize(96, 0);
        bytes.extend([0x7f, 0xff, b'~']);
        let text = printed(|out| {
            let mut dump = HexDump::default();
            let mut lines = (0x1005..).step_by(16).zip(bytes.chunks(16));
            lines.try_for_each(|(offset, line)| dump.line(offset, line, out))
        });
        expect![[r#"
            00001005  48 65 6c 6c 6f 20 66 72  6f 6d 20 74 68 65 20 6b  |Hello from the k|
            00001015  65 72 6e 65 6c 21 00 00  00 00 00 00 00 00 00 00  |ernel!..........|
            00001025  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
            *
            00001065  7f ff 7e                                          |..~|
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn text_is_harmless() {
        assert_eq!(harmless("a\tb\x1b[2Jä"), "a\tb\u{fffd}[2Jä");
    }

    #[test]
    fn ranges_end_with_the_device() {
        let range = |offset, len| {
            let args = Read {
                device: crate::cli::DeviceArg {
                    path: "mapfile".into(),
                },
                offset,
                len,
                hex: false,
                raw: false,
            };
            range(&args, "mapfile", 100).ok()
        };
        assert_eq!(range(0, None), Some(0..100));
        assert_eq!(range(90, Some(20)), Some(90..100));
        assert_eq!(range(90, Some(5)), Some(90..95));
        assert_eq!(range(100, None), Some(100..100));
        assert_eq!(range(1, Some(u64::MAX)), Some(1..100));
        assert_eq!(range(101, None), None);
    }

    #[test]
    fn json() {
        assert_documented(&Json {
            offset: 0,
            text: Some("Hello".into()),
            bytes: None,
        });
        assert_documented(&Json {
            offset: 4096,
            text: None,
            bytes: Some(b"Hello".into()),
        });
    }
}
