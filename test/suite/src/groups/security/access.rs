// SPDX-License-Identifier: GPL-2.0

//! Who may open a device, make a node for one, and load and unload the module.

use super::{
    ALL_CAPS, DAC_OVERRIDE, DAC_READ_SEARCH, NOBODY, SYS_MODULE, become_user, load, set_caps, slow,
};
use crate::check::{Outcome, equal, refused};
use crate::device::{self, Setup};
use crate::module::{self, Loaded};
use crate::pattern::PAGE;
use crate::process;
use crate::sys::{self, MAP_SHARED, Map, O_RDONLY, O_RDWR, O_WRONLY, PROT_READ, check};
use libc::{EACCES, EBADF, EINVAL, EPERM};
use std::ffi::c_int;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

tests! {
    "a node is root's, with the permission bits of mode=, 0600 if it is not given": nodes,
    "who may open for what is what these bits say, and who may override them": opens,
    "a descriptor that is only a path gives nothing that the bits do not": paths,
    "nobody can make or change a node, not even in a user namespace": make_nodes,
    "nobody can load or unload the module, not even in a user namespace": loading,
    "CAP_SYS_MODULE is what loading and unloading take": module_capability,
}

/// The values of `mode=` that are tried; at first, none.
const MODES: [Option<u32>; 11] = [
    None,
    Some(0o600),
    Some(0),
    Some(0o400),
    Some(0o040),
    Some(0o660),
    Some(0o604),
    Some(0o602),
    Some(0o066),
    Some(0o440),
    Some(0o777),
];

/// Those of them that there is time for.
fn modes() -> &'static [Option<u32>] {
    &MODES[..if slow() { 3 } else { MODES.len() }]
}

fn loaded(mode: Option<u32>) -> io::Result<Loaded> {
    Loaded::new(&mode.map_or(String::new(), |mode| format!("mode=0{mode:o}")))
}

/// What open, for `flags`, is to end with; nothing is success.
fn errno_of(result: io::Result<impl Sized>) -> Option<c_int> {
    result.err().and_then(|error| error.raw_os_error())
}

fn nodes(_: &Setup) -> Outcome {
    for &mode in modes() {
        let _loaded = loaded(mode)?;
        let node = fs::metadata(device::path(0))?;
        let expected = (0, 0, libc::S_IFCHR | mode.unwrap_or(0o600));
        equal(
            format!("owner, group and mode with mode={mode:?}"),
            (node.uid(), node.gid(), node.mode()),
            expected,
        )?;
    }
    Ok(())
}

/// Somebody who tries to open a device.
struct Who {
    name: &'static str,
    uid: u32,
    gid: u32,
    groups: &'static [u32],
    caps: u64,
    /// Whether to be the root of a user namespace then, with all capabilities in it.
    namespace: bool,
}

const WHO: [Who; 9] = [
    Who::new("root", 0, 0, &[], ALL_CAPS),
    Who::new("root without capabilities", 0, 0, &[], 0),
    Who::new("nobody", NOBODY, NOBODY, &[], 0),
    Who::new("nobody in root's group", NOBODY, NOBODY, &[7, 0], 0),
    Who::new("nobody with root's group", NOBODY, 0, &[], 0),
    Who::new("with CAP_DAC_OVERRIDE", NOBODY, NOBODY, &[], DAC_OVERRIDE),
    Who::new(
        "with CAP_DAC_READ_SEARCH",
        NOBODY,
        NOBODY,
        &[],
        DAC_READ_SEARCH,
    ),
    Who::new(
        "with all other capabilities",
        NOBODY,
        NOBODY,
        &[],
        ALL_CAPS & !(DAC_OVERRIDE | DAC_READ_SEARCH),
    ),
    Who {
        namespace: true,
        ..Who::new("root of a user namespace", NOBODY, NOBODY, &[], 0)
    },
];

impl Who {
    const fn new(
        name: &'static str,
        uid: u32,
        gid: u32,
        groups: &'static [u32],
        caps: u64,
    ) -> Self {
        Self {
            name,
            uid,
            gid,
            groups,
            caps,
            namespace: false,
        }
    }

    fn become_it(&self) -> Outcome {
        become_user(self.uid, self.gid, self.groups, self.caps)?;
        if self.namespace {
            enter_namespace()?;
        }
        Ok(())
    }

    /// Whether a node of root's with permission bits `mode` may be opened with `flags`.
    fn may(&self, mode: u32, flags: c_int) -> bool {
        let wanted = match flags {
            O_RDONLY => 4,
            O_WRONLY => 2,
            _ => 6,
        };
        let bits = if self.uid == 0 {
            mode >> 6
        } else if self.gid == 0 || self.groups.contains(&0) {
            mode >> 3
        } else {
            mode
        };
        bits & wanted == wanted
            || self.caps & DAC_OVERRIDE != 0
            || self.caps & DAC_READ_SEARCH != 0 && wanted == 4
    }
}

/// Becomes the root of a user namespace.
fn enter_namespace() -> Outcome {
    // SAFETY: No pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1"))?;
    // SAFETY: No pointers.
    equal("user in the namespace", unsafe { libc::getuid() }, 0)
}

fn opens(_: &Setup) -> Outcome {
    for &mode in modes() {
        let _loaded = loaded(mode)?;
        for who in &WHO {
            process::in_child(|| {
                who.become_it()?;
                for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
                    let may = who.may(mode.unwrap_or(0o600), flags);
                    equal(
                        format!("open {flags} by {} with mode={mode:?}", who.name),
                        errno_of(device::open(flags)),
                        (!may).then_some(EACCES),
                    )?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn paths(_: &Setup) -> Outcome {
    let _loaded = loaded(None)?;
    process::in_child(|| {
        process::become_nobody()?;
        let fd = device::open(libc::O_PATH)?;
        refused("read", sys::pread(&fd, 0, 1), EBADF)?;
        refused("ioctl", device::info(&fd), EBADF)?;
        let map = Map::new(&fd, 0, PAGE, PROT_READ, MAP_SHARED);
        refused("mmap", map, EBADF)?;
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
            refused("open by /proc/self/fd", sys::open(&again, flags), EACCES)?;
        }
        Ok(())
    })
}

fn make_nodes(_: &Setup) -> Outcome {
    let _loaded = loaded(None)?;
    let number = fs::metadata(device::path(0))?.rdev();
    for namespace in [false, true] {
        process::in_child(|| {
            process::become_nobody()?;
            if namespace {
                enter_namespace()?;
            }
            let name = c"/tmp/node-of-nobody";
            // SAFETY: The name is a C string.
            let made = check(unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, number) });
            refused("mknod", made, EPERM)?;
            let bits = fs::Permissions::from_mode(0o666);
            refused("chmod", fs::set_permissions(device::path(0), bits), EPERM)?;
            let taken = std::os::unix::fs::chown(device::path(0), Some(NOBODY), None);
            // In the namespace this user has no name that nobody could give.
            refused("chown", taken, if namespace { EINVAL } else { EPERM })?;
            refused("unlink", fs::remove_file(device::path(0)), EACCES)
        })?;
    }
    Ok(())
}

fn loading(_: &Setup) -> Outcome {
    let file = File::open("map_driver.ko")?;
    let bytes = fs::read("map_driver.ko")?;
    for loaded in [false, true] {
        let _loaded = loaded.then(|| Loaded::new("")).transpose()?;
        for namespace in [false, true] {
            process::in_child(|| {
                process::become_nobody()?;
                if namespace {
                    enter_namespace()?;
                }
                refused("finit_module", load(&file, c"mode=0666"), EPERM)?;
                // SAFETY: The image is as long as said.
                let result = check(unsafe {
                    libc::syscall(
                        libc::SYS_init_module,
                        bytes.as_ptr(),
                        bytes.len(),
                        c"".as_ptr(),
                    )
                });
                refused("init_module", result, EPERM)?;
                refused("delete_module", module::remove(module::NAME), EPERM)
            })?;
        }
        equal(
            "loaded",
            Path::new("/sys/module/map_driver").exists(),
            loaded,
        )?;
    }
    Ok(())
}

fn module_capability(_: &Setup) -> Outcome {
    let file = File::open("map_driver.ko")?;
    process::in_child(|| {
        set_caps(ALL_CAPS & !SYS_MODULE)?;
        refused("by root without it", load(&file, c""), EPERM)
    })?;
    process::in_child(|| {
        become_user(NOBODY, NOBODY, &[], SYS_MODULE)?;
        load(&file, c"")
            .map_err(|error| crate::check::wrong(format!("by nobody with it: {error}")))?;
        refused("opening then", device::open(O_RDONLY), EACCES)
    })?;
    process::in_child(|| {
        set_caps(ALL_CAPS & !SYS_MODULE)?;
        refused("unloading", module::remove(module::NAME), EPERM)
    })?;
    process::in_child(|| {
        become_user(NOBODY, NOBODY, &[], SYS_MODULE)?;
        Ok(module::remove(module::NAME)?)
    })
}
