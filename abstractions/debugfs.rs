// SPDX-License-Identifier: GPL-2.0

//! debugfs files with an owner.
//!
//! The `kernel` crate's have none: there, a module can be unloaded while one of its files is open,
//! and the next access to it is an oops. Here the module is in use for as long.
//!
//! Nobody depends on debugfs, so a file or directory that cannot be made is just not there.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    bindings,
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::Arc, //
};

/// A name in debugfs, which goes away with `self`.
///
/// # Invariants
///
/// The pointer is owned, and comes from a debugfs function that creates, errors included.
struct Dentry(*mut bindings::dentry);

// SAFETY: A dentry can be used and removed from any thread.
unsafe impl Send for Dentry {}
// SAFETY: As above.
unsafe impl Sync for Dentry {}

impl Drop for Dentry {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the pointer is ours, or an error, which is ignored.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

/// A directory in debugfs. It goes away with the last of its files and of the references to it.
pub(crate) struct Dir {
    dentry: Dentry,
    // Removing a directory removes what is in it, so it must be done last.
    _parent: Option<Arc<Dir>>,
}

impl Dir {
    /// Makes a directory in `parent`, or at the top. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(name: &CStr, parent: Option<Arc<Dir>>) -> Result<Arc<Self>> {
        let dir = parent.as_ref().map_or(ptr::null_mut(), |dir| dir.dentry.0);
        // SAFETY: The name is a C string, which is copied; the parent is null, a directory, or an
        // error, which is passed through.
        let dentry = Dentry(unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), dir) });
        Ok(Arc::new(
            Self {
                dentry,
                _parent: parent,
            },
            GFP_KERNEL,
        )?)
    }
}

/// What a file does.
#[vtable]
pub(crate) trait FileOperations: Send + Sync + 'static {
    /// The module that implements this. It cannot be unloaded while the file is open.
    const OWNER: &'static ThisModule;

    /// Prints the contents. May sleep.
    fn show(&self, m: &SeqFile);

    /// Takes a truth value (`1`, `0`, `y`, `n`, `on`, `off`) that has been written. May sleep.
    ///
    /// # Errors
    ///
    /// Whatever `write(2)` is to fail with.
    fn write(&self, _value: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A file in debugfs, for the super-user only.
pub(crate) struct File<T: FileOperations> {
    // Fields are dropped in this order: removing the file waits for those who are using its data.
    _dentry: Dentry,
    _data: KBox<T>,
    _dir: Arc<Dir>,
}

impl<T: FileOperations> File<T> {
    /// Makes a file in `dir` that does what `data` says. May sleep.
    ///
    /// It can be opened as soon as this returns. As a module whose `init` fails is unloaded even
    /// so, nothing may fail after this.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(name: &CStr, dir: &Arc<Dir>, data: T) -> Result<Self> {
        let data = KBox::new(data, GFP_KERNEL)?;
        // SAFETY:
        // - The name is a C string, which is copied; the directory is one, or an error, which is
        //   passed through.
        // - The data is in a box of its own that is dropped after the file is removed, and is what
        //   the operations expect.
        let dentry = unsafe {
            bindings::debugfs_create_file_full(
                name.as_char_ptr(),
                if T::HAS_WRITE { 0o600 } else { 0o400 },
                dir.dentry.0,
                ptr::from_ref(&*data).cast_mut().cast(),
                ptr::null(),
                &VTable::<T>::VTABLE,
            )
        };
        Ok(Self {
            _dentry: Dentry(dentry),
            _data: data,
            _dir: dir.clone(),
        })
    }
}

/// Builds the file operations of a `T`.
///
/// debugfs calls them only while the file has not been removed.
struct VTable<T>(PhantomData<T>);

impl<T: FileOperations> VTable<T> {
    /// # Safety
    ///
    /// `inode` must be that of a file made by [`File::new`], and `file` in the course of being
    /// opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The caller promises validity; `show` gets what `File::new` has stored.
        unsafe { bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// `m` must be one made by [`Self::open`], in use by this thread only.
    unsafe extern "C" fn show(m: *mut bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: `open` has passed on what `File::new` has stored, which is there until the file is
        // removed.
        let data = unsafe { &*(*m).private.cast::<T>() };
        // SAFETY: The caller promises what is asked for.
        data.show(unsafe { SeqFile::from_raw(m) });
        0
    }

    /// # Safety
    ///
    /// `file` must have been opened by [`Self::open`].
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        from_result(|| {
            let mut value = false;
            // SAFETY: `value` is valid to write; `buf` is checked to be user memory.
            to_result(unsafe { bindings::kstrtobool_from_user(buf, count, &mut value) })?;
            // SAFETY: `open` has stored a `seq_file` there, and in it what `File::new` has stored,
            // which is there until the file is removed.
            let data = unsafe {
                let m: *mut bindings::seq_file = (*file).private_data.cast();
                &*(*m).private.cast::<T>()
            };
            data.write(value)?;
            // CAST: No write is longer than `isize::MAX` bytes.
            Ok(count as isize)
        })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: T::OWNER.as_ptr(),
        open: Some(Self::open),
        read: Some(bindings::seq_read),
        write: if T::HAS_WRITE {
            Some(Self::write)
        } else {
            None
        },
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };
}
