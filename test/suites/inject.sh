# SPDX-License-Identifier: GPL-2.0
# Whatever can fail in a call, fails once: in each way to map.
# vm: KERNEL=debug MEM=1024 SMP=1 TIMEOUT=1200 APPEND=possible_cpus=8
exec suite <<'END'
inject size=65536 fault_around=4096
inject size=131072
inject size=2101248 huge=1
END
