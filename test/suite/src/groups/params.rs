// SPDX-License-Identifier: GPL-2.0

//! Parameters: what they do, what is refused and how, and that a refusal leaves nothing behind.

use crate::check::{Outcome, ensure, equal, refused};
use crate::device::{self, Setup};
use crate::kmsg::Log;
use crate::module::{self, Loaded};
use crate::process;
use crate::sys::{self, O_RDONLY};
use libc::{EBUSY, EINVAL, ENOMEM};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

tests! {
    "a value out of range is EINVAL, with one line that names parameter, value and range": out_of_range,
    "what is no number is EINVAL, with one line that names parameter and value": no_number,
    "an unknown parameter is passed over by the kernel, with a line that names it": unknown,
    "numbers may be decimal, hexadecimal and octal": radix,
    "devices=N makes N devices, minors 0 to N-1, and one entry in /proc/devices": devices,
    "mode=M sets the permission bits of every node; without it they are 0600": mode,
    "an unprivileged user is kept out by the mode, and let in by it": access,
    "more than the machine holds is ENOMEM, without the OOM killer, and harms nothing": too_large,
    "what does not hold all devices is ENOMEM, and the ones already made are gone": too_many,
    "a second insmod is EEXIST and changes nothing": twice,
    "a process killed while it loads the module leaves nothing": killed,
    "a class of the same name makes loading fail with EBUSY, and nothing is left": class_taken,
    "when all majors are taken loading fails with EBUSY, and nothing is left": majors_taken,
    "modinfo describes every parameter, with its range and default": modinfo,
}

/// Tries to load the driver, which must fail, leave nothing, and say so in one line, which is
/// returned.
#[track_caller]
fn fails(params: &str, errno: i32) -> Outcome<String> {
    let log = Log::from_now()?;
    refused(
        format!("insmod {params}"),
        module::insert(module::NAME, params),
        errno,
    )?;
    equal(format!("{params}: traces"), module::traces()?, vec![])?;
    let lines = log.lines_of(module::NAME)?;
    equal(
        format!("{params}: lines in the log, of {lines:?}"),
        lines.len(),
        1,
    )?;
    Ok(lines[0].clone())
}

#[track_caller]
fn has(line: &str, what: &str) -> Outcome {
    ensure(
        format!("`{what}` is not in the line: {line}"),
        line.contains(what),
    )
}

/// The driver can be loaded at all; what the kernel has to say of it once it has said then.
fn warm_up() -> Outcome {
    Ok(Loaded::new("")?.unload()?)
}

fn out_of_range(_: &Setup) -> Outcome {
    warm_up()?;
    let max = "9223372036854771712";
    let cases = [
        ("devices", "0", "1", "64"),
        ("devices", "65", "1", "64"),
        ("devices", "-1", "1", "64"),
        ("devices", "9223372036854775807", "1", "64"),
        ("size", "0", "1", max),
        ("size", "-1", "1", max),
        ("size", "-9223372036854775808", "1", max),
        ("size", "9223372036854771713", "1", max),
        ("size", "9223372036854775807", "1", max),
        ("fill", "2", "0", "1"),
        ("fill", "-1", "0", "1"),
        ("fault_around", "0", "4096", "2097152"),
        ("fault_around", "4095", "4096", "2097152"),
        ("fault_around", "4097", "4096", "2097152"),
        ("fault_around", "12288", "4096", "2097152"),
        ("fault_around", "2097153", "4096", "2097152"),
        ("fault_around", "4194304", "4096", "2097152"),
        ("fault_around", "-4096", "4096", "2097152"),
        ("huge", "2", "0", "1"),
        ("huge", "-1", "0", "1"),
    ];
    for (name, value, least, most) in cases {
        let line = fails(&format!("{name}={value}"), EINVAL)?;
        for part in [&format!("{name}={value}"), least, most] {
            has(&line, part)?;
        }
    }
    // The mode is octal, to read and to write.
    for (given, value) in [
        ("01000", "1000"),
        ("512", "1000"),
        ("-1", "-"),
        ("65536", "200000"),
    ] {
        let line = fails(&format!("mode={given}"), EINVAL)?;
        for part in ["mode=", value, "777"] {
            has(&line, part)?;
        }
    }
    Ok(())
}

fn no_number(_: &Setup) -> Outcome {
    warm_up()?;
    for name in ["devices", "size", "fill", "mode", "fault_around", "huge"] {
        for value in [
            "",
            "abc",
            "1x",
            "1M",
            "0x",
            "1.5",
            "--1",
            "9223372036854775808",
            "99999999999999999999",
            "-9223372036854775809",
        ] {
            let params = format!("{name}={value}");
            let line = fails(&params, EINVAL)?;
            has(&line, name)?;
            has(&line, value)?;
        }
        // Without a value at all.
        has(&fails(name, EINVAL)?, name)?;
    }
    Ok(())
}

fn unknown(_: &Setup) -> Outcome {
    warm_up()?;
    let log = Log::from_now()?;
    Loaded::new("colour=blue")?.unload()?;
    let lines = log.lines()?;
    ensure(
        format!("no line names it: {lines:?}"),
        lines.iter().any(|line| line.contains("colour")),
    )
}

fn radix(_: &Setup) -> Outcome {
    for value in ["8192", "0x2000", "020000"] {
        let loaded = Loaded::new(&format!("size={value}"))?;
        equal(value, device::info(&device::open(O_RDONLY)?)?.size, 8192)?;
        loaded.unload()?;
    }
    Ok(())
}

fn devices(_: &Setup) -> Outcome {
    for count in [1, 2, 3, 63, 64] {
        let loaded = Loaded::new(&format!("devices={count} size=4097"))?;
        let listed = fs::read_to_string("/proc/devices")?;
        equal(
            "entries",
            listed
                .lines()
                .filter(|line| line.ends_with(" mapdrv"))
                .count(),
            1,
        )?;
        let major: u32 = listed
            .lines()
            .find_map(|line| line.strip_suffix(" mapdrv")?.trim().parse().ok())
            .unwrap_or(0);
        let mut seeds = Vec::new();
        for minor in 0..count {
            let node = fs::metadata(device::path(minor))?;
            ensure("not a character device", node.file_type().is_char_device())?;
            equal("its number", node.rdev(), libc::makedev(major, minor))?;
            let fd = sys::open(&device::path(minor), O_RDONLY)?;
            let info = device::info(&fd)?;
            equal("minor", info.minor, minor)?;
            seeds.push(info.seed);
            let pattern = Setup::new("size=4097").pattern(minor);
            equal("contents", sys::read_all(&fd, 1 << 16)?, pattern.all())?;
            ensure(
                "no class entry",
                fs::exists(format!("/sys/class/mapdrv/mapdrv{minor}"))?,
            )?;
        }
        seeds.sort_unstable();
        seeds.dedup();
        equal("different seeds", seeds.len(), count as usize)?;
        ensure("one device too many", !fs::exists(device::path(count))?)?;
        loaded.unload()?;
        equal("traces", module::traces()?, vec![])?;
    }
    Ok(())
}

fn mode(_: &Setup) -> Outcome {
    for (params, expected) in [
        ("", 0o600),
        ("mode=0", 0),
        ("mode=0600", 0o600),
        ("mode=0644", 0o644),
        ("mode=0666", 0o666),
        ("mode=0777", 0o777),
        ("mode=438", 0o666),
    ] {
        let loaded = Loaded::new(&format!("devices=2 {params}"))?;
        for minor in 0..2 {
            let node = fs::metadata(device::path(minor))?;
            equal(format!("{params}: mode"), node.mode() & 0o7777, expected)?;
            equal("owner", (node.uid(), node.gid()), (0, 0))?;
        }
        loaded.unload()?;
    }
    Ok(())
}

fn access(_: &Setup) -> Outcome {
    for (params, read, write) in [
        ("", false, false),
        ("mode=0644", true, false),
        ("mode=0666", true, true),
    ] {
        let loaded = Loaded::new(params)?;
        process::in_child(|| {
            process::become_nobody()?;
            equal(
                format!("{params}: read"),
                device::open(O_RDONLY).is_ok(),
                read,
            )?;
            equal(
                format!("{params}: write"),
                device::open(sys::O_RDWR).is_ok(),
                write,
            )?;
            if read {
                device::mapped(&Setup::new(""))?.touch();
            }
            Ok(())
        })?;
        loaded.unload()?;
    }
    Ok(())
}

/// A value of /proc/meminfo, in KiB.
fn meminfo(name: &str) -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let value = text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .split_whitespace()
            .next()
    });
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// Tries to load with `params`: ENOMEM, and the machine as it was.
fn no_memory(params: &str) -> Outcome {
    let before = meminfo("MemAvailable")?;
    let killed = oom_kills()?;
    let line = fails(params, ENOMEM)?;
    has(&line, "size=")?;
    equal("OOM kills", oom_kills()?, killed)?;
    let after = meminfo("MemAvailable")?;
    ensure(
        format!("MemAvailable was {before}, is {after} KiB"),
        after + before / 10 > before,
    )
}

fn oom_kills() -> Outcome<String> {
    let text = fs::read_to_string("/proc/vmstat")?;
    Ok(text
        .lines()
        .find(|line| line.starts_with("oom_kill "))
        .unwrap_or_default()
        .to_owned())
}

fn too_large(_: &Setup) -> Outcome {
    warm_up()?;
    let total = meminfo("MemTotal")? * 1024;
    for size in [
        total - (total >> 6),
        total,
        4 * total,
        1 << 46,
        1 << 47,
        1 << 55,
        1 << 62,
        9223372036854771712,
    ] {
        for fill in [0, 1] {
            no_memory(&format!("size={size} fill={fill}"))?;
        }
    }
    Ok(())
}

fn too_many(_: &Setup) -> Outcome {
    warm_up()?;
    let size = meminfo("MemAvailable")? * 1024 / 5;
    // Some of them fit, so it is not the first that fails.
    Loaded::new(&format!("devices=3 size={size} fill=0"))?.unload()?;
    for devices in [6, 64] {
        no_memory(&format!("devices={devices} size={size} fill=0"))?;
    }
    Ok(())
}

fn twice(_: &Setup) -> Outcome {
    let loaded = Loaded::new("size=4097")?;
    let fd = device::open(sys::O_RDWR)?;
    sys::pwrite(&fd, 0, b"kept")?;
    let second = module::insert(module::NAME, "size=8192");
    refused("insmod", second, libc::EEXIST)?;
    equal("contents", sys::pread(&fd, 0, 4)?, b"kept".to_vec())?;
    equal("size", device::info(&device::open(O_RDONLY)?)?.size, 4097)?;
    drop(fd);
    Ok(loaded.unload()?)
}

fn killed(_: &Setup) -> Outcome {
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let size = meminfo("MemAvailable")? * 1024 / 2;
        let params = format!("size={size}");
        let before = meminfo("MemAvailable")?;
        let pid = process::fork(|| i32::from(module::insert(module::NAME, &params).is_err()))?;
        while !fs::read_to_string("/proc/modules")?
            .lines()
            .any(|line| line.starts_with("map_driver "))
        {
            std::thread::yield_now();
        }
        // SAFETY: The child is ours and has not been waited for.
        unsafe { libc::kill(pid, signal) };
        let status = process::wait(pid)?;
        ensure(
            format!("loading was not interrupted: {status:#x}"),
            libc::WIFSIGNALED(status),
        )?;
        equal("traces", module::traces()?, vec![])?;
        let after = meminfo("MemAvailable")?;
        ensure(
            format!("MemAvailable was {before}, is {after} KiB"),
            after + before / 10 > before,
        )?;
    }
    Ok(())
}

/// Tries to load while `obstacle` is in the way; then with it gone.
fn behind(obstacle: &str, errno: i32) -> Outcome {
    warm_up()?;
    let before = meminfo("VmallocUsed")?;
    module::insert("obstacle", obstacle)?;
    let log = Log::from_now()?;
    let result = module::insert(module::NAME, "devices=3");
    let lines = log.lines_of(module::NAME)?;
    let traces = module::traces();
    module::remove("obstacle")?;
    refused(format!("insmod behind {obstacle}"), result, errno)?;
    // Of the traces one may be the obstacle's own.
    let traces: Vec<String> = traces?
        .into_iter()
        .filter(|trace| trace != "/sys/class/mapdrv")
        .collect();
    equal("traces", traces, vec![])?;
    ensure(
        format!("more than one line in the log: {lines:?}"),
        lines.len() <= 1,
    )?;
    // The kernel frees the memory of a module a little later.
    for _ in 0..100 {
        if meminfo("VmallocUsed")? < before + 256 {
            return warm_up();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    ensure("memory is left behind", false)
}

fn class_taken(_: &Setup) -> Outcome {
    // The kernel keeps EEXIST for modules that are loaded already, and changes it to this.
    behind("class=1", EBUSY)
}

fn majors_taken(_: &Setup) -> Outcome {
    behind("majors=1", EBUSY)
}

fn modinfo(_: &Setup) -> Outcome {
    let file = fs::read("map_driver.ko")?;
    let text = |prefix: &str| -> Vec<String> {
        file.split(|&byte| byte == 0)
            .filter_map(|entry| entry.strip_prefix(prefix.as_bytes()))
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect()
    };
    let described = text("parm=");
    for (name, default) in [
        ("devices", "1"),
        ("size", "1048576"),
        ("fill", "1"),
        ("fault_around", "65536"),
        ("huge", "0"),
        ("mode", "0600"),
    ] {
        let found = described
            .iter()
            .find(|entry| entry.split(':').next() == Some(name));
        let entry = found.ok_or_else(|| crate::check::wrong(format!("{name} is not described")))?;
        has(entry, &format!("default {default}"))?;
        ensure(
            format!("no range: {entry}"),
            entry.contains(" to ") || entry.contains(" or ") || entry.contains("1 for"),
        )?;
    }
    for name in ["size", "fault_around"] {
        let entry = described
            .iter()
            .find(|entry| entry.split(':').next() == Some(name));
        has(entry.map_or("", String::as_str), "Bytes")?;
    }
    equal("names", text("parmtype=").len(), described.len())?;
    equal("licence", text("license="), vec!["GPL".to_owned()])
}
