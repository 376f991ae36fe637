# SPDX-License-Identifier: GPL-2.0
# Parameters, and loading that fails.
# In the debug kernel objects are freed seconds late; with ICOUNT=1, idle time passes at once.
# vm: KERNEL=stock,kcsan MEM=256 SMP=2 CPU=max
# vm: KERNEL=debug MEM=768 ICOUNT=1
exec suite <<'END'
params -
END
