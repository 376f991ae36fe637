# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=busybox
#
# Runs others' programs on fresh devices of a freshly loaded module, and says in KTAP how that went.

foreign=/usr/lib/foreign
number=0
# APPEND=foreign.rounds=N makes that much more of it.
rounds=$(sed -n 's/.*\<foreign\.rounds=\([0-9]*\).*/\1/p' /proc/cmdline)
rounds=${rounds:-1}
echo "KTAP version 1"

# onto WHAT PARAMETERS COMMAND...: runs COMMAND, and waits for all that it leaves behind, with WHAT of it
# on the devices of a module loaded with PARAMETERS: see onto.c. Sets the exit status, the number of
# faults served, and busy if the module cannot be unloaded then. What is printed is in /tmp/output.
onto() {
	what=$1 parameters=$2
	shift 2
	rm -rf /tmp/onto && mkdir /tmp/onto && cd /tmp/onto || exit
	# shellcheck disable=SC2086 # There may be several parameters, or none.
	insmod /root/map_driver.ko devices=5 size=25165824 fill=0 $parameters || exit
	{
		LD_PRELOAD=$foreign/onto.so ONTO=$what timeout 300 "$@" </dev/null 2>&1
		echo $? >/tmp/status
	} | cat >/tmp/output
	status=$(cat /tmp/status)
	served=$(cat /sys/kernel/debug/mapdrv/*/stats | awk '/^faults:/ { n += $2 } END { print n }')
	cd / && rm -rf /tmp/onto
	busy=1
	for _ in $(seq 100); do # who has just died may still be letting go
		rmmod map_driver 2>/dev/null && busy= && break
		usleep 100000
	done
}

# program NAME WHAT PARAMETERS LEAST FAILING COMMAND...: a test of COMMAND. It passes if COMMAND ends with
# status 0, or tells of failures that all match FAILING; if the devices served more faults than
# LEAST; and if the module can be unloaded afterwards.
program() {
	name=$1 least=$4 failing=$5
	what=$2 parameters=$3
	shift 5
	number=$((number + 1))
	onto "$what" "$parameters" "$@"
	grep -E '^not ok|Bail out!|: (fail|error): ' /tmp/output >/tmp/failures
	passed=$(grep -c '^ok' /tmp/output)
	grep -E '^ok.*(# SKIP| unsupported)|^1\.\.0 # SKIP' /tmp/output >/tmp/skips
	skipped=$(wc -l </tmp/skips)
	wrong='' directive=''
	if [ "$status" -gt 4 ]; then
		wrong="it died"
	elif [ -s /tmp/failures ]; then
		if [ -z "$failing" ] || grep -qvE "$failing" /tmp/failures; then wrong="it failed"; fi
	elif [ "$status" -ne 0 ] && [ "$status" -ne 4 ]; then
		wrong="it failed"
	elif [ "$skipped" -gt 0 ] && [ "$skipped" -ge "$passed" ]; then
		directive=" # SKIP $(sed 's/.*# SKIP *//;q' /tmp/skips)"
	elif [ "$served" -le "$least" ]; then
		wrong="it did not reach the devices"
	fi
	[ -z "$busy" ] || wrong="it left the module in use"
	echo "# $name: status $status, $served faults, $passed passed, $skipped of them skipped," \
		"$(wc -l </tmp/failures) failed"
	if [ -n "$wrong" ]; then
		tail -n 40 /tmp/output | sed 's/^/# /'
		echo "# $wrong"
		echo "not ok $number - $name"
		[ -z "$busy" ] || exit
	else
		echo "ok $number - $name$directive"
	fi
}
