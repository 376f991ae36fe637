// SPDX-License-Identifier: GPL-2.0

//! Read-only sysfs attributes of a device: one number in each file.
//!
//! Reading one keeps neither the device nor the module: sysfs waits for readers when the device
//! goes away, and an attribute that is still open then only fails to read.
//!
//! C headers: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h),
//! [`include/linux/device.h`](srctree/include/linux/device.h)

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    bindings,
    ffi::{
        c_char,
        c_ulonglong, //
    },
    prelude::*,
    sync::Arc, //
};

/// Most attributes that one type can have.
const MAX: usize = 16;

/// A type whose devices have attributes.
pub(crate) trait Attributes: Sized + Sync + 'static {
    /// The attributes, at most 16.
    const ATTRIBUTES: &'static [Attribute<Self>];
}

/// An attribute of a `T`: a file that everybody may read.
#[repr(C)]
pub(crate) struct Attribute<T> {
    attr: bindings::device_attribute,
    value: fn(&T) -> u64,
}

impl<T: Attributes> Attribute<T> {
    /// Describes an attribute called `name`, which shows what `value` returns.
    ///
    /// `value` runs in process context and may sleep.
    pub(crate) const fn new(name: &'static CStr, value: fn(&T) -> u64) -> Self {
        // Kernels with lockdep have more fields.
        let mut attr: bindings::attribute = pin_init::zeroed();
        attr.name = kernel::str::as_char_ptr_in_const_context(name);
        attr.mode = 0o444;
        Self {
            attr: bindings::device_attribute {
                attr,
                __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 {
                    show_const: Some(Self::show),
                },
                __bindgen_anon_2: pin_init::zeroed(),
            },
            value,
        }
    }

    /// # Safety
    ///
    /// - `dev` must be a device whose driver data points to an `Arc<T>`, valid during the call.
    /// - `attr` must be the field of an [`Attribute<T>`].
    /// - `buf` must be the page that sysfs passes to such a function.
    unsafe extern "C" fn show(
        dev: *mut bindings::device,
        attr: *const bindings::device_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: The caller promises that this is the driver data.
        let data = unsafe { &*(*dev).driver_data.cast::<Arc<T>>() };
        // SAFETY: The caller promises that the attribute is the first field of an `Attribute<T>`,
        // which is `repr(C)`.
        let value = unsafe { (*attr.cast::<Self>()).value }(data);
        // SAFETY: The format takes an unsigned number, and gets it; the caller promises the rest.
        let len =
            unsafe { bindings::sysfs_emit(buf, c"%llu\n".as_char_ptr(), value as c_ulonglong) };
        // CAST: A page is not longer.
        len as isize
    }
}

/// The tables that the C side wants, made out of [`Attributes::ATTRIBUTES`] at compile time.
struct Tables<T>(PhantomData<T>);

impl<T: Attributes> Tables<T> {
    /// The attributes, ended by a null.
    const ATTRS: [*const bindings::attribute; MAX + 1] = {
        let mut attrs = [ptr::null(); MAX + 1];
        let mut i = 0;
        while i < T::ATTRIBUTES.len() {
            attrs[i] = &raw const T::ATTRIBUTES[i].attr.attr;
            i += 1;
        }
        attrs
    };

    const GROUP: bindings::attribute_group = bindings::attribute_group {
        __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 {
            attrs_const: ptr::from_ref(&Self::ATTRS).cast(),
        },
        ..pin_init::zeroed()
    };

    /// The only group, ended by a null.
    const GROUPS: [*const bindings::attribute_group; 2] = [&Self::GROUP, ptr::null()];
}

/// Returns the attribute groups for devices whose driver data points to an `Arc<T>`, ended by a null.
pub(crate) const fn groups<T: Attributes>() -> &'static [*const bindings::attribute_group; 2] {
    &Tables::<T>::GROUPS
}
