# SPDX-License-Identifier: GPL-2.0
# Mappings that must not be.
# vm: MEM=512 SMP=1 CPU=max
# vm: KERNEL=stock MEM=512 SMP=1 CPU=max,la57=off
exec suite <<'END'
refuse size=1
refuse size=4097
refuse size=1048576
refuse size=4194304 huge=1
END
