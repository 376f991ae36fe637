# SPDX-License-Identifier: GPL-2.0
# Faults and calls against all that takes memory, mappings, processes and processors away.
# vm: MEM=512 SMP=2 CPU=max MODULE=zram
exec suite <<'END'
race-fault size=4194304
race-fault size=4194304 huge=1
race-oom size=4194304
race-oom size=4194304 huge=1
race-kill size=4194304
race-kill size=4194304 huge=1
race-memory size=4194304
race-memory size=4194304 huge=1
race-cpus size=4194304
race-cpus size=4194304 huge=1
END
