# SPDX-License-Identifier: GPL-2.0
# A device of more than 4 GiB.
# vm: KERNEL=stock MEM=7168 SMP=2 CPU=max
# vm: KERNEL=kcsan MEM=9216 SMP=2 CPU=max TIMEOUT=3600
# vm: KERNEL=debug LONG=1 MEM=9216 SMP=2 CPU=max TIMEOUT=3600
exec suite <<'END'
big size=5368709121
END
