// SPDX-License-Identifier: GPL-2.0

//! A plugin for QEMU that counts the instructions of the guest's kernel, by address and by what the
//! guest's benchmark is doing at the time: the phases of `mapdrv::bench`.
//!
//! Load it with `-plugin libtrace.so,out=FILE`. When the machine is turned off it writes a line for each
//! instruction that was executed in a phase: address, phase, count, and whether the instruction is
//! a locked one.
//!
//! C header: `qemu-plugin.h`

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// The version of the interface that this is written for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// `QEMU_PLUGIN_CB_NO_REGS`
const NO_REGS: c_int = 0;
/// `QEMU_PLUGIN_COND_NE`
const NOT_EQUAL: c_int = 3;
/// `QEMU_PLUGIN_INLINE_STORE_U64`
const STORE: c_int = 1;

/// `struct qemu_plugin_tb`
#[repr(C)]
pub struct Block(c_void);

/// `struct qemu_plugin_insn`
#[repr(C)]
pub struct Instruction(c_void);

/// `qemu_plugin_u64`: a number for each virtual CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct PerCpu {
    board: *mut c_void,
    offset: usize,
}

// SAFETY: It is a handle, which QEMU lets all its threads use.
unsafe impl Send for PerCpu {}
// SAFETY: As above.
unsafe impl Sync for PerCpu {}

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_atexit_cb(
        id: u64,
        callback: extern "C" fn(u64, *mut c_void),
        data: *mut c_void,
    );
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut c_void;
    fn qemu_plugin_u64_get(entry: PerCpu, cpu: c_uint) -> u64;
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut u8, len: usize) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        instruction: *mut Instruction,
        operation: c_int,
        entry: PerCpu,
        value: u64,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cond_cb(
        instruction: *mut Instruction,
        callback: extern "C" fn(c_uint, *const Counted),
        flags: c_int,
        condition: c_int,
        entry: PerCpu,
        value: u64,
        data: *const Counted,
    );
}

/// How many phases there are.
const PHASES: usize = 16;

/// An instruction of the kernel.
#[repr(C)]
pub struct Counted {
    address: u64,
    locked: bool,
    counts: [AtomicU64; PHASES],
}

/// The phase each virtual CPU is in.
static PHASE: OnceLock<PerCpu> = OnceLock::new();
/// Every instruction seen, as often as it was translated.
static SEEN: Mutex<Vec<&'static Counted>> = Mutex::new(Vec::new());
/// Where the counts go.
static OUT: OnceLock<String> = OnceLock::new();

/// Returns the phase that an instruction tells of, if it is `mapdrv::bench::mark`.
fn marked(bytes: &[u8]) -> Option<u64> {
    let displacement = bytes.strip_prefix(&[0x0f, 0x1f, 0x80])?;
    let displacement = u32::from_le_bytes(displacement.try_into().ok()?);
    displacement
        .checked_sub(0x6d61_7000)
        .filter(|&phase| phase < PHASES as u32)
        .map(Into::into)
}

/// Returns whether an instruction reads and writes memory as one: whether it has the lock prefix, or is
/// an `xchg` with memory.
fn locked(bytes: &[u8]) -> bool {
    let end_of_segments = |byte: &u8| !matches!(byte, 0x2e | 0x3e | 0x64..=0x67);
    let start = bytes.iter().position(end_of_segments).unwrap_or(0);
    match &bytes[start..] {
        [0xf0, ..] => true,
        [0x86 | 0x87, modrm, ..] | [0x40..=0x4f, 0x86 | 0x87, modrm, ..] => *modrm < 0xc0,
        _ => false,
    }
}

extern "C" fn translated(_id: u64, block: *mut Block) {
    let Some(&phase) = PHASE.get() else { return };
    // SAFETY: QEMU lends the block for this call.
    for index in 0..unsafe { qemu_plugin_tb_n_insns(block) } {
        let mut bytes = [0; 16];
        // SAFETY: The block has this instruction, and `bytes` as much room as is said.
        let (instruction, address, len) = unsafe {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            let len = qemu_plugin_insn_data(instruction, bytes.as_mut_ptr(), bytes.len());
            (instruction, qemu_plugin_insn_vaddr(instruction), len)
        };
        let bytes = &bytes[..len.min(bytes.len())];
        if address >> 63 == 1 {
            let counted: &Counted = Box::leak(Box::new(Counted {
                address,
                locked: locked(bytes),
                counts: Default::default(),
            }));
            SEEN.lock().expect("nothing panics").push(counted);
            // SAFETY: The instruction is the block's, and what the callback is given lives forever.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_cond_cb(
                    instruction,
                    executed,
                    NO_REGS,
                    NOT_EQUAL,
                    phase,
                    0,
                    counted,
                );
            }
        } else if let Some(value) = marked(bytes) {
            // SAFETY: The instruction is the block's.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                    instruction,
                    STORE,
                    phase,
                    value,
                );
            }
        }
    }
}

extern "C" fn executed(cpu: c_uint, counted: *const Counted) {
    let Some(&phase) = PHASE.get() else { return };
    // SAFETY: QEMU gives the number of a CPU there is, and the pointer that it was given.
    let (phase, counted) = unsafe { (qemu_plugin_u64_get(phase, cpu), &*counted) };
    if let Some(count) = counted.counts.get(phase as usize) {
        count.fetch_add(1, Relaxed);
    }
}

extern "C" fn ended(_id: u64, _data: *mut c_void) {
    let mut counts = BTreeMap::<_, u64>::new();
    for counted in SEEN.lock().expect("nothing panics").iter() {
        for (phase, count) in counted.counts.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                *counts
                    .entry((counted.address, phase, counted.locked))
                    .or_default() += count;
            }
        }
    }
    let mut text = String::new();
    for ((address, phase, locked), count) in counts {
        let locked = u8::from(locked);
        writeln!(text, "{address:x} {phase} {count} {locked}").expect("a string takes all");
    }
    let Some(out) = OUT.get() else { return };
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
        eprintln!("trace: no file to write to; give out=FILE");
        return 1;
    }
    // SAFETY: We are being installed, which is the time for these calls.
    unsafe {
        PHASE.get_or_init(|| PerCpu {
            board: qemu_plugin_scoreboard_new(size_of::<u64>()),
            offset: 0,
        });
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_other_instructions() {
        assert_eq!(marked(&[0x0f, 0x1f, 0x80, 3, 0x70, 0x61, 0x6d]), Some(3));
        assert_eq!(marked(&[0x0f, 0x1f, 0x80, 0, 0, 0, 0]), None);
        assert_eq!(marked(&[0x90]), None);
    }

    #[test]
    fn locked_instructions() {
        assert!(locked(&[0xf0, 0xff, 0x07]) && locked(&[0x65, 0xf0, 0xff]));
        assert!(locked(&[0x48, 0x87, 0x07]) && !locked(&[0x48, 0x87, 0xc7]));
        assert!(!locked(&[0xff, 0xf0]));
    }
}
