# SPDX-License-Identifier: GPL-2.0
# A device of more than 4 GiB.
# vm: MEM=7168 SMP=2 CPU=max
exec suite <<'END'
big size=5368709121
END
