// SPDX-License-Identifier: GPL-2.0

//! What all commands share in printing.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::BinaryBytes;
use serde::Serialize;

/// Headings.
pub const HEAD: Style = Style::new().bold();
/// What is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What matters less.
pub const DIM: Style = Style::new().dimmed();

/// Columns where there is no terminal.
const WIDTH: usize = 80;

/// Standard output: colours only where somebody sees them.
pub struct Output {
    stream: BufWriter<AutoStream<Stdout>>,
    /// Whether to print JSON.
    pub json: bool,
    /// Columns to fill.
    pub width: usize,
}

impl Output {
    /// Standard output as the environment wants it.
    pub fn new(json: bool) -> Self {
        let width = terminal_size::terminal_size_of(io::stdout())
            .map_or(WIDTH, |(terminal_size::Width(width), _)| width.into());
        Self {
            stream: BufWriter::new(AutoStream::auto(io::stdout())),
            json,
            width,
        }
    }

    /// Prints one JSON object, on a line of its own.
    pub fn object(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stream, value)?;
        writeln!(self.stream)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What a device answered, and which it was.
#[derive(Serialize)]
pub struct OfDevice<'a, T> {
    pub device: &'a Path,
    #[serde(flatten)]
    pub value: T,
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// "1 page", "2 pages".
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What a test sees of what `render` prints.
#[cfg(test)]
pub fn printed(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    render(&mut bytes).expect("memory takes it all");
    let text = anstream::adapter::strip_bytes(&bytes).into_vec();
    String::from_utf8(text).expect("we print text")
}

/// Makes sure that JSON.md shows `value`, as [`Output::object`] prints it, for the device `mapfile`.
#[cfg(test)]
pub fn assert_documented(value: &impl Serialize) {
    let line = serde_json::to_string(&OfDevice {
        device: Path::new("mapfile"),
        value,
    });
    assert_line_documented(&line.expect("it is JSON"));
}

/// Makes sure that JSON.md has this line.
#[cfg(test)]
pub fn assert_line_documented(line: &str) {
    let documentation = include_str!("../JSON.md");
    let found = documentation.lines().any(|documented| documented == line);
    assert!(found, "JSON.md lacks this line:\n{line}");
}
