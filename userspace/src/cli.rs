// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::convert::Infallible;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::failure::{FAILED, NO_DEVICE, PERMISSION, USAGE};

/// Look at, read, verify and explain the devices of map_driver
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = exit_status())]
pub struct Cli {
    /// Print JSON, one object on each line
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The last section of the help.
fn exit_status() -> String {
    format!(
        "Exit status:
  0  fine
  {FAILED}  the check failed, or the work could not be finished
  {USAGE}  wrong usage
  {NO_DEVICE}  no such device, or not one of map_driver's
  {PERMISSION}  permission denied"
    )
}

/// What the program can do.
#[derive(Subcommand)]
pub enum Command {
    /// List the devices present
    List,
    Info(Info),
    Read(Read),
    Verify(Verify),
    Write(Write),
    Walk(Walk),
    Map(Map),
    Layout(Layout),
    Stat(Stat),
    Wait(Wait),
    Bench(Bench),
    Completions(Completions),
    Man(Man),
}

/// The device to work on.
#[derive(Args)]
pub struct DeviceArg {
    /// A node such as /dev/mapdrv0 or one made with mknod, or just the number of a device
    #[arg(value_name = "DEV", value_parser = parse_device)]
    pub path: PathBuf,
}

/// Say what a device is
#[derive(Args)]
pub struct Info {
    #[command(flatten)]
    pub device: DeviceArg,
}

/// Print what a device holds, through a mapping of it
///
/// By default this is text: all bytes up to the first NUL or newline.
#[derive(Args)]
pub struct Read {
    #[command(flatten)]
    pub device: DeviceArg,

    /// Byte to start at; as everywhere, 0x is understood, and K, M, G, T are powers of 1024
    #[arg(long, short, value_name = "BYTES", default_value = "0", value_parser = parse_bytes)]
    pub offset: u64,

    /// Bytes to print at most [default: to the end]
    #[arg(long, short, value_name = "BYTES", value_parser = parse_bytes)]
    pub len: Option<u64>,

    /// Print offsets, bytes and characters as `hexdump -C` does
    #[arg(long, short = 'x', conflicts_with = "raw")]
    pub hex: bool,

    /// Print the bytes as they are
    #[arg(long, short)]
    pub raw: bool,
}

/// Check every byte of a device against the published pattern
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    pub device: DeviceArg,

    /// Threads to use [default: one for each processor]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<NonZero<usize>>,

    /// Check N pages chosen at random instead of all
    #[arg(long, value_name = "N")]
    pub random: Option<u64>,

    /// How to get at the bytes; several, with commas between them, are done in turn
    #[arg(long, short, value_delimiter = ',', default_value = "mmap")]
    pub method: Vec<Method>,

    /// Where `--method direct` makes its temporary files [default: the usual place]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// How to get at the bytes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The processor reads them in a mapping
    Mmap,
    /// The kernel copies them, by pread(2)
    Read,
    /// A disk takes them out of the mapping's pages, by a write with O_DIRECT
    Direct,
}

/// Write to a device
///
/// What does not fit is an error; what fits is written all the same.
#[derive(Args)]
pub struct Write {
    #[command(flatten)]
    pub device: DeviceArg,

    /// The file to write, or - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,

    /// Byte of the device to start at
    #[arg(long, short, value_name = "BYTES", default_value = "0", value_parser = parse_bytes)]
    pub offset: u64,
}

/// Draw both page-table walks that lead to a byte: the kernel's and this process's
///
/// The frame number at the end of each is shown to callers with CAP_SYS_ADMIN only. If they
/// differ, the exit status is 1.
#[derive(Args)]
pub struct Walk {
    #[command(flatten)]
    pub device: DeviceArg,

    /// The byte, or several
    #[arg(value_name = "OFFSET", default_value = "0", value_parser = parse_bytes)]
    pub offsets: Vec<u64>,
}

/// Draw which pages of a device are present in the page tables of its users
///
/// Shows a mapping of this program's own, in which it touches one byte; all mappings of other
/// processes that it may look into; and which pages do not hold the published pattern any more.
#[derive(Args)]
pub struct Map {
    #[command(flatten)]
    pub device: DeviceArg,

    /// The byte to touch in the mapping of this program's own; may be given several times
    #[arg(long, short, value_name = "OFFSET", default_value = "0", value_parser = parse_bytes)]
    pub touch: Vec<u64>,

    /// Draw again and again, every second or every SECONDS
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          require_equals = true, value_parser = parse_seconds)]
    pub watch: Option<Duration>,

    /// Stop after N drawings
    #[arg(long, value_name = "N", requires = "watch")]
    pub count: Option<u64>,
}

/// Show what lies where in this process's address space
///
/// Text, data, BSS, heap, stack, libraries, vDSO and, with DEV, a mapping of a device. An address
/// known to be in each is looked up in /proc/self/maps; if one is missing there, the exit status
/// is 1.
#[derive(Args)]
pub struct Layout {
    /// A node, or just the number of a device
    #[arg(value_name = "DEV", value_parser = parse_device)]
    pub device: Option<PathBuf>,
}

/// Print the counters of a device
#[derive(Args)]
pub struct Stat {
    #[command(flatten)]
    pub device: DeviceArg,

    /// Then print what was added every SECONDS
    #[arg(long, short, value_name = "SECONDS", value_parser = parse_seconds)]
    pub interval: Option<Duration>,

    /// Stop after N lines
    #[arg(long, value_name = "N", requires = "interval")]
    pub count: Option<u64>,
}

/// Wait until something is written to a device
///
/// Notices write(2) and its kin; what is written through mappings the kernel does not see.
#[derive(Args)]
pub struct Wait {
    #[command(flatten)]
    pub device: DeviceArg,

    /// Give up after SECONDS, with exit status 1
    #[arg(long, short, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
}

/// Measure what mapping, touching and unmapping a device costs
///
/// Does the same to a memfd and to anonymous memory. What the device holds stays as it is.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub device: DeviceArg,

    /// Bytes to map [default: the whole device, at most 64M]
    #[arg(long, short, value_name = "BYTES", value_parser = parse_bytes)]
    pub len: Option<u64>,

    /// How often to do each step
    #[arg(long, short = 'n', value_name = "N", default_value = "11")]
    pub times: NonZero<usize>,
}

/// Print completions for a shell
#[derive(Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// Print the manual page
#[derive(Args)]
pub struct Man {
    /// Write the pages of all commands to this directory instead
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A node, or the number of one in `/dev`.
fn parse_device(arg: &str) -> Result<PathBuf, Infallible> {
    Ok(match arg.parse::<u32>() {
        Ok(number) => format!("/dev/{}{number}", mapdrv::uapi::DEVICE_NAME).into(),
        Err(_) => arg.into(),
    })
}

/// A number of bytes: decimal or 0x, and K, M, G or T for powers of 1024.
fn parse_bytes(arg: &str) -> Result<u64, String> {
    let (number, shift) = match arg.char_indices().last() {
        Some((i, 'k' | 'K')) => (&arg[..i], 10),
        Some((i, 'm' | 'M')) => (&arg[..i], 20),
        Some((i, 'g' | 'G')) => (&arg[..i], 30),
        Some((i, 't' | 'T')) => (&arg[..i], 40),
        _ => (arg, 0),
    };
    let value = match number.strip_prefix("0x").or(number.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => number.parse(),
    };
    value
        .ok()
        .and_then(|value| value.checked_mul(1 << shift))
        .ok_or_else(|| "not a number of bytes such as 4096, 0x1000, 4K or 1G".into())
}

/// A time above zero, in seconds.
fn parse_seconds(arg: &str) -> Result<Duration, String> {
    arg.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "not a number of seconds above 0".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes() {
        for (arg, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("0x1000", Some(4096)),
            ("0X10k", Some(16 << 10)),
            ("4K", Some(4096)),
            ("5g", Some(5 << 30)),
            ("1T", Some(1 << 40)),
            ("16777216T", None),
            ("", None),
            ("K", None),
            ("-1", None),
            ("0x", None),
            ("1.5M", None),
            ("1MiB", None),
        ] {
            assert_eq!(parse_bytes(arg).ok(), bytes, "{arg}");
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for arg in ["0", "-1", "", "x", "inf", "nan", "1e300"] {
            assert!(parse_seconds(arg).is_err(), "{arg}");
        }
    }

    #[test]
    fn devices() {
        for (arg, path) in [
            ("3", "/dev/mapdrv3"),
            ("./3", "./3"),
            ("mapfile", "mapfile"),
            ("/dev/mapdrv0", "/dev/mapdrv0"),
        ] {
            assert_eq!(parse_device(arg), Ok(path.into()));
        }
    }
}
