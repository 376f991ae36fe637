# SPDX-License-Identifier: GPL-2.0
# Nobody is told where the kernel's memory is; see docs/security.md. An address that is printed shows.
# vm: KERNEL=stock MEM=512 SMP=2 CPU=max APPEND=no_hash_pointers
# vm: KERNEL=debug MEM=1024 SMP=2 CPU=max APPEND=no_hash_pointers
# vm: MEM=512 SMP=1 CPU=max,la57=off KERNEL=stock APPEND=no_hash_pointers
exec suite <<'END'
caps mode=0666
addresses - mode=0644 size=1000100 devices=2
addresses - mode=0644 size=4196304 huge=1
END
