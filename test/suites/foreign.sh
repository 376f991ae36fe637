# SPDX-License-Identifier: GPL-2.0
# Others that use a mapping: debuggers, the block layer, pipes, io_uring, 32-bit processes.
# vm: MEM=512 SMP=2 CPU=max DISK=16M
# vm: KERNEL=stock MEM=512 SMP=1 CPU=max,la57=off DISK=16M
exec suite <<'END'
foreign size=1048576 fault_around=4096
foreign size=1048576
foreign size=4194304 huge=1
compat size=1048576
compat size=4196304 huge=1
END
