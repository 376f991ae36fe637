// SPDX-License-Identifier: GPL-2.0

//! ioctl arguments that can grow.
//!
//! Caller and kernel may know versions of a structure of different length. As with `openat2(2)`,
//! what is longer must be zero in what the other does not know.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h), `copy_struct_from_user`

use kernel::{
    ioctl::_IOC_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

const ZEROES: [u8; 64] = [0; 64];

/// Reads the first `IN` words of the structure at `arg`, whose size is part of `cmd`, and
/// overwrites it with the `OUT` words that `answer` makes of them. May sleep.
///
/// `OUT` is the length of the structure as the kernel knows it.
///
/// # Errors
///
/// `EINVAL` if the structure is shorter than `IN` words; `E2BIG` if it is longer than `OUT` words
/// and not zero there; `EFAULT` if it cannot be read or written; else what `answer` fails with.
pub(crate) fn exchange<const IN: usize, const OUT: usize>(
    cmd: u32,
    arg: usize,
    answer: impl FnOnce([u64; IN]) -> Result<[u64; OUT]>,
) -> Result {
    let size = _IOC_SIZE(cmd);
    if size < size_of::<[u64; IN]>() {
        return Err(EINVAL);
    }
    let user = UserSlice::new(UserPtr::from_addr(arg), size);
    let (mut reader, mut writer) = user.reader_writer();

    let mut words = [0; IN];
    for word in &mut words {
        *word = reader.read()?;
    }
    let known = size_of::<[u64; OUT]>().min(size);
    reader.skip(known.wrapping_sub(size_of::<[u64; IN]>()))?;
    while !reader.is_empty() {
        let mut chunk = ZEROES;
        let len = ZEROES.len().min(reader.len());
        reader.read_slice(chunk.get_mut(..len).ok_or(EINVAL)?)?;
        if chunk != ZEROES {
            return Err(E2BIG);
        }
    }

    for word in answer(words)? {
        let bytes = word.to_ne_bytes();
        let len = bytes.len().min(writer.len());
        writer.write_slice(bytes.get(..len).ok_or(EINVAL)?)?;
    }
    while !writer.is_empty() {
        let len = ZEROES.len().min(writer.len());
        writer.write_slice(ZEROES.get(..len).ok_or(EINVAL)?)?;
    }
    Ok(())
}
