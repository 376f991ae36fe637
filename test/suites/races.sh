# SPDX-License-Identifier: GPL-2.0
# Races: each of them by itself, for a number of rounds.
# vm: MEM=512 SMP=2 CPU=max MODULE=zram
exec suite <<'END'
race-unload - size=262144
race-unload - size=4194304 huge=1
race-fault - size=4194304
race-fault - size=4194304 huge=1
race-kill - size=4194304
race-kill - size=4194304 huge=1
race-memory - size=4194304
race-memory - size=4194304 huge=1
race-cpus - size=4194304
race-cpus - size=4194304 huge=1
END
