# SPDX-License-Identifier: GPL-2.0
# Races on a host that does not let each virtual CPU run all the time.
# vm: KERNEL=stock MEM=512 SMP=2 CPU=max PAUSE=30:1000
# vm: KERNEL=debug,kcsan MEM=512 SMP=2 CPU=max PAUSE=30:1000
exec suite <<'END'
race-fault size=4194304
race-fault size=4194304 huge=1
race-cpus size=4194304
race-cpus size=4194304 huge=1
END
