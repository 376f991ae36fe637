// SPDX-License-Identifier: GPL-2.0

//! The program as a whole, where there is no module: what it says and its exit status.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use expect_test::{expect, expect_file};

/// Commands that take a device first, with what they need besides.
const WITH_DEVICE: [&[&str]; 9] = [
    &["info"],
    &["read"],
    &["verify"],
    &["write"],
    &["walk"],
    &["map"],
    &["layout"],
    &["stat"],
    &["wait"],
];

fn mapdrv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapdrv"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Output {
    mapdrv(args).output().unwrap()
}

/// Runs every command that takes a device on `device`; the one thing that all of them say.
fn on_all(device: &str, status: i32) -> String {
    let mut said = None;
    for command in WITH_DEVICE {
        let output = run(&[command, &[device]].concat());
        assert_eq!(output.status.code(), Some(status), "{command:?}");
        assert!(output.stdout.is_empty(), "{command:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
        assert_eq!(*said.get_or_insert_with(|| stderr.clone()), stderr);
    }
    said.unwrap()
}

#[test]
fn wrong_devices() {
    expect![[r#"
        mapdrv: /dev/null: not a map_driver device but character device 1:3 of the driver "mem"
    "#]]
    .assert_eq(&on_all("/dev/null", 3));
    expect![[r#"
        mapdrv: /dev/zero: not a map_driver device but character device 1:5 of the driver "mem"
    "#]]
    .assert_eq(&on_all("/dev/zero", 3));
    expect![[r#"
        mapdrv: /proc/self/exe: not a map_driver device but a regular file
    "#]]
    .assert_eq(&on_all("/proc/self/exe", 3));
    expect![[r#"
        mapdrv: /: not a map_driver device but a directory
    "#]]
    .assert_eq(&on_all("/", 3));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let said = on_all(pipe.to_str().unwrap(), 3);
    assert!(
        said.ends_with("not a map_driver device but a pipe\n"),
        "{said}"
    );
}

#[test]
fn what_is_not_there() {
    let loaded = Path::new("/sys/class/mapdrv").exists();
    let said = on_all("/nonexistent", 3);
    let reason = if loaded {
        "No such file"
    } else {
        "try `insmod"
    };
    assert!(said.contains(reason), "{said}");
    on_all("4000000000", 3);
    on_all("/proc/self/exe/x", 3);
}

#[test]
fn wrong_usage() {
    for args in [
        &["read"][..],
        &["nonsense"],
        &["read", "/dev/null", "--offset", "1X"],
        &["read", "/dev/null", "--hex", "--raw"],
        &["verify", "/dev/null", "--jobs", "0"],
        &["verify", "/dev/null", "--method", "guess"],
        &["stat", "/dev/null", "--interval", "0"],
        &["wait", "/dev/null", "--timeout", "never"],
        &["completions", "none"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(output.stderr.starts_with(b"error: "));
    }
}

#[test]
fn layout_without_a_device_is_right() {
    let output = run(&["layout"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for what in [
        "text",
        "read-only data",
        "data",
        "BSS",
        "heap",
        "stack",
        "vDSO",
    ] {
        let found = text
            .lines()
            .any(|line| line.contains(&format!(" {what}: ")));
        assert!(found, "no {what} in\n{text}");
    }

    let output = run(&["layout", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], true);
    assert!(json["areas"].as_array().unwrap().len() > 5);
}

#[test]
fn help() {
    expect_file!["snapshots/help.txt"].assert_eq(&all_help());
}

/// The help of the program and of each command, at 80 columns.
fn all_help() -> String {
    let commands = [&["completions"][..], &["list"], &["man"]];
    let mut text = String::new();
    for command in [&[][..]].iter().chain(&WITH_DEVICE).chain(&commands) {
        let output = mapdrv(&[*command, &["--help"]].concat())
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        text += &format!("$ mapdrv {} --help\n", command.join(" "));
        text += &String::from_utf8(output.stdout).unwrap();
        text += "\n";
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    text
}

#[test]
fn manual_and_completions_are_made() {
    let page = run(&["man"]);
    assert_eq!(page.status.code(), Some(0));
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains(".TH mapdrv 1"), "{page}");
    assert!(page.contains("Exit status"), "{page}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(run(&["man", "--dir", path]).status.code(), Some(0));
    assert!(directory.path().join("mapdrv-verify.1").exists());
    assert_eq!(
        run(&["man", "--dir", "/nonexistent"]).status.code(),
        Some(1)
    );

    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{shell}");
        assert!(String::from_utf8(script.stdout).unwrap().contains("verify"));
    }
    let json = run(&["completions", "bash", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["shell"], "bash");
}

#[test]
fn a_full_disk_is_reported() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = mapdrv(&["layout"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    expect![[r#"
        mapdrv: standard output: No space left on device (os error 28)
    "#]]
    .assert_eq(&stderr);
}

#[test]
fn a_closed_pipe_is_quiet() {
    let (reader, writer) = UnixStream::pair().unwrap();
    drop(reader);
    let output = mapdrv(&["completions", "bash"])
        .stdout(OwnedFd::from(writer))
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(13), "SIGPIPE");
    assert!(output.stderr.is_empty());
}

#[test]
fn colours_are_for_terminals() {
    let plain = |command: &mut Command| {
        let output = command.output().unwrap();
        !output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b)
    };
    assert!(plain(&mut mapdrv(&["layout"])));
    assert!(plain(mapdrv(&["layout"]).env("NO_COLOR", "1")));
    assert!(!plain(mapdrv(&["layout"]).env("CLICOLOR_FORCE", "1")));
}
