# SPDX-License-Identifier: GPL-2.0
# Large folios, when memory is in small pieces and when it is not.
# vm: KERNEL=stock,kcsan MEM=512 SMP=1 CPU=max
exec suite <<'END'
fragmented -
END
