# SPDX-License-Identifier: GPL-2.0
# Loading and unloading against all uses, with large folios. The debug kernel takes seconds for each
# unloading, and sees the same calls in race.sh.
# vm: MEM=512 SMP=2 CPU=max KERNEL=stock,kcsan
exec suite <<'END'
race-unload - size=2097152 huge=1
END
