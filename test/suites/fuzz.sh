# SPDX-License-Identifier: GPL-2.0
# Random calls, compared with a model.
# vm: MEM=768 SMP=2 CPU=max KERNEL=stock
# vm: MEM=1536 SMP=2 CPU=max KERNEL=debug
# vm: MEM=1536 SMP=2 CPU=max KERNEL=kcsan
exec mapdrv-fuzz --rounds 100
