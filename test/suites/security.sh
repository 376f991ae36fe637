# SPDX-License-Identifier: GPL-2.0
# Who may open and load, what a read-only descriptor never allows, who pays, and what references to
# pages cannot do; see docs/security.md.
# vm: KERNEL=stock MEM=512 SMP=1 CPU=max
# vm: KERNEL=debug MEM=1024 SMP=1 CPU=max
[ ! -e /sys/kernel/debug/kmemleak ] || export SLOW=1 # A kernel that checks itself.
exec suite <<'END'
access -
readonly size=12288
readonly size=2097152 huge=1
limits mode=0666 size=1048576
limits mode=0666 size=4194304 huge=1
pins size=65536
pins size=65536 huge=1
pins size=2097152 huge=1
END
