# SPDX-License-Identifier: GPL-2.0
# Everything, mixed, for MINUTES of the guest's time; then nothing may be missing from its memory.
# vm: KERNEL=stock MEM=1024 SMP=2 CPU=max MODULE=zram MINUTES=1
# vm: KERNEL=debug,kcsan LONG=1 MEM=1536 SMP=2 CPU=max MINUTES=10
end=$(($(cut -d. -f1 /proc/uptime) + MINUTES * 60))
# The short form does the same each time.
seed=0
[ "$MINUTES" -le 1 ] || seed=$(tr -cd 1-9 </dev/urandom | head -c 8)
rounds=0 failed=0 tests=0 operations=0 faults=0 pages=0

# quietly COMMAND: its output is kept, and shown if it fails.
quietly() {
	"$@" >output 2>&1 && return
	failed=$((failed + 1))
	sed 's/^/# /' output
	echo "# round $rounds failed: $*"
}

# KiB that are free when all can be is, with what processors keep at hand; the first and the last are
# compared.
memory() {
	rm -f good output served
	echo 3 >/proc/sys/vm/drop_caches
	echo 1 >/proc/sys/vm/compact_memory
	sleep 2
	awk '$1 == "pages" && $2 == "free" { free += $3 } $1 == "count:" { free += $2 } END { print free * 4 }' \
		/proc/zoneinfo
}

percpu() {
	sed -n 's/^Percpu: *\([0-9]*\) kB/\1/p' /proc/meminfo
}

# Several at work on one device, while memory is short and processors come and go.
together() {
	size=$((1 << 20 << rounds % 4))
	insmod map_driver.ko size=$size "$@" || return
	dd if=/dev/mapdrv0 of=good bs=1M 2>/dev/null
	for _ in 1 2 3; do
		mapdrv verify 0 --random 2000 --jobs 2 >/dev/null || return
		mapdrv write 0 good >/dev/null || return
	done &
	writer=$!
	for _ in 1 2 3; do
		echo 0 >/sys/devices/system/cpu/cpu1/online
		echo 3 >/proc/sys/vm/drop_caches
		cat /sys/kernel/debug/mapdrv/mapdrv0/* /sys/class/mapdrv/mapdrv0/faults >/dev/null
		echo 1 >/sys/devices/system/cpu/cpu1/online
		echo 1 >/proc/sys/vm/compact_memory
	done
	wait $writer && mapdrv verify 0 && rmmod map_driver
}

while [ $rounds -lt 2 ] || [ "$(cut -d. -f1 /proc/uptime)" -lt $end ]; do
	rounds=$((rounds + 1))
	case $((rounds % 3)) in
	0) mode=fault_around=4096 ;;
	1) mode=fault_around=65536 ;;
	2) mode=huge=1 ;;
	esac
	quietly together "$mode"
	quietly suite <<-END
		race - size=4194304 $mode
		race-fault size=4194304 $mode
		race-kill size=4194304 $mode
		race-memory size=4194304 $mode
	END
	tests=$((tests + $(grep -c '^ *ok ' output)))
	quietly mapdrv-fuzz --seed $((seed + rounds)) --rounds 40
	operations=$((operations + $(sed -n 's/^# \([0-9]*\) operations.*/\1/p' output)))
	# What the module says of each device when it is unloaded.
	dmesg -c | sed -n 's/.*: mapdrv[0-9]*: \([0-9]*\) faults served, \([0-9]*\) pages.*/\1 \2/p' >served
	while read -r more pages_more; do
		faults=$((faults + more)) pages=$((pages + pages_more))
	done <served
	# The first round leaves behind what is made once.
	[ $rounds -gt 1 ] || { first=$(memory) first_percpu=$(percpu); }
done
growth=$((first - $(memory)))
growth_percpu=$(($(percpu) - first_percpu))
echo "# soak: $rounds rounds, $tests tests, $operations random operations, $faults faults," \
	"$pages pages ($((pages >> 8)) MiB) mapped; memory in use grew by $growth KiB, per-CPU memory by $growth_percpu"
echo "KTAP version 1"
result() {
	[ "$2" -eq 0 ] || printf 'not '
	echo "ok $1"
}
result "1 - every round went well" $failed
result "2 - faults were served" $((faults == 0))
result "3 - no area of ours is left" "$(grep -c map_driver /proc/vmallocinfo)"
result "4 - per-CPU memory has not grown" $((growth_percpu > 0))
# The kernel's caches settle in the first rounds. Each loads the module dozens of times, with a megabyte
# at least; a page lost each time would be 160 KiB a round.
result "5 - memory in use has not grown by 1024 KiB and 64 a round" $((growth > 1024 + 64 * rounds))
echo "1..5"
[ $failed -eq 0 ]
