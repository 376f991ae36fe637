# SPDX-License-Identifier: GPL-2.0
# Many at once: loading and unloading against all uses, and all sorts of things together.
# vm: MEM=512 SMP=2 CPU=max
# The debugfs of the kernel can warn falsely here; see docs/testing.md.
echo 0 >/proc/sys/kernel/panic_on_warn
exec suite <<'END'
race-unload - size=262144
race - size=4194304 fault_around=4096
race - size=8388608
race - size=8388608 huge=1
END
