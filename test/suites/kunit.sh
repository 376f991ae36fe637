# SPDX-License-Identifier: GPL-2.0
# The module's own tests, in the kernel. Each of their suites is a report of its own: make it one.
# vm: KERNEL=debug,kcsan MEM=512 APPEND="kunit.enable=1 kunit.autorun=1"
insmod map_driver.ko
number=0
for results in /sys/kernel/debug/kunit/map_driver*/results; do
	number=$((number + 1))
	sed -n "s/ok 1 map_driver/ok $number map_driver/; /^ \|ok/p" "$results"
done
echo "1..$number"
rmmod map_driver
