# SPDX-License-Identifier: GPL-2.0
# What a mapping promises, whatever is done to it: each way to map, with four levels and with five.
# vm: MEM=512 SMP=2 CPU=max
# vm: KERNEL=stock MEM=512 SMP=1 CPU=max,la57=off
exec suite <<'END'
mapping size=1048576 fault_around=4096
mapping size=1048576
mapping size=1000100 fault_around=2097152
mapping size=4196304 huge=1
END
