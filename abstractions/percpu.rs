// SPDX-License-Identifier: GPL-2.0

//! Counters that every CPU keeps its own copy of.
//!
//! For events too frequent for one shared cache line: counting touches only the running CPU's
//! copy, reading adds all copies up.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    cpumask::Cpumask,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// A set of `N` counters, each kept once per CPU.
///
/// A counter is 64 bits wide and wraps. Down counting is adding a negative number.
///
/// # Invariants
///
/// `base` is the per-CPU pointer of an allocation of `[i64; N]` that `self` owns.
pub(crate) struct PerCpuCounters<const N: usize> {
    base: NonNull<[i64; N]>,
}

// SAFETY: The allocation can be used and freed from any thread.
unsafe impl<const N: usize> Send for PerCpuCounters<N> {}
// SAFETY: All accesses to the counters are atomic.
unsafe impl<const N: usize> Sync for PerCpuCounters<N> {}

impl<const N: usize> PerCpuCounters<N> {
    /// Allocates the counters, all zero. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory.
    pub(crate) fn new() -> Result<Self> {
        Self::alloc(bindings::GFP_KERNEL)
    }

    /// As [`Self::new`], for counters that whoever runs now has caused: his control group pays.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub(crate) fn new_accounted() -> Result<Self> {
        Self::alloc(bindings::GFP_KERNEL_ACCOUNT)
    }

    fn alloc(gfp: bindings::gfp_t) -> Result<Self> {
        // SAFETY: Size and alignment are those of a type, which is not empty.
        let base = unsafe {
            bindings::pcpu_alloc_noprof(
                size_of::<[i64; N]>(),
                align_of::<[i64; N]>(),
                false,
                gfp | bindings::__GFP_NOWARN,
            )
        };
        // INVARIANT: `pcpu_alloc_noprof` has returned a zeroed allocation of the given layout.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Adds `n` to counter number `index` on this CPU. Any context.
    ///
    /// An `index` that is not below `N` does not compile.
    #[inline(always)]
    pub(crate) fn add(&self, index: usize, n: i64) {
        build_assert!(index < N);
        this_cpu_add(self.counter(index), n);
    }

    /// Returns the sum of counter number `index` over all CPUs. Any context.
    ///
    /// Additions that run at the same time may or may not be included.
    pub(crate) fn sum(&self, index: usize) -> i64 {
        if index >= N {
            return 0;
        }
        // SAFETY: `__cpu_possible_mask` is set up at boot and constant ever after.
        let possible = unsafe { Cpumask::from_raw(&raw const bindings::__cpu_possible_mask) };
        (0..nr_cpu_ids())
            .filter_map(CpuId::from_u32)
            .filter(|&cpu| possible.test(cpu))
            .map(|cpu| copy(self.counter(index), cpu).load(Relaxed))
            .fold(0, i64::wrapping_add)
    }

    /// Returns counter number `index`, which must be below `N`.
    #[inline(always)]
    fn counter(&self, index: usize) -> PerCpuCounter<'_> {
        // INVARIANT: By the type invariants `base` is a per-CPU pointer to `N` counters, valid as
        // long as `self`.
        PerCpuCounter {
            ptr: self.base.as_ptr().cast::<i64>().wrapping_add(index),
            _alive: PhantomData,
        }
    }
}

/// One counter of a set.
///
/// # Invariants
///
/// `ptr` is a per-CPU pointer to an `i64`, all of whose copies are valid for `'a` and accessed
/// atomically only.
#[derive(Clone, Copy)]
struct PerCpuCounter<'a> {
    ptr: *mut i64,
    _alive: PhantomData<&'a ()>,
}

/// Returns `cpu`'s copy of `counter`.
#[inline(always)]
fn copy(counter: PerCpuCounter<'_>, cpu: CpuId) -> &Atomic<i64> {
    // CAST: A CPU number fits any integer type.
    let cpu = cpu.as_u32() as usize;
    // SAFETY: A `CpuId` is below `nr_cpu_ids`, and so inside the array, which is constant after boot.
    let offset = unsafe {
        *(&raw const bindings::__per_cpu_offset)
            .cast::<usize>()
            .add(cpu)
    };
    // SAFETY: By the type invariants `ptr` is a per-CPU pointer, so at its offset each possible CPU
    // has its copy, valid for the lifetime of the result and accessed atomically only.
    unsafe { Atomic::from_ptr(counter.ptr.wrapping_byte_add(offset)) }
}

/// Adds `n` to this CPU's copy of `counter`.
#[cfg(all(CONFIG_X86_64, CONFIG_SMP))]
#[inline(always)]
fn this_cpu_add(counter: PerCpuCounter<'_>, n: i64) {
    // The segment base is this CPU's offset. A single instruction can neither be interrupted nor
    // move to another CPU half-way, and no other CPU writes to this copy.
    //
    // SAFETY: By the type invariants the address is valid to read and write.
    unsafe {
        core::arch::asm!(
            "add qword ptr gs:[{ptr}], {n}",
            ptr = in(reg) counter.ptr,
            n = in(reg) n,
            options(nostack),
        )
    };
}

/// Adds `n` to this CPU's copy of `counter`.
#[cfg(not(all(CONFIG_X86_64, CONFIG_SMP)))]
#[inline(always)]
fn this_cpu_add(counter: PerCpuCounter<'_>, n: i64) {
    // It does not matter if the task moves to another CPU between the two: the addition is atomic,
    // only less local.
    copy(counter, CpuId::current()).add(n, Relaxed);
}

impl<const N: usize> Drop for PerCpuCounters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `self` owns the allocation.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}
