# SPDX-License-Identifier: GPL-2.0
# Who may open and load, what a read-only descriptor never allows, and what pins cannot do; see
# docs/security.md.
# vm: MEM=512 SMP=1 CPU=max KERNEL=stock,debug
[ ! -e /sys/kernel/debug/kmemleak ] || export DEPTH=2 # A kernel that checks itself is slow.
exec suite <<'END'
access -
readonly size=12288
readonly size=2097152 huge=1
pins size=65536
pins size=65536 huge=1
pins size=2097152 huge=1
END
