# SPDX-License-Identifier: GPL-2.0
# The program mapdrv: what each command prints on a real device, and with which exit status.
# vm: KERNEL=stock MEM=512 SMP=2 CPU=max
# vm: KERNEL=stock MEM=512 SMP=1 CPU=max,la57=off
# vm: KERNEL=debug,kcsan MEM=512 SMP=2 CPU=max
# shellcheck disable=SC2016 # The commands are expanded by the shell that runs them.
echo "KTAP version 1"
number=0

# check PROMISE STATUS PATTERN COMMAND: exits with STATUS; one line, of output or of errors, matches
# the extended regular expression PATTERN, or there are none if it is empty.
check() {
	number=$((number + 1))
	output=$(sh -c "$4" 2>&1)
	status=$?
	if [ $status -eq "$2" ] && if [ -z "$3" ]; then [ -z "$output" ]; else
		echo "$output" | grep -qE -e "$3"; fi; then
		echo "ok $number - $1"
	else
		echo "$output" | sed 's/^/# found: /'
		echo "# found status $status; expected $2 and a line that matches: $3"
		echo "not ok $number - $1"
	fi
}

# as_user COMMAND: the command line that runs COMMAND without privileges.
as_user() { echo "su user -c '$1'"; }

cd /tmp || exit
echo 'user:x:1000:1000::/:/bin/sh' >>/etc/passwd
insmod /root/map_driver.ko devices=2 size=1048577
mknod mapfile c "$(sed -n 's/ mapdrv$//p' /proc/devices)" 1
error='^mapdrv: .*'

check "list has each device" 0 '^/dev/mapdrv1 +1\.00 MiB +257 vmalloc +0$' 'mapdrv list'
check "list --json is one object for each" 0 '^2$' \
	'mapdrv list --json | grep -c "^{\"device\":\"/dev/mapdrv[01]\",\"size\":1048577,\"pages\":257,"'
check "info by number" 0 '^device +/dev/mapdrv0$' 'mapdrv info 0'
check "info by a node made by hand" 0 '^minor +1$' 'mapdrv info mapfile'
check "info --json" 0 '^\{"device":"mapfile","minor":1,"size":1048577,"pages":257,' \
	'mapdrv info mapfile --json'

check "read prints the kernel's text" 0 '^Hello from the kernel: ' 'mapdrv read 0'
check "read --offset, up to NUL" 0 '^ok!$' 'mapdrv read 0 --offset 0x1051'
check "read --offset --len" 0 '^from the$' 'mapdrv read mapfile -o 6 -l 8'
check "read --raw is the device" 0 '' 'mapdrv read 0 --raw | cmp - /dev/mapdrv0'
check "read --raw of a part" 0 '' \
	'dd if=/dev/mapdrv0 bs=1 skip=4095 count=4098 2>/dev/null >part
	mapdrv read 0 -r -o 4095 -l 4098 | cmp - part'
check "read --hex is hexdump -C" 0 '' \
	'hexdump -C /dev/mapdrv0 >hexdump; mapdrv read 0 --hex | cmp - hexdump'
check "read --json" 0 '^\{"device":"/dev/mapdrv0","offset":6,"text":"from"\}$' \
	'mapdrv read 0 --json -o 6 -l 4'
check "read at the end prints nothing" 0 '' 'mapdrv read 0 --raw --offset 1048577'
check "read past the end is wrong usage" 2 "${error}past the end" 'mapdrv read 0 -o 2M'

check "verify by a mapping" 0 '^mapfile: mmap: ok: 257 pages, 1052672 bytes, [0-9]+ page faults' \
	'mapdrv verify mapfile'
check "verify by read" 0 ' read: ok: 257 pages' 'mapdrv verify 0 -m mmap,read --jobs 3'
check "verify by direct I/O" 0 ' direct: ok: 257 pages' 'mapdrv verify 0 --method direct'
check "verify in a directory without direct I/O" 1 "${error}/proc: .*direct I/O" \
	'mapdrv verify 0 --method direct --scratch /proc'
check "verify at random" 0 ' ok: 1000 pages' 'mapdrv verify 0 --random 1000'
check "verify shows no progress in a pipe" 0 '^1$' 'mapdrv verify 0 2>&1 | wc -l'

check "write from standard input" 0 '^/dev/mapdrv0: 3 bytes written at 0x5003$' \
	'printf abc | mapdrv write 0 --offset 0x5003'
check "verify finds the page, the byte, what it should be and what it is" 1 \
	'^ +5 +0x5003 +6c 6f 20 66 72 +61 62 63 66 72$' 'mapdrv verify 0 --method mmap'
check "verify finds it by read" 1 '^ +5 +0x5003 ' 'mapdrv verify 0 --method read'
check "verify finds it by direct I/O" 1 '^ +5 +0x5003 ' 'mapdrv verify 0 --method direct'
check "verify --json" 1 '"ok":false,.*"mismatches":1,"first":\[\{"page":5,"offset":20483,' \
	'mapdrv verify 0 --json'
check "map shows what has changed" 0 '^changed since load: 1 page$' 'mapdrv map 0'
check "write from a file" 0 '^/dev/mapdrv0: 3 bytes written at 0x5003$' \
	'printf "lo " >good; mapdrv write 0 good -o 0x5003'
check "verify finds all well again" 0 ' ok: ' 'mapdrv verify 0'
check "write of a file that is not there" 1 "${error}/nonexistent: No such file" \
	'mapdrv write 0 /nonexistent'
check "write at the end tells how much there was room for" 1 "${error}full; 2 bytes were written" \
	'mapdrv read 1 -r -o 1048575 >tail; printf x >>tail; mapdrv write 1 tail -o 1048575'
check "write past the end" 1 "${error}full; 0 bytes were written" 'mapdrv write 0 good -o 1T'

check "walk draws both walks" 0 '^pte \[ *[0-9]+\] .*leaf of 4.00 KiB +pte \[ *[0-9]+\] .*leaf of' \
	'mapdrv walk 0 0x3005'
check "walk: both end at one page" 0 '^both end at the same page' 'mapdrv walk mapfile'
check "walk: for every page" 0 '^257$' \
	'mapdrv walk 0 --json $(seq 0 4096 1048576) | grep -c "\"agree\":true}$"'
check "walk past the last page is wrong usage" 2 "${error}outside" 'mapdrv walk 0 0x101000'

check "map shows its own mapping" 0 '^mapdrv \(this program\), pages 0 to 256, shared, read-only: ' \
	'mapdrv map 0'
check "map shows other processes" 0 '^2$' \
	'mapdrv map 0 --watch=60 >/dev/null &
	until [ "$(mapdrv list --json | grep -c "mapdrv0.*\"mappings\":1}")" = 1 ]; do sleep 0.1; done
	mapdrv map 0 --json | grep -o "\"pid\":" | wc -l; kill $!'
check "map --touch touches" 0 '^1$' \
	'mapdrv map 0 --touch 1M --json | grep -c "{\"first_page\":2[45][0-9],\"pages\":[0-9]*,\"huge\""'
check "layout finds everything in its place" 0 '^[0-9a-f]+ +the device: ok$' 'mapdrv layout 0'
check "layout: nothing is elsewhere" 1 '' 'mapdrv layout 0 | grep -E "out of place|in no area"'
check "layout is /proc/self/maps" 0 ' r--s /dev/mapdrv0$' 'mapdrv layout /dev/mapdrv0'

check "stat counts pages" 0 '^257$' \
	'pages() { mapdrv stat 0 --json | sed "s/.*\"pages_installed\":\([0-9]*\).*/\1/"; }
	before=$(pages); mapdrv verify 0 >/dev/null; echo $(($(pages) - before))'
check "stat --interval prints what is added" 0 '^ +0 +0 +0 +0 +1 +0 +0$' \
	'mapdrv stat 1 --interval 0.1 --count 3'
check "wait ends with a write" 0 '^/dev/mapdrv0: changed, generation [0-9]+$' \
	'while mapdrv write 0 good -o 0x5003 >/dev/null; do sleep 0.2; done & mapdrv wait 0; kill $!'
check "wait gives up" 1 '' 'mapdrv wait 0 --timeout 0.1'

mkfifo pipe
for device in /dev/null /dev/zero good pipe /tmp /nonexistent 63 4294967296 good/x; do
	check "not a device: $device" 3 "$error" "mapdrv verify $device"
done
check "a node that no driver serves" 3 "$error" 'mknod unserved c 250 1; mapdrv read unserved'
check "a minor that is not there" 3 "$error" \
	'mknod minor63 c "$(sed -n "s/ mapdrv$//p" /proc/devices)" 63; mapdrv read minor63'

check "anybody may list" 0 '^/dev/mapdrv0 ' "$(as_user 'mapdrv list')"
for command in info read verify write walk map layout stat wait; do
	check "not permitted: $command" 4 "${error}/dev/mapdrv0: .*Permission denied.*; try as root" \
		"$(as_user "mapdrv $command 0")"
done
chmod 644 /dev/mapdrv0
check "permitted: verify" 0 ' ok: ' "$(as_user 'mapdrv verify 0')"
check "permitted: walk, without what only root may know" 0 '^pte \[  \?\] .*pte \[ *[0-9]+\]' \
	"$(as_user 'mapdrv walk 0')"
check "permitted: walk hides frame numbers" 0 '^0$' \
	"$(as_user 'mapdrv walk 0 --json | grep -c "pfn\":[0-9]"; true')"
check "permitted: map" 0 'this program' "$(as_user 'mapdrv map 0')"
check "not permitted still: write" 4 "${error}Permission denied" "$(as_user 'mapdrv write 0 good')"

check "a closed pipe is quiet" 0 '^0000' 'mapdrv read 0 --hex | head -n 1'
check "a full disk is reported" 1 "${error}No space left" 'mapdrv read 0 --raw >/dev/full'
check "Ctrl-C ends it by the signal" 130 '' \
	'mapdrv verify 0 --random 1000000000 & while kill -INT $!; do sleep 0.2; done 2>/dev/null
	wait $!'
check "no colours in a pipe, nor with NO_COLOR" 1 '' \
	'{ mapdrv map 0; NO_COLOR=1 mapdrv map 0; } | grep "$(printf "\033")"'

# A telnet session has a terminal.
telnetd -l /bin/sh -p 23
{
	echo 'export TERM=linux; stty rows 24 cols 20; cd /tmp'
	echo 'mapdrv verify 0 --random 300000; mapdrv map 0; touch typed; exit'
	until [ -e typed ]; do sleep 0.2; done
	sleep 0.5
} | nc 127.0.0.1 23 | tr '\r' '\n' >terminal
check "a progress bar on a terminal" 0 '[0-9]% .*█' 'cat terminal'
check "colours on a terminal" 0 "$(printf '\033\\[32m')ok" 'cat terminal'
check "pictures fit a terminal" 0 "^  $(printf '\033\\[32m')(·|░|▓){18}$(printf '\033')" \
	'cat terminal'

check "rmmod" 0 '' 'rmmod map_driver'
check "no module: list" 3 "${error}not loaded; try .insmod" 'mapdrv list'
check "no module: a node" 3 "${error}not loaded; try .insmod" 'mapdrv read mapfile'
insmod /root/map_driver.ko size=4097 fill=0
check "zeroes: read prints an empty line" 0 '^$' 'mapdrv read 0'
check "zeroes: verify" 0 ' ok: 2 pages, 8192 bytes' 'mapdrv verify 0'
rmmod map_driver
insmod /root/map_driver.ko size=1
check "one byte: read" 0 '^H$' 'mapdrv read 0'
check "one byte: verify" 0 ' ok: 1 page, 4096 bytes' 'mapdrv verify 0 -m mmap,read,direct'
rmmod map_driver
insmod /root/map_driver.ko size=16777216 huge=1
check "huge: list" 0 ' huge +0$' 'mapdrv list'
check "huge: verify" 0 ' ok: 4096 pages' 'mapdrv verify 0 -m mmap,read,direct'
check "huge: map shows huge entries" 0 '(█){8}' 'mapdrv map 0 --touch 8M'
check "huge: walk ends higher up in this process" 0 '^pmd .*pmd \[ *[0-9]+\] .*leaf of 2.00 MiB' \
	'mapdrv walk 0 8M'
check "huge: both end at one page" 0 '^4096$' \
	'mapdrv walk 0 --json $(seq 0 4096 16777215) | grep -c "\"agree\":true}$"'
rmmod map_driver
echo "1..$number"
