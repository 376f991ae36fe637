# SPDX-License-Identifier: GPL-2.0
# What docs/security.md claims.
# vm: MEM=512 SMP=2 CPU=max KERNEL=stock,debug
exec suite <<'END'
pins size=65536
pins size=65536 huge=1
pins size=2097152 huge=1
END
