#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The tutorial's session, as `make run` shows it: each command as one would type it, then what it
# printed. Ends at the first command that fails or prints something other than it should.

# show PATTERN COMMAND: runs COMMAND; a line of its output has to match the extended regular
# expression PATTERN, or, if that is empty, there has to be no output.
show() {
	echo "# $2"
	output=$(eval "$2" 2>&1)
	status=$?
	[ -z "$output" ] || echo "$output"
	if [ $status -ne 0 ]; then
		echo "session: \`$2\` failed with status $status" >&2
		exit 1
	elif [ -z "$1" ] && [ -n "$output" ]; then
		echo "session: \`$2\` should have printed nothing" >&2
		exit 1
	elif ! echo "$output" | grep -Eq -e "$1"; then
		echo "session: \`$2\` should have printed a line like: $1" >&2
		exit 1
	fi
}

# The distribution's kernel, unmodified.
show '^[0-9]+\.[0-9]+\.[0-9]+' 'uname -r'

# The driver, and the major number it was given.
show '' 'insmod map_driver.ko'
show '^ *[0-9]+ mapdrv$' 'grep mapdrv /proc/devices'
major=$(awk '$2 == "mapdrv" { print $1 }' /proc/devices)

# A device node, made by hand as in the old days; /dev/mapdrv0 is the same device.
show '' "mknod mapfile c $major 0"

# The kernel's text, read through the mapping; then every byte of every page.
show '^Hello from the kernel: ' 'mapdrv read mapfile'
show 'ok: 256 pages, ' 'mapdrv verify mapfile'

# What the driver has to say: its major again, and how deep the page tables are.
show "major $major,.* 256 pages" 'dmesg | grep map_driver'
show '' 'rmmod map_driver'
