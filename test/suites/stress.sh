# SPDX-License-Identifier: GPL-2.0
# The stressors of stress-ng that are about memory, with their memory and their files on our devices.
# vm: KERNEL=stock MEM=768 SMP=2 CPU=max FOREIGN=1
# vm: KERNEL=debug,kcsan LONG=1 MEM=1536 SMP=2 CPU=max FOREIGN=1
# shellcheck source=test/foreign/common.sh
. /usr/lib/foreign/common.sh

stress_ng="stress-ng --temp-path . --verify --oomable --no-oom-adjust --seed 1"
# What any stressor takes: each must do more.
# shellcheck disable=SC2086 # These are words.
onto anon,files,children "" $stress_ng --null 1 --null-ops 1
least=$served
echo "# without a stressor: $least faults"

# stress NAME OPERATIONS [OPTION...]: so many operations of a stressor.
stress() {
	stressor=$1 operations=$(($2 * rounds))
	shift 2
	# shellcheck disable=SC2086
	program "$stressor${*:+ $*}${mode:+ $mode}" anon,files,children "$mode" "$least" "" \
		$stress_ng "--$stressor" 1 "--$stressor-ops" "$operations" "$@"
}

# Each line of the standard input is what to give to stress.
stress_all() {
	while read -r line; do
		# shellcheck disable=SC2086
		stress $line
	done
}

mode=
stress_all <<END
fault 200
madvise 1
memfd 4 --memfd-bytes 8M
memrate 1 --memrate-bytes 4M
mlock 500
mmap 2 --mmap-bytes 8M
mmap 2 --mmap-bytes 8M --mmap-file --mmap-async
mmap 1 --mmap-bytes 4M --mmap-file --mmap-madvise --mmap-slow-munmap --mmap-write-check
mmapaddr 200
mmapcow 200
mmapcow 100 --mmapcow-fork
mmapfixed 2
mmapfork 2 --mmapfork-bytes 4M
mmaphuge 4 --mmaphuge-file --mmaphuge-mmaps 8
mmapmany 1000
mmaptorture 10 --mmaptorture-bytes 16M
msync 50 --msync-bytes 8M
msyncmany 4
numa 2 --numa-bytes 4M
pagemove 2 --pagemove-bytes 4M
pageswap 50
physpage 50
ptr-chase 10
remap 10 --remap-pages 64
rmap 20
splice 50 --splice-bytes 64K
stackmmap 5
vm 500 --vm-bytes 8M
vm 500 --vm-bytes 8M --vm-keep
vm-addr 4
vm-rw 10 --vm-rw-bytes 4M
vm-splice 100 --vm-splice-bytes 1M
vma 200
END

mode=huge=1
stress_all <<END
fault 200
madvise 1
mmap 2 --mmap-bytes 8M
mmap 1 --mmap-bytes 4M --mmap-file --mmap-madvise --mmap-slow-munmap --mmap-write-check
mmapcow 100 --mmapcow-fork
msync 50 --msync-bytes 8M
pagemove 2 --pagemove-bytes 4M
rmap 20
vm 500 --vm-bytes 8M --vm-keep
vm-splice 100 --vm-splice-bytes 1M
END

# It maps, polls, seeks and so on, until its time is over, and touches nothing.
# shellcheck disable=SC2086
program "dev --dev-file /dev/mapdrv0" files "" -1 "" $stress_ng --timeout 10 --dev 1 --dev-file /dev/mapdrv0
echo "1..$number"
