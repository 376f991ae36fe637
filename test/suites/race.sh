# SPDX-License-Identifier: GPL-2.0
# Many at once: loading and unloading, mapping and faulting, reading and writing.
# vm: MEM=512 SMP=2 CPU=max
exec suite <<'END'
reload - size=262144
reload - size=4194304 fill=0 huge=1
race - size=4194304 fault_around=4096
race - size=8388608
race - size=8388608 huge=1
END
