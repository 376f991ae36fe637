# SPDX-License-Identifier: GPL-2.0
# Whatever can fail in loading and unloading, fails once. The kernel waits a few seconds to free each
# object; where the clock counts instructions, time without any passes at once.
# vm: KERNEL=debug MEM=1024 SMP=1 ICOUNT=1 APPEND="page_owner=on page_poison=on"
echo 7 4 >/proc/sys/kernel/printk
exec suite <<'END'
inject-load - size=4096
END
