# SPDX-License-Identifier: GPL-2.0
# Parameters, and loading that fails.
# vm: MEM=256 SMP=2 CPU=max
exec suite <<'END'
params -
END
