// SPDX-License-Identifier: GPL-2.0

//! Character devices: a region of minors, a class, a node for each device, and what open files do.
//!
//! Unlike the `kernel` crate's `miscdevice`, the file operations here name their owner, so the
//! module cannot be unloaded while a file is open or mapped.
//!
//! C headers: [`include/linux/cdev.h`](srctree/include/linux/cdev.h),
//! [`include/linux/device/class.h`](srctree/include/linux/device/class.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    inode::PrivateInode,
    mmap::VmAreaDesc,
    sysfs, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    fs::{
        file::Offset,
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::{
        poll::PollTable,
        Arc, //
    },
    types::ForeignOwnable,
};

/// Bits of a minor in a `dev_t`, `MINORBITS` of [`kdev_t.h`](srctree/include/linux/kdev_t.h).
const MINORBITS: u32 = 20;

/// The answer to `poll`, the kernel's `__poll_t`.
#[derive(Clone, Copy)]
pub(crate) struct PollEvents(u32);

impl PollEvents {
    /// Reading and writing do not block: `EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM`.
    pub(crate) const READ_WRITE: Self =
        Self(bindings::POLLIN | bindings::POLLRDNORM | bindings::POLLOUT | bindings::POLLWRNORM);
    /// Something out of the ordinary has happened: `EPOLLPRI`.
    pub(crate) const PRI: Self = Self(bindings::POLLPRI);
}

impl core::ops::BitOr for PollEvents {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An open file of device `T`: the device, and what the driver keeps per open file.
///
/// Dereferences to the latter.
///
/// # Invariants
///
/// `device` points to a `T` that outlives `self`.
pub(crate) struct OpenFile<T: FileOperations> {
    device: NonNull<T>,
    data: T::File,
}

impl<T: FileOperations> OpenFile<T> {
    /// Returns the device.
    #[inline]
    pub(crate) fn device(&self) -> &T {
        // SAFETY: By the type invariants the device outlives `self`.
        unsafe { self.device.as_ref() }
    }
}

impl<T: FileOperations> Deref for OpenFile<T> {
    type Target = T::File;

    #[inline]
    fn deref(&self) -> &T::File {
        &self.data
    }
}

// SAFETY: A `T` may be shared among threads, and so may the driver's part.
unsafe impl<T: FileOperations> Send for OpenFile<T> {}
// SAFETY: As above.
unsafe impl<T: FileOperations> Sync for OpenFile<T> {}

/// What the files of a character device do; implemented by the device.
///
/// All methods run in process context and may sleep. The kernel checks the mode of the open file
/// (`O_RDONLY` and so on) before it calls them.
#[vtable]
pub(crate) trait FileOperations: sysfs::Attributes + Send {
    /// The module that implements this. It cannot be unloaded while a file is open or mapped.
    const OWNER: &'static ThisModule;

    /// What the driver keeps per open file.
    type File: Send + Sync;

    /// Returns the permission bits of the device's node in `/dev`. Constant.
    fn mode(&self) -> u16;

    /// Returns the inode that the files' mappings are to belong to, if not the node's own. Constant.
    fn inode(&self) -> Option<&PrivateInode>;

    /// Opens a file. If this succeeds, [`Self::release`] will be called.
    ///
    /// # Errors
    ///
    /// Whatever `open(2)` is to fail with.
    fn open(&self) -> Result<Self::File>;

    /// Closes a file, after its last descriptor and its last mapping are gone.
    fn release(file: &OpenFile<Self>);

    /// Returns the size in bytes, for seeking. Constant.
    fn size(&self) -> Offset;

    /// Reads at the position of `kiocb`, and advances it.
    fn read_iter(
        kiocb: Kiocb<'_, KBox<OpenFile<Self>>>,
        iov: &mut IovIterDest<'_>,
    ) -> Result<usize>;

    /// Writes at the position of `kiocb`, and advances it.
    fn write_iter(
        _kiocb: Kiocb<'_, KBox<OpenFile<Self>>>,
        _iov: &mut IovIterSource<'_>,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reports events, and registers for those to come.
    fn poll(_file: &OpenFile<Self>, _raw: &File, _table: PollTable<'_>) -> PollEvents {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles an ioctl, from 64-bit and 32-bit callers alike.
    fn ioctl(_file: &OpenFile<Self>, _raw: &File, _cmd: u32, _arg: usize) -> Result<isize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prepares a mapping. Must not change any state: the mapping may still fail, or be merged.
    fn mmap_prepare(_file: &OpenFile<Self>, _desc: &mut VmAreaDesc<OpenFile<Self>>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds lines to `/proc/PID/fdinfo/FD`.
    fn show_fdinfo(_file: &OpenFile<Self>, _m: &SeqFile) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A registration of character devices: minors `0..N` under one major, and their nodes.
///
/// Dropping it takes everything back.
pub(crate) struct Registration<T: FileOperations> {
    // Fields are dropped in this order: first nobody can open a device any more, then the nodes
    // disappear, and so on to what the earlier ones refer to.
    _cdev: Cdev,
    _nodes: Nodes,
    _class: Class,
    region: Region,
    devices: KVec<Arc<T>>,
}

impl<T: FileOperations> Registration<T> {
    /// Registers `devices` as minors 0, 1, … of a new region called `name`, with nodes
    /// `/dev/<name>0`, `/dev/<name>1`, …. May sleep.
    ///
    /// Files can be opened as soon as this returns, and a module whose `init` fails is unloaded
    /// even then. So it must be the last step of `init` that can fail, and is itself built so:
    /// whoever opens a node before that gets `ENXIO`.
    ///
    /// # Errors
    ///
    /// `EINVAL` without devices; `ENOMEM`; `EBUSY` if there is no major left; `EEXIST` if a class of
    /// that name exists.
    pub(crate) fn new(name: &'static CStr, devices: KVec<Arc<T>>) -> Result<Self> {
        let region = Region::new(name, u32::try_from(devices.len())?)?;
        let class = Class::new::<T>(name)?;
        // SAFETY: The class is one for a `T`, and dropped after `_nodes`, as are the devices, because
        // the fields are in that order.
        let nodes = unsafe { Nodes::new(&class, &region, name, &devices)? };
        // SAFETY: The nodes are those of `T`s, for all numbers of the region, and the order of the
        // fields is as asked for.
        let cdev = unsafe { Cdev::new::<T>(&region, &nodes)? };
        Ok(Self {
            _cdev: cdev,
            _nodes: nodes,
            _class: class,
            region,
            devices,
        })
    }

    /// Returns the major number.
    pub(crate) fn major(&self) -> u32 {
        self.region.dev >> MINORBITS
    }

    /// Returns the devices, by minor.
    pub(crate) fn devices(&self) -> &[Arc<T>] {
        &self.devices
    }
}

/// A range of device numbers.
///
/// # Invariants
///
/// `dev` is the first of `count` device numbers that `self` owns.
struct Region {
    dev: bindings::dev_t,
    count: u32,
}

impl Region {
    fn new(name: &'static CStr, count: u32) -> Result<Self> {
        let mut dev = 0;
        // SAFETY: `dev` is valid to write; the name is a C string that lives for ever.
        to_result(unsafe {
            bindings::alloc_chrdev_region(&mut dev, 0, count, name.as_char_ptr())
        })?;
        // INVARIANT: The region has been allocated.
        Ok(Self { dev, count })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `self` owns the region.
        unsafe { bindings::unregister_chrdev_region(self.dev, self.count) };
    }
}

/// A device class.
///
/// # Invariants
///
/// `class` was made by `class_create()` and is owned by `self`.
struct Class {
    class: NonNull<bindings::class>,
}

// SAFETY: A class can be used and destroyed from any thread.
unsafe impl Send for Class {}
// SAFETY: A class is not accessed through `&self`.
unsafe impl Sync for Class {}

impl Class {
    /// Makes a class for devices whose driver data points to an `Arc<T>`.
    fn new<T: FileOperations>(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a C string that lives for ever.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // SAFETY: The class is ours, and has no devices yet.
        unsafe {
            (*class).devnode = Some(Self::devnode::<T>);
            (*class).dev_groups = sysfs::groups::<T>().as_ptr();
        }
        Ok(Self {
            // INVARIANT: The class has been created.
            // SAFETY: `from_err_ptr` has ruled out errors; `class_create()` does not return null.
            class: unsafe { NonNull::new_unchecked(class) },
        })
    }

    /// Tells devtmpfs and udev the permission bits of a node.
    ///
    /// # Safety
    ///
    /// `dev` must be a device whose driver data points to an `Arc<T>`, valid during the call, and
    /// `mode` null or valid to write.
    unsafe extern "C" fn devnode<T: FileOperations>(
        dev: *const bindings::device,
        mode: *mut bindings::umode_t,
    ) -> *mut c_char {
        if !mode.is_null() {
            // devtmpfs takes zero for no answer; with the type of the node it is one.
            //
            // CAST: All bits of a mode fit.
            //
            // SAFETY: The caller promises that all three pointers are valid.
            unsafe {
                let bits = (*(*dev).driver_data.cast::<Arc<T>>()).mode();
                *mode = bindings::S_IFCHR as bindings::umode_t | bits;
            }
        }
        ptr::null_mut()
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `self` owns the class.
        unsafe { bindings::class_destroy(self.class.as_ptr()) };
    }
}

/// The nodes of a region's devices, in sysfs and in `/dev`.
///
/// # Invariants
///
/// - `class` is a valid class. The device numbers from `dev` on, `count` of them, each have a device
///   of this class, owned by `self`.
/// - `first` is the first of them, unless `count` is zero. Its driver data points to the first of
///   the `count` elements of a slice, as that of the others does to the others.
struct Nodes {
    class: NonNull<bindings::class>,
    first: *mut bindings::device,
    dev: bindings::dev_t,
    count: u32,
}

// SAFETY: Devices can be destroyed from any thread.
unsafe impl Send for Nodes {}
// SAFETY: Nothing is accessed through `&self`.
unsafe impl Sync for Nodes {}

impl Nodes {
    /// Makes a node for each of `devices`, by the numbers of `region`.
    ///
    /// # Safety
    ///
    /// `class` must be one for a `T`. It and `devices` must be dropped after the result.
    unsafe fn new<T: FileOperations>(
        class: &Class,
        region: &Region,
        name: &'static CStr,
        devices: &[Arc<T>],
    ) -> Result<Self> {
        // INVARIANT: No number has a device yet.
        let mut nodes = Self {
            class: class.class,
            first: ptr::null_mut(),
            dev: region.dev,
            count: 0,
        };
        for (minor, device) in (0..region.count).zip(devices) {
            // SAFETY:
            // - The class is valid, and by this function's contract outlives the device, and so
            //   does the driver data, which is what the class expects.
            // - The format takes a C string and an unsigned integer, and gets them.
            let dev = unsafe {
                bindings::device_create(
                    nodes.class.as_ptr(),
                    ptr::null_mut(),
                    region.dev | minor,
                    ptr::from_ref(device).cast_mut().cast(),
                    c"%s%u".as_char_ptr(),
                    name.as_char_ptr(),
                    minor,
                )
            };
            let dev = from_err_ptr(dev)?;
            // INVARIANT: One more number has a device, whose driver data points to one more element
            // of the slice.
            if minor == 0 {
                nodes.first = dev;
            }
            nodes.count = minor.wrapping_add(1);
        }
        Ok(nodes)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for minor in 0..self.count {
            // SAFETY: By the type invariants this number has a device of this class.
            unsafe { bindings::device_destroy(self.class.as_ptr(), self.dev | minor) };
        }
    }
}

/// A `struct cdev`: what makes the nodes of a region lead to file operations.
///
/// It is allocated by the C side and freed by its last reference, which may be later than
/// `cdev_del()`.
///
/// # Invariants
///
/// `cdev` has been added, and is owned by `self`.
struct Cdev {
    cdev: NonNull<bindings::cdev>,
}

// SAFETY: A `cdev` can be deleted from any thread.
unsafe impl Send for Cdev {}
// SAFETY: Nothing is accessed through `&self`.
unsafe impl Sync for Cdev {}

impl Cdev {
    /// Makes the device numbers of `region` lead to the file operations of `T`.
    ///
    /// # Safety
    ///
    /// `nodes` must be those of `T`s, one for each number of `region`, and be dropped after the
    /// result.
    unsafe fn new<T: FileOperations>(region: &Region, nodes: &Nodes) -> Result<Self> {
        if nodes.count == 0 || nodes.count != region.count {
            return Err(EINVAL);
        }
        // SAFETY: Just an FFI call.
        let cdev = NonNull::new(unsafe { bindings::cdev_alloc() }).ok_or(ENOMEM)?;
        // SAFETY:
        // - `cdev` is ours, and `nodes` has a first device, to which it keeps a reference once it is
        //   added.
        // - The file operations expect to find their devices by just that device.
        let added = to_result(unsafe {
            (*cdev.as_ptr()).owner = T::OWNER.as_ptr();
            (*cdev.as_ptr()).ops = &FileOperationsVTable::<T>::VTABLE;
            bindings::cdev_set_parent(cdev.as_ptr(), &raw mut (*nodes.first).kobj);
            bindings::cdev_add(cdev.as_ptr(), region.dev, region.count)
        });
        if let Err(err) = added {
            // SAFETY: `cdev` is ours and was not added, so it has no reference to its parent that it
            // could drop. This frees it.
            unsafe {
                (*cdev.as_ptr()).kobj.parent = ptr::null_mut();
                bindings::kobject_put(&raw mut (*cdev.as_ptr()).kobj);
            }
            return Err(err);
        }
        // INVARIANT: It has been added.
        Ok(Self { cdev })
    }

    /// Returns the device that `inode` is a node of.
    ///
    /// # Safety
    ///
    /// `inode` must be one whose file is being opened, and led there by a `Cdev::new::<T>()`. For
    /// `'a` the module must not be unloaded.
    unsafe fn device<'a, T>(inode: *const bindings::inode) -> Option<&'a Arc<T>> {
        // SAFETY: The caller promises that the inode has a `cdev`, and it is one of ours.
        let (cdev, dev, base, count) = unsafe {
            let cdev = (*inode).__bindgen_anon_5.i_cdev;
            (cdev, (*inode).i_rdev, (*cdev).dev, (*cdev).count)
        };
        let index = dev.checked_sub(base).filter(|&index| index < count)?;
        // SAFETY: `new` has made the parent of the `cdev` the first of its nodes, by whose invariants
        // the driver data points to the first of `count` elements. They are there until the module
        // is unloaded.
        unsafe {
            let first = kernel::container_of!((*cdev).kobj.parent, bindings::device, kobj);
            // CAST: An index of 32 bits fits.
            Some(&*(*first).driver_data.cast::<Arc<T>>().add(index as usize))
        }
    }
}

impl Drop for Cdev {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it has been added and is ours.
        unsafe { bindings::cdev_del(self.cdev.as_ptr()) };
    }
}

/// Builds the table of file operations of a `T`.
///
/// Every callback below is only ever called for files that [`Cdev::new`] has led here, of the same
/// `T`; all but `open` only between `open` and the end of `release`.
struct FileOperationsVTable<T>(PhantomData<T>);

impl<T: FileOperations> FileOperationsVTable<T> {
    /// # Safety
    ///
    /// `file` must be open, of a device `T`, for all of `'a`.
    #[inline]
    unsafe fn private<'a>(file: *const bindings::file) -> &'a OpenFile<T> {
        // SAFETY: `open` has stored a `KBox<OpenFile<T>>`, and `release` takes it back last.
        unsafe { <KBox<OpenFile<T>> as ForeignOwnable>::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// `inode` and `file` must be those of a file that is being opened, and that leads here.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: The caller promises what is asked for. While this function runs, and if it
            // succeeds until the file is released, the file holds a reference to the module.
            let device = unsafe { Cdev::device::<T>(inode) }.ok_or(ENXIO)?;
            // The driver comes last: once it has opened the file, nothing may fail. Whoever opens a
            // file pays for it.
            let open = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
            // INVARIANT: The device lives until the module is unloaded, after the file's release.
            let open = open.write(OpenFile {
                device: NonNull::from(&**device),
                data: device.open()?,
            });
            if let Some(inode) = device.inode() {
                // SAFETY: A file that is being opened is the driver's to set up. The inode lives as
                // long as the device.
                unsafe { (*file).f_mapping = inode.mapping() };
            }
            // SAFETY: The private data of a file that is being opened is the driver's to set.
            unsafe { (*file).private_data = open.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `file` must be one that is being released, of a device `T`.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` has stored a `KBox<OpenFile<T>>`, and nobody else uses it any more.
        let open = unsafe { KBox::<OpenFile<T>>::from_foreign((*file).private_data) };
        T::release(&open);
        0
    }

    /// # Safety
    ///
    /// `file` must be open, of a device `T`.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: The caller promises what is asked for.
        let size = unsafe { Self::private(file) }.device().size();
        // SAFETY: The caller promises that the file is valid.
        unsafe { bindings::generic_file_llseek_size(file, offset, whence, size, size) }
    }

    /// # Safety
    ///
    /// `kiocb` must be valid, of an open file of a device `T`, and `iter` a
    /// valid destination.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The caller promises validity; the private data is a `KBox<OpenFile<T>>`.
        let kiocb = unsafe { Kiocb::from_raw(kiocb) };
        // SAFETY: The caller promises what is asked for.
        let iov = unsafe { IovIterDest::from_raw(iter) };
        result_to_ssize(T::read_iter(kiocb, iov))
    }

    /// # Safety
    ///
    /// `kiocb` must be valid, of an open file of a device `T`, and `iter` a
    /// valid source.
    unsafe extern "C" fn write_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The caller promises validity; the private data is a `KBox<OpenFile<T>>`.
        let kiocb = unsafe { Kiocb::from_raw(kiocb) };
        // SAFETY: The caller promises what is asked for.
        let iov = unsafe { IovIterSource::from_raw(iter) };
        result_to_ssize(T::write_iter(kiocb, iov))
    }

    /// # Safety
    ///
    /// `file` must be open, of a device `T`, and `table` null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The caller promises what is asked for.
        let open = unsafe { Self::private(file) };
        // SAFETY: The file is valid during this call, and no `fdget_pos` is active in it.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: The caller promises what is asked for.
        let table = unsafe { PollTable::from_raw(table) };
        T::poll(open, file, table).0
    }

    /// # Safety
    ///
    /// `file` must be open, of a device `T`.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: The caller promises what is asked for.
        let open = unsafe { Self::private(file) };
        // SAFETY: The file is valid during this call, and no `fdget_pos` is active in it.
        let file = unsafe { File::from_raw_file(file) };
        match T::ioctl(open, file, cmd, arg) {
            Ok(value) => value,
            // CAST: An errno fits any signed integer type.
            Err(err) => err.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// `desc` must be the descriptor of a running `mmap_prepare` call, of an open file of a
    /// device `T`.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> c_int {
        // SAFETY: The caller promises what is asked for.
        let open = unsafe { Self::private((*desc).file) };
        // SAFETY: The caller promises what is asked for; the private data is an `OpenFile<T>`,
        // which `KBox` points to.
        let desc = unsafe { VmAreaDesc::from_raw(desc) };
        from_result(|| T::mmap_prepare(open, desc).map(|()| 0))
    }

    /// # Safety
    ///
    /// `file` must be open, of a device `T`, and `m` valid.
    unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: The caller promises what is asked for.
        let open = unsafe { Self::private(file) };
        // SAFETY: The caller promises what is asked for.
        let m = unsafe { SeqFile::from_raw(m) };
        T::show_fdinfo(open, m);
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: T::OWNER.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        splice_read: Some(bindings::copy_splice_read),
        write_iter: if T::HAS_WRITE_ITER {
            Some(Self::write_iter)
        } else {
            None
        },
        splice_write: if T::HAS_WRITE_ITER {
            Some(bindings::iter_file_splice_write)
        } else {
            None
        },
        fsync: if T::HAS_WRITE_ITER {
            Some(bindings::noop_fsync)
        } else {
            None
        },
        poll: if T::HAS_POLL { Some(Self::poll) } else { None },
        unlocked_ioctl: if T::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        compat_ioctl: if T::HAS_IOCTL {
            bindings::compat_ptr_ioctl
        } else {
            None
        },
        mmap_prepare: if T::HAS_MMAP_PREPARE {
            Some(Self::mmap_prepare)
        } else {
            None
        },
        get_unmapped_area: if T::HAS_MMAP_PREPARE {
            // Aligns large mappings as the file is aligned, so that both can have huge entries.
            Some(bindings::thp_get_unmapped_area)
        } else {
            None
        },
        show_fdinfo: if T::HAS_SHOW_FDINFO {
            Some(Self::show_fdinfo)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// Turns the result of a read or write into what the C side expects.
fn result_to_ssize(result: Result<usize>) -> isize {
    match result {
        // CAST: No read or write is longer than `isize::MAX` bytes.
        Ok(len) => len as isize,
        // CAST: An errno fits any signed integer type.
        Err(err) => err.to_errno() as isize,
    }
}
