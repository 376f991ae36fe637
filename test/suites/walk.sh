# SPDX-License-Identifier: GPL-2.0
# The walk of the page tables, with four levels and with five.
# vm: KERNEL=stock MEM=1024 SMP=1 CPU=max,la57=off
# vm: MEM=1024 SMP=2 CPU=max
exec suite <<'END'
oracle -
walk mode=0666 size=1
walk mode=0666 size=4097
walk mode=0666 size=16777216
walk mode=0666 size=16777216 huge=1
END
