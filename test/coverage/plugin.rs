// SPDX-License-Identifier: GPL-2.0

//! A plugin for QEMU that writes down which code of modules the guest's kernel has run: for each
//! block of instructions, when it is first translated, its address and the bytes of each.
//!
//! Load it with `-plugin libcoverage.so,out=FILE`. It writes when the machine is turned off, and costs
//! nothing while blocks run.
//!
//! C header: `qemu-plugin.h`

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

/// The version of the interface that this is written for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// Where x86-64 keeps its modules (Documentation/arch/x86/x86_64/mm.rst).
const MODULES: Range<u64> = 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000;

/// `struct qemu_plugin_tb`
#[repr(C)]
pub struct Block(c_void);

/// `struct qemu_plugin_insn`
#[repr(C)]
pub struct Instruction(c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_atexit_cb(
        id: u64,
        callback: extern "C" fn(u64, *mut c_void),
        data: *mut c_void,
    );
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut u8, len: usize) -> usize;
}

/// The blocks seen, a line each.
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Where they go.
static OUT: OnceLock<String> = OnceLock::new();

extern "C" fn translated(_id: u64, block: *mut Block) {
    // SAFETY: QEMU lends the block for this call.
    let (address, count) = unsafe { (qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block)) };
    if !MODULES.contains(&address) {
        return;
    }
    let mut line = format!("{address:x}");
    for index in 0..count {
        let mut bytes = [0; 16];
        // SAFETY: The block has this instruction, and `bytes` as much room as is said.
        let len = unsafe {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            qemu_plugin_insn_data(instruction, bytes.as_mut_ptr(), bytes.len())
        };
        line.push(' ');
        for byte in &bytes[..len.min(bytes.len())] {
            write!(line, "{byte:02x}").expect("a string takes all");
        }
    }
    SEEN.lock().expect("nothing panics").insert(line);
}

extern "C" fn ended(_id: u64, _data: *mut c_void) {
    let Some(out) = OUT.get() else { return };
    let seen = SEEN.lock().expect("nothing panics");
    let text: String = seen.iter().flat_map(|line| [line, "\n"]).collect();
    if let Err(error) = std::fs::write(out, text) {
        eprintln!("cannot write {out}: {error}");
    }
}

/// What QEMU calls first.
///
/// # Safety
///
/// `argv` must point to `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    for index in 0..argc as usize {
        // SAFETY: The caller promises the strings.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) };
        if let Some(out) = argument
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("out="))
        {
            OUT.get_or_init(|| out.into());
        }
    }
    if OUT.get().is_none() {
        eprintln!("coverage: no file to write to; give out=FILE");
        return 1;
    }
    // SAFETY: We are being installed, which is the time for these calls.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
    }
    0
}
