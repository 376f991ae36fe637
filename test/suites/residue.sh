# SPDX-License-Identifier: GPL-2.0
# What others have left in memory is not readable through a device; see docs/security.md.
# vm: MEM=512 SMP=1 KERNEL=stock APPEND='init_on_alloc=0 init_on_free=0'
# vm: MEM=1024 SMP=1 KERNEL=debug APPEND='init_on_alloc=0 slub_debug=P'
[ ! -e /sys/kernel/debug/kmemleak ] || export SLOW=1 # A kernel that checks itself.
exec suite <<'END'
residue -
END
