# SPDX-License-Identifier: GPL-2.0
# Unloading: refused while in use, complete when not, without a leak.
# vm: MEM=512 SMP=1 CPU=max
exec suite <<'END'
unload -
unload - huge=1 size=2097152
leak -
leak - huge=1
END
