# SPDX-License-Identifier: GPL-2.0
# Reading, writing, seeking, waiting, and the ioctls.
# vm: MEM=512 SMP=2 CPU=max
exec suite <<'END'
files size=1048576
files size=100001 devices=2
changes size=1048576
changes size=100001
changes size=4194304 huge=1
ioctls size=8192
END
