# SPDX-License-Identifier: GPL-2.0
# Whatever can fail in loading and unloading, fails once. The kernel waits a few seconds to free each
# object; where the clock counts instructions, time without any passes at once.
# vm: KERNEL=debug MEM=1024 SMP=1 ICOUNT=1 TIMEOUT=1200 APPEND=possible_cpus=8
# The stack of each failure is for the log; the console gets warnings.
echo N >/sys/module/printk/parameters/ignore_loglevel
echo 5 7 >/proc/sys/kernel/printk
exec suite <<'END'
inject-load - size=266240 huge=1
inject-load - size=4096
END
