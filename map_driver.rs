// SPDX-License-Identifier: GPL-2.0

//! Kernel memory in user space, page by page.
//!
//! Each device of this driver is a vmalloc'ed buffer. A process that maps one gets its pages by
//! page faults: [`VmOperations::fault`] below finds the page that the kernel's page tables hold for
//! the address in the buffer, and hands it to the process. Nothing is copied.

#![deny(unsafe_code)]

mod abstractions;
#[expect(dead_code, unreachable_pub, reason = "the ABI is user space's as well")]
#[path = "uapi/mapdrv.rs"]
mod uapi;

use abstractions::{
    buffer::Buffer,
    capability,
    chrdev::{
        FileOperations,
        OpenFile,
        PollEvents,
        Registration, //
    },
    debugfs,
    folio::Folio,
    inode::PrivateInode,
    ioctl,
    mmap::{
        VmAreaDesc,
        VmFault,
        VmFaultOutcome,
        VmOperations,
        HPAGE_PAGES,
        PTRS_PER_PTE, //
    },
    module::this_module,
    page_table,
    percpu::PerCpuCounters,
    printk::printk_ratelimit,
    static_key,
    sysfs::{
        Attribute,
        Attributes, //
    }, //
};
use core::ops::RangeInclusive;
use kernel::{
    fmt,
    fs::{
        file::Offset,
        File,
        Kiocb, //
    },
    ioctl::{
        _IOC_DIR,
        _IOC_NR,
        _IOC_TYPE, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    module_param::ModuleParamAccess,
    new_mutex,
    new_poll_condvar,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            AtomicFlag,
            Full,
            Relaxed, //
        },
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        Mutex, //
    }, //
};

module! {
    type: MapDriver,
    name: "map_driver",
    authors: ["The map_driver developers"],
    description: "Maps vmalloc'ed kernel memory into user space, fault by fault",
    license: "GPL",
    params: {
        devices: i64 {
            default: 1,
            description: "Number of devices, 1 to 64; default 1",
        },
        size: i64 {
            default: 1048576,
            description: "Bytes in each device, 1 to what the machine holds; default 1048576",
        },
        fill: i64 {
            default: 1,
            description: "Contents: 1 for the published pattern, 0 for zeroes; default 1",
        },
        fault_around: i64 {
            default: 65536,
            description: "Bytes that one fault maps at most, a power of two, 4096 to 2097152; default 65536",
        },
        huge: i64 {
            default: 0,
            description: "Memory: 1 for large folios, mapped by huge entries where possible, 0 for single pages; default 0",
        },
        mode: i64 {
            default: 0o600,
            description: "Permission bits of /dev/mapdrvN, 0 to 0777; default 0600",
        },
    },
}

/// The events that a device counts, as indices of its counters.
mod count {
    pub(super) const FAULTS: usize = 0;
    pub(super) const SIGBUS: usize = 1;
    pub(super) const PAGES: usize = 2;
    pub(super) const MAPPINGS: usize = 3;
    pub(super) const OPEN_FILES: usize = 4;
    pub(super) const READ_BYTES: usize = 5;
    pub(super) const WRITTEN_BYTES: usize = 6;
    pub(super) const NR: usize = 7;
}

/// One device: a buffer, and what has happened to it.
#[pin_data]
struct Device {
    minor: u32,
    /// Bytes asked for; the buffer is this rounded up to whole pages.
    size: usize,
    fill: bool,
    mode: u16,
    /// Pages that one fault maps at most.
    window: usize,
    buffer: Buffer,
    /// Number of writes completed.
    generation: Atomic<u64>,
    /// Where those wait who want to know of the next write.
    #[pin]
    changed: PollCondVar,
    counters: PerCpuCounters<{ count::NR }>,
    /// Set while faults are to be traced.
    #[pin]
    trace: Mutex<Option<static_key::Wanted>>,
    tracing: AtomicFlag,
}

/// What is kept per open file.
struct DeviceFile {
    /// The generation that the opener has been told of.
    seen: Atomic<u64>,
    /// The first counters of the device, for this file alone.
    counters: PerCpuCounters<{ count::MAPPINGS }>,
}

impl Device {
    fn new(minor: u32, params: &Params) -> Result<Arc<Self>> {
        let pages = params.size.div_ceil(PAGE_SIZE);
        let mut buffer = if params.huge {
            Buffer::new_huge(pages)?
        } else {
            Buffer::new(pages)?
        };
        if params.fill {
            Self::fill(&mut buffer, uapi::seed(minor))?;
            buffer.zero_from(params.size);
        }
        Arc::pin_init(
            try_pin_init!(Self {
                minor,
                size: params.size,
                fill: params.fill,
                mode: params.mode,
                window: params.window,
                buffer,
                generation: Atomic::new(0),
                changed <- new_poll_condvar!("mapdrv::changed"),
                counters: PerCpuCounters::new()?,
                trace <- new_mutex!(None, "mapdrv::trace"),
                tracing: AtomicFlag::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns whether the buffer is made of large folios.
    fn huge(&self) -> bool {
        self.buffer.inode().is_some()
    }

    /// Fills a buffer with the published pattern.
    fn fill(buffer: &mut Buffer, seed: u64) -> Result {
        const WORDS: usize = PAGE_SIZE / size_of::<u64>();

        let pages = buffer.pages();
        for page in 0..pages {
            let header = uapi::PageHeader::new(page as u64, pages as u64, PAGE_SIZE as u32, seed);
            let header = header.to_words();
            // OVERFLOW: The buffer is smaller than the address space.
            let start = page.wrapping_mul(WORDS);
            let rest = start.wrapping_add(header.len());
            buffer.write_words(start, header.into_iter());
            let words = rest..start.wrapping_add(WORDS);
            buffer.write_words(rest, words.map(|index| uapi::word(seed, index as u64)));
            if current!().signal_pending() {
                return Err(EINTR);
            }
        }
        Ok(())
    }

    /// Returns how many of `len` bytes at position `pos` the device has, and `pos` as an offset.
    fn range(&self, pos: Offset, len: usize) -> Option<(usize, usize)> {
        let offset = usize::try_from(pos).ok()?;
        let left = self.size.checked_sub(offset).filter(|&left| left > 0)?;
        Some((offset, len.min(left)))
    }

    fn info(&self) -> uapi::Info {
        let (mode, window) = if self.huge() {
            (uapi::MODE_HUGE, HUGE_WINDOW * HPAGE_PAGES)
        } else {
            (uapi::MODE_VMALLOC, self.window)
        };
        uapi::Info {
            flags: 0,
            size: self.size as u64,
            pages: self.buffer.pages() as u64,
            page_size: PAGE_SIZE as u32,
            mode,
            seed: uapi::seed(self.minor),
            generation: self.generation.load(Acquire),
            fault_around: window.wrapping_mul(PAGE_SIZE) as u64,
            fill: self.fill.into(),
            minor: self.minor,
            mappings: self.counters.sum(count::MAPPINGS) as u64,
        }
    }

    fn stats(&self) -> uapi::Stats {
        let sum = |counter| self.counters.sum(counter) as u64;
        uapi::Stats {
            flags: 0,
            faults: sum(count::FAULTS),
            faults_sigbus: sum(count::SIGBUS),
            pages_installed: sum(count::PAGES),
            mappings: sum(count::MAPPINGS),
            open_files: sum(count::OPEN_FILES),
            read_bytes: sum(count::READ_BYTES),
            written_bytes: sum(count::WRITTEN_BYTES),
        }
    }

    /// Walks the kernel's page tables for the byte at `offset`; says where that is in physical
    /// memory, and so in the kernel's address space, only if `privileged`.
    fn walk(&self, offset: u64, privileged: bool) -> Result<uapi::Walk> {
        let pgoff = usize::try_from(offset / PAGE_SIZE as u64)?;
        let addr = self.buffer.addr(pgoff).ok_or(EINVAL)?;
        let current = current!();
        let walk = page_table::walk(current.mm().ok_or(EINVAL)?, addr);

        let mut answer = uapi::Walk {
            offset,
            ..Default::default()
        };
        for (level, step) in answer.levels.iter_mut().zip(walk.steps()) {
            answer.nr_levels = answer.nr_levels.wrapping_add(1);
            for (to, from) in level.name.iter_mut().zip(step.level.name().bytes()) {
                *to = from;
            }
            if privileged {
                level.index = step.index as u32;
            }
            let flags = step.flags;
            level.flags = [
                (flags.present, uapi::ENTRY_PRESENT),
                (flags.leaf, uapi::ENTRY_LEAF),
                (flags.write, uapi::ENTRY_WRITE),
                (flags.exec, uapi::ENTRY_EXEC),
                (flags.accessed, uapi::ENTRY_ACCESSED),
                (flags.dirty, uapi::ENTRY_DIRTY),
                (flags.user, uapi::ENTRY_USER),
                (flags.global, uapi::ENTRY_GLOBAL),
            ]
            .into_iter()
            .filter(|&(set, _)| set)
            .fold(0, |bits, (_, bit)| bits | bit);
        }
        if let Some(leaf) = walk.leaf() {
            answer.leaf_size = leaf.size() as u64;
            if privileged {
                answer.pfn = leaf.pfn() as u64;
            }
        }
        Ok(answer)
    }

    /// Finds the page with index `pgoff` by a walk of the kernel's page tables. Any context.
    #[inline(always)]
    fn leaf(&self, vmf: &VmFault, pgoff: usize) -> Option<page_table::Leaf<'_>> {
        let addr = self.buffer.addr(pgoff)?;
        page_table::leaf(vmf.mm(), addr)
    }

    /// Traces a fault, if that is wanted. Any context.
    #[inline(always)]
    fn trace(&self, vmf: &VmFault) {
        if static_key::is_wanted() {
            self.print_walk(vmf);
        }
    }

    /// Prints which way the walk for a fault goes. Neither the indices nor the frame number: they
    /// would tell where the kernel's memory is.
    #[cold]
    fn print_walk(&self, vmf: &VmFault) {
        if !self.tracing.load(Relaxed) || !printk_ratelimit(c"map_driver") {
            return;
        }
        let minor = self.minor;
        let pgoff = vmf.pgoff();
        let access = if vmf.is_write() { "write" } else { "read" };
        let Some(addr) = self.buffer.addr(pgoff) else {
            pr_info!("mapdrv{minor}: {access} fault in page {pgoff}: no such page\n");
            return;
        };
        let offset = pgoff.wrapping_mul(PAGE_SIZE);
        let walk = page_table::walk(vmf.mm(), addr);
        let names = Names(&walk);
        let size = walk.leaf().map_or(0, |leaf| leaf.size());
        pr_info!(
            "mapdrv{minor}: {access} fault in page {pgoff}, offset {offset}:{names}, \
             a leaf of {size} bytes\n"
        );
    }

    /// Turns tracing on or off.
    fn set_trace(&self, on: bool) {
        let mut wanted = self.trace.lock();
        self.tracing.store(on, Relaxed);
        if on != wanted.is_some() {
            *wanted = on.then(static_key::Wanted::new);
        }
    }
}

/// Shows the levels that a walk passed.
struct Names<'a>(&'a page_table::Walk<'a>);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.steps().enumerate() {
            write!(
                f,
                "{}{}",
                if i == 0 { " " } else { " -> " },
                step.level.name()
            )?;
        }
        Ok(())
    }
}

/// Shows how many folios of which size a buffer is made of.
struct Folios<'a>(&'a Buffer);

impl fmt::Display for Folios<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (order, count)) in self.0.folios().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} folios of {} bytes", PAGE_SIZE << order)?;
        }
        Ok(())
    }
}

impl Attributes for Device {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[
        Attribute::new(c"size", |device| device.info().size),
        Attribute::new(c"pages", |device| device.info().pages),
        Attribute::new(c"fill", |device| device.info().fill.into()),
        Attribute::new(c"huge", |device| device.info().mode.into()),
        Attribute::new(c"fault_around", |device| device.info().fault_around),
        Attribute::new(c"generation", |device| device.info().generation),
        Attribute::new(c"faults", |device| device.stats().faults),
        Attribute::new(c"faults_sigbus", |device| device.stats().faults_sigbus),
        Attribute::new(c"pages_installed", |device| device.stats().pages_installed),
        Attribute::new(c"mappings", |device| device.stats().mappings),
        Attribute::new(c"open_files", |device| device.stats().open_files),
        Attribute::new(c"read_bytes", |device| device.stats().read_bytes),
        Attribute::new(c"written_bytes", |device| device.stats().written_bytes),
    ];
}

#[vtable]
impl FileOperations for Device {
    const OWNER: &'static ThisModule = this_module::<MapDriver>();
    type File = DeviceFile;

    fn mode(&self) -> u16 {
        self.mode
    }

    fn inode(&self) -> Option<&PrivateInode> {
        self.buffer.inode()
    }

    fn open(&self) -> Result<DeviceFile> {
        let file = DeviceFile {
            seen: Atomic::new(self.generation.load(Acquire)),
            counters: PerCpuCounters::new_accounted()?,
        };
        self.counters.add(count::OPEN_FILES, 1);
        Ok(file)
    }

    fn release(file: &OpenFile<Self>) {
        file.device().counters.add(count::OPEN_FILES, -1);
    }

    fn size(&self) -> Offset {
        self.size as Offset
    }

    fn read_iter(
        mut kiocb: Kiocb<'_, KBox<OpenFile<Self>>>,
        iov: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        let device = kiocb.file().device();
        let Some((offset, len)) = device.range(kiocb.ki_pos(), iov.len()) else {
            return Ok(0);
        };
        let done = device.buffer.copy_to_iter(iov, offset, len);
        if done == 0 && len > 0 {
            return Err(EFAULT);
        }
        device.counters.add(count::READ_BYTES, done as i64);
        *kiocb.ki_pos_mut() = offset.wrapping_add(done) as Offset;
        Ok(done)
    }

    fn write_iter(
        mut kiocb: Kiocb<'_, KBox<OpenFile<Self>>>,
        iov: &mut IovIterSource<'_>,
    ) -> Result<usize> {
        let device = kiocb.file().device();
        if iov.is_empty() {
            return Ok(0);
        }
        let (offset, len) = device.range(kiocb.ki_pos(), iov.len()).ok_or(ENOSPC)?;
        let done = device.buffer.copy_from_iter(iov, offset, len);
        if done == 0 {
            return Err(EFAULT);
        }
        device.counters.add(count::WRITTEN_BYTES, done as i64);
        device.generation.fetch_add(1, Full);
        device.changed.notify_all();
        *kiocb.ki_pos_mut() = offset.wrapping_add(done) as Offset;
        Ok(done)
    }

    fn poll(file: &OpenFile<Self>, raw: &File, table: PollTable<'_>) -> PollEvents {
        let device = file.device();
        table.register_wait(raw, &device.changed);
        if device.generation.load(Acquire) == file.seen.load(Relaxed) {
            PollEvents::READ_WRITE
        } else {
            PollEvents::READ_WRITE | PollEvents::PRI
        }
    }

    fn ioctl(file: &OpenFile<Self>, raw: &File, cmd: u32, arg: usize) -> Result<isize> {
        // The direction is the same for all: reading and writing.
        if _IOC_TYPE(cmd) != uapi::IOC_TYPE || _IOC_DIR(cmd) != _IOC_DIR(uapi::IOC_INFO) {
            return Err(ENOTTY);
        }
        let device = file.device();
        match _IOC_NR(cmd) {
            uapi::IOC_NR_INFO => {
                let info = device.info();
                ioctl::exchange(cmd, arg, |[flags, _]: IoctlInput| {
                    check_flags(flags)?;
                    Ok(info.to_words())
                })
                // Only now has the caller been told.
                .inspect(|()| file.seen.store(info.generation, Relaxed))
            }
            uapi::IOC_NR_WALK => ioctl::exchange(cmd, arg, |[flags, offset]: IoctlInput| {
                check_flags(flags)?;
                let privileged = capability::file_has_sys_admin(raw);
                Ok(device.walk(offset, privileged)?.to_words())
            }),
            uapi::IOC_NR_STATS => ioctl::exchange(cmd, arg, |[flags, _]: IoctlInput| {
                check_flags(flags)?;
                Ok(device.stats().to_words())
            }),
            _ => Err(ENOTTY),
        }
        .map(|()| 0)
    }

    fn mmap_prepare(file: &OpenFile<Self>, desc: &mut VmAreaDesc<OpenFile<Self>>) -> Result {
        let end = desc.pgoff().checked_add(desc.pages()).ok_or(EINVAL)?;
        if end > file.device().buffer.pages() {
            return Err(EINVAL);
        }
        desc.forbid_exec()?;
        desc.set_dont_expand();
        desc.set_dont_dump();
        desc.set_no_recency();
        if file.device().window > 1 {
            desc.set_mixedmap();
        }
        desc.set_vm_ops();
        Ok(())
    }

    fn show_fdinfo(file: &OpenFile<Self>, m: &SeqFile) {
        let size = file.device().size;
        let faults = file.counters.sum(count::FAULTS);
        let pages = file.counters.sum(count::PAGES);
        seq_print!(
            m,
            "size:\t{size}\nfaults:\t{faults}\nmapped pages:\t{pages}\n"
        );
    }
}

#[vtable]
impl VmOperations for OpenFile<Device> {
    fn mapped(&self) {
        self.device().counters.add(count::MAPPINGS, 1);
    }

    fn open(&self) {
        self.device().counters.add(count::MAPPINGS, 1);
    }

    fn close(&self) {
        self.device().counters.add(count::MAPPINGS, -1);
    }

    fn fault(&self, vmf: &VmFault) -> VmFaultOutcome {
        let device = self.device();
        device.trace(vmf);
        if device.window > 1 && !vmf.is_cow() && self.fault_around(vmf) {
            self.count(count::FAULTS, 1);
            return VmFaultOutcome::NOPAGE;
        }
        let Some(leaf) = device.leaf(vmf, vmf.pgoff()) else {
            self.count(count::SIGBUS, 1);
            return VmFaultOutcome::SIGBUS;
        };
        self.count(count::FAULTS, 1);
        self.count(count::PAGES, 1);
        vmf.map_page(&leaf.page())
    }

    fn map_pages(&self, vmf: &VmFault) -> bool {
        if !self.device().huge() || !vmf.map_inode_pages(vmf.around(PTRS_PER_PTE)) {
            return false;
        }
        self.device().trace(vmf);
        self.count(count::FAULTS, 1);
        true
    }

    fn huge_fault(&self, vmf: &VmFault) -> VmFaultOutcome {
        let device = self.device();
        // What is not for a huge entry, or has one that will not do, is done by small ones.
        if !device.huge() || vmf.is_cow() || vmf.has_pmd() {
            return VmFaultOutcome::FALLBACK;
        }
        let Some(around) = vmf.huge_around(HUGE_WINDOW) else {
            return VmFaultOutcome::FALLBACK;
        };
        for pgoff in around.step_by(HPAGE_PAGES) {
            let leaf = device.leaf(vmf, pgoff);
            if leaf.is_some_and(|leaf| vmf.insert_huge(pgoff, Folio::of(&leaf.page()))) {
                self.count(count::PAGES, HPAGE_PAGES as i64);
            }
        }
        if !vmf.has_pmd() {
            return VmFaultOutcome::FALLBACK;
        }
        device.trace(vmf);
        self.count(count::FAULTS, 1);
        VmFaultOutcome::NOPAGE
    }
}

impl OpenFile<Device> {
    /// Maps the pages around a fault. Returns whether the one that is missing is among them.
    #[inline(never)]
    fn fault_around(&self, vmf: &VmFault) -> bool {
        let around = vmf.around(self.device().window);
        let first = around.start;
        let Some(range) = self.device().buffer.addrs(around) else {
            return false;
        };
        let (present, inserted) = vmf.insert_pages(first, page_table::pages(vmf.mm(), range));
        self.count(count::PAGES, inserted as i64);
        vmf.pgoff().wrapping_sub(first) < present
    }

    /// Counts an event of a fault, for the device and for this file.
    #[inline(always)]
    fn count(&self, event: usize, n: i64) {
        self.device().counters.add(event, n);
        self.counters.add(event, n);
    }
}

/// The file `stats` of a device in debugfs.
struct Stats(Arc<Device>);

#[vtable]
impl debugfs::FileOperations for Stats {
    const OWNER: &'static ThisModule = this_module::<MapDriver>();

    fn show(&self, m: &SeqFile) {
        let stats = self.0.stats();
        seq_print!(m, "faults: {}\n", stats.faults);
        seq_print!(m, "faults_sigbus: {}\n", stats.faults_sigbus);
        seq_print!(m, "pages_installed: {}\n", stats.pages_installed);
        seq_print!(m, "mappings: {}\n", stats.mappings);
        seq_print!(m, "open_files: {}\n", stats.open_files);
        seq_print!(m, "read_bytes: {}\n", stats.read_bytes);
        seq_print!(m, "written_bytes: {}\n", stats.written_bytes);
    }
}

/// The file `trace` of a device in debugfs.
struct Trace(Arc<Device>);

#[vtable]
impl debugfs::FileOperations for Trace {
    const OWNER: &'static ThisModule = this_module::<MapDriver>();

    fn show(&self, m: &SeqFile) {
        seq_print!(m, "{}\n", u8::from(self.0.tracing.load(Relaxed)));
    }

    fn write(&self, value: bool) -> Result {
        self.0.set_trace(value);
        Ok(())
    }
}

/// The files of one device in debugfs.
type DebugFiles = (debugfs::File<Stats>, debugfs::File<Trace>);

/// Makes `mapdrv/mapdrvN/` in debugfs for each device.
fn debug_files(devices: &[Arc<Device>]) -> Result<KVec<DebugFiles>> {
    let top = debugfs::Dir::new(c"mapdrv", None)?;
    let mut files = KVec::with_capacity(devices.len(), GFP_KERNEL)?;
    for device in devices {
        let name = CString::try_from_fmt(fmt!("mapdrv{}", device.minor))?;
        let dir = debugfs::Dir::new(&name, Some(top.clone()))?;
        let stats = debugfs::File::new(c"stats", &dir, Stats(device.clone()))?;
        let trace = debugfs::File::new(c"trace", &dir, Trace(device.clone()))?;
        files.push((stats, trace), GFP_KERNEL)?;
    }
    Ok(files)
}

/// The module: what is alive while it is loaded.
struct MapDriver {
    // Dropped first: nobody asks for the state of a device that is half gone.
    _debug_files: KVec<DebugFiles>,
    registration: Registration<Device>,
}

impl kernel::Module for MapDriver {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let params = Params::new()?;
        page_table::supported()
            .inspect_err(|_| pr_err!("page tables of Xen PV guests cannot be walked\n"))?;

        let (nr, size) = (params.devices, params.size);
        let mut devices = KVec::with_capacity(nr, GFP_KERNEL)?;
        for minor in 0..nr {
            let device = Device::new(minor as u32, &params).inspect_err(|err| {
                pr_err!("size={size}: cannot allocate device {minor} of {nr}: {err:?}\n");
            })?;
            devices.push(device, GFP_KERNEL)?;
        }

        let registration = Registration::new(c"mapdrv", devices)?;
        // From here on devices may be in use, so nothing may fail: see `Registration::new`.
        let _debug_files = debug_files(registration.devices()).unwrap_or_default();
        report(&registration);
        Ok(Self {
            _debug_files,
            registration,
        })
    }
}

impl Drop for MapDriver {
    fn drop(&mut self) {
        for device in self.registration.devices() {
            let stats = device.stats();
            pr_info!(
                "mapdrv{}: {} faults served, {} pages mapped, {} SIGBUS\n",
                device.minor,
                stats.faults,
                stats.pages_installed,
                stats.faults_sigbus
            );
        }
    }
}

/// How many huge pages one fault maps at most.
const HUGE_WINDOW: usize = 64;

/// Largest size of a device: what fits a file position, and whole pages.
const MAX_SIZE: i64 = (isize::MAX as usize & !(PAGE_SIZE - 1)) as i64;

/// The module's parameters, checked.
struct Params {
    devices: usize,
    size: usize,
    fill: bool,
    window: usize,
    huge: bool,
    mode: u16,
}

impl Params {
    fn new() -> Result<Self> {
        use module_parameters as given;

        const PAGE: i64 = PAGE_SIZE as i64;
        let devices = param(
            c"devices",
            &given::devices,
            1..=uapi::MAX_DEVICES.into(),
            decimal,
        )?;
        let size = param(c"size", &given::size, 1..=MAX_SIZE, decimal)?;
        let fill = param(c"fill", &given::fill, 0..=1, decimal)?;
        let around = param(
            c"fault_around",
            &given::fault_around,
            PAGE..=2 << 20,
            decimal,
        )?;
        let huge = param(c"huge", &given::huge, 0..=1, decimal)?;
        let mode = param(c"mode", &given::mode, 0..=0o777, Octal)?;
        if !around.is_power_of_two() {
            pr_err!(
                "fault_around={around}: not a power of two, {PAGE} to {}\n",
                2 << 20
            );
            return Err(EINVAL);
        }
        Ok(Self {
            devices,
            size,
            fill: fill == 1,
            // Folios are mapped by the core, as a whole.
            window: if huge == 1 { 1 } else { around / PAGE_SIZE },
            huge: huge == 1,
            mode: mode as u16,
        })
    }
}

/// Checks that the parameter called `name` is in `range`; complains with numbers as `show` writes
/// them.
fn param<T: fmt::Display>(
    name: &CStr,
    given: &ModuleParamAccess<i64>,
    range: RangeInclusive<i64>,
    show: fn(i64) -> T,
) -> Result<usize> {
    #[expect(clippy::clone_on_copy, reason = "a reference before Linux 7.3")]
    let value = given.value().clone();
    if !range.contains(&value) {
        let (value, min, max) = (show(value), show(*range.start()), show(*range.end()));
        pr_err!("{name}={value}: out of range, {min} to {max}\n");
        return Err(EINVAL);
    }
    Ok(usize::try_from(value)?)
}

/// How parameters are written that are plain numbers.
fn decimal(value: i64) -> i64 {
    value
}

/// Permission bits, as people write them.
struct Octal(i64);

impl fmt::Display for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value @ 1.. => write!(f, "0{value:o}"),
            value => write!(f, "{value}"),
        }
    }
}

/// The words that every ioctl reads: flags, and an argument.
type IoctlInput = [u64; uapi::IOC_MIN_SIZE / size_of::<u64>()];

/// Refuses flags of an ioctl that nobody has defined yet.
fn check_flags(flags: u64) -> Result {
    if flags == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// Says in the log what has been set up.
fn report(registration: &Registration<Device>) {
    let devices = registration.devices();
    let Some(first) = devices.first() else {
        return;
    };
    pr_info!(
        "mapdrv: major {}, {} device(s) of {} bytes in {} pages of {} bytes\n",
        registration.major(),
        devices.len(),
        first.size,
        first.buffer.pages(),
        PAGE_SIZE
    );
    for device in devices.iter().filter(|device| device.huge()) {
        pr_info!(
            "mapdrv{}: made of {}\n",
            device.minor,
            Folios(&device.buffer)
        );
    }
    let end = first.walk(0, false).ok().and_then(|walk| {
        let last = walk.nr_levels.checked_sub(1)? as usize;
        walk.levels.get(last).map(|level| level.name)
    });
    if let Some([name @ .., _]) = end {
        pr_info!(
            "page tables of {} levels; the walk for the first page ended at its {}\n",
            page_table::levels(),
            core::str::from_utf8(&name).unwrap_or("?")
        );
    }
}

#[kunit_tests(map_driver_pattern)]
mod tests {
    use super::uapi;

    #[test]
    fn words_are_splitmix64() {
        // The first outputs of the published generator, started at 0.
        assert_eq!(uapi::word(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(uapi::word(0, 1), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_header_says_which_page_it_is_on() {
        let words = uapi::PageHeader::new(7, 9, 4096, 5).to_words();
        assert_eq!(words[0].to_ne_bytes(), *b"Hello fr");
        assert_eq!(words[11], uapi::MAGIC);
        assert_eq!(words[13..], [7, 9, 5]);
    }

    #[test]
    fn minors_have_seeds_of_their_own() {
        assert_ne!(uapi::seed(0), uapi::seed(1));
    }
}
