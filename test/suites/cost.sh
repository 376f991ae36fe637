# SPDX-License-Identifier: GPL-2.0
# No mode costs more instructions than it may. Booting leaves work behind that would be counted.
# vm: KERNEL=stock MEM=1024 ICOUNT=1
sleep 20
exec mapdrv-bench check
