# SPDX-License-Identifier: GPL-2.0
# Counters and traces.
# vm: MEM=512 SMP=2 CPU=max
exec suite <<'END'
stats size=1048576 fault_around=4096
stats size=1048576
stats size=1000100 fault_around=2097152
stats size=4196304 huge=1
END
