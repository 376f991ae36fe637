# SPDX-License-Identifier: GPL-2.0
# Unloading: refused while in use, complete when not, without a leak.
# In the debug kernel objects are freed seconds late; with ICOUNT=1, idle time passes at once.
# vm: KERNEL=stock,kcsan MEM=512 SMP=1 CPU=max
# vm: KERNEL=debug MEM=768 ICOUNT=1
leak='leak -
leak - huge=1'
if [ -e /sys/kernel/debug/kmemleak ]; then
	export TIMES=10
	# KASAN keeps what is freed for a while, so counting tells nothing; inject-load asks kmemleak.
	leak=
fi
exec suite <<END
unload -
unload - huge=1 size=2097152
$leak
END
