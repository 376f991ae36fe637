# SPDX-License-Identifier: GPL-2.0
# The tutorial's session: each command as a person types it, and what it must print.
# vm: MEM=1024 SMP=1 CPU=max
# vm: KERNEL=stock MEM=1024 SMP=1 CPU=max,la57=off
echo "KTAP version 1"
number=0

# step PROMISE PATTERN COMMAND: the command succeeds, and a line of its output matches.
step() {
	number=$((number + 1))
	if output=$(sh -c "$3" 2>&1) && echo "$output" | grep -qE "$2"; then
		echo "ok $number - $1"
	else
		echo "$output" | sed "s/^/# found: /"
		echo "# expected: success, and a line that matches: $2"
		echo "not ok $number - $1"
	fi
}

step "the kernel is the distribution's, or one of ours" "^[0-9.]+(\\+deb|-debug|-kcsan|$)" "uname -r"
step "insmod loads the module" "^map_driver " "insmod map_driver.ko && cat /proc/modules"
step "/proc/devices has one entry, with the major" "^1$" "grep -c ' mapdrv$' /proc/devices"
major=$(sed -n 's/ mapdrv$//p' /proc/devices)
step "/dev has the node, for root alone" "^crw------- .*root .* /dev/mapdrv0$" "ls -l /dev/mapdrv0"
step "mknod makes another" "^$major:0$" \
	"mknod mapfile c $major 0 && printf '%d:%d\n' \$(stat -c '0x%t 0x%T' mapfile)"
step "the kernel's text can be read through a mapping" "^Hello from the kernel" "mapdrv read mapfile"
step "every byte of every page is as published" "256 pages.*1048576 bytes" "mapdrv verify mapfile"
step "dd sees the same text" "^ok!" "dd if=mapfile bs=88 count=1 2>/dev/null | tr '\0' '\n'"
step "the log tells name, major, pages and page size" \
	"map_driver: mapdrv: major $major, .* 256 pages of 4096 bytes$" "dmesg"
step "the log tells the levels of the page tables and where the walk ended" \
	"map_driver: page tables of [45] levels; .* ended at its (pte|pmd|pud)$" "dmesg"
step "rmmod unloads it" "^0$" "rmmod map_driver && grep -c map_driver /proc/modules || :"
step "the log tells faults, pages and SIGBUSes" \
	"map_driver: mapdrv0: [1-9][0-9]* faults served, [1-9][0-9]* pages mapped, 0 SIGBUS$" "dmesg"
step "the log tells no addresses" "^0$" "dmesg | grep 'map_driver: ' | grep -ciE '0x|[0-9a-f]{12}' || :"
step "nothing is left" "^0$" "ls /dev /sys/class /sys/kernel/debug | grep -c mapdrv || :"
echo "1..$number"
