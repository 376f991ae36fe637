# SPDX-License-Identifier: GPL-2.0
# The kernel's own tests of memory management, with their memory and their files on our devices.
# vm: KERNEL=stock MEM=768 SMP=2 CPU=max FOREIGN=1
# vm: KERNEL=debug,kcsan LONG=1 MEM=1536 SMP=2 CPU=max FOREIGN=1
# shellcheck source=test/foreign/common.sh
. /usr/lib/foreign/common.sh

# selftest WHAT LEAST FAILING NAME [ARGUMENT...]: one program, without and with huge pages.
selftest() {
	what=$1 least=$2 failing=$3 test=$4
	shift 4
	for mode in "" huge=1; do
		program "$test${*:+ $*}${mode:+ $mode}" "$what" "$mode" "$least" "$failing" "$foreign/$test" "$@"
	done
}

echo 0 >/proc/sys/kernel/randomize_va_space # some take addresses that they have found to be free
echo 1 >/proc/sys/vm/overcommit_memory      # some reserve more than there is

for _ in $(seq "$rounds"); do
	selftest anon,files 0 "" cow
	selftest files 0 "" gup_test -m 4 -r 1 -f /dev/mapdrv0
	selftest files 0 "" gup_test -m 4 -r 1 -S -L -f /dev/mapdrv0
	selftest files 0 "" gup_longterm
	selftest anon 0 "" madv_populate
	selftest anon -1 "" map_fixed_noreplace # touches nothing
	selftest files 0 "" map_populate
	# Forced writes through /proc/self/mem, which Debian forbids; userfaultfd.
	selftest anon 0 "write\(\) failed|UFFDIO_REGISTER failed|Bail out!" mkdirty
	selftest anon 0 "" mrelease_test
	# Growing; leaving the old mapping behind; userfaultfd.
	selftest anon 0 "mremap expand|dontunnmap|invalid vmas" mremap_test
	# PROT_EXEC; growing; leaving the old mapping behind; what only anonymous memory has; merging.
	selftest anon -1 "partial_mprotect_tail|mremap_expand|dontunmap|discard_ro_anon|discard_across|merge_and_split" \
		mseal_test
	selftest files -1 "" pfnmap -- /dev/mapdrv0
	selftest anon 0 "" pkey_sighandler_tests
	selftest anon 0 "" process_madv
	selftest anon 0 "Bail out! test 19 " protection_keys # PROT_EXEC
	selftest files 0 "" soft-dirty
	selftest anon 0 "" transhuge-stress -d 1 8
	selftest anon 0 "" va_high_addr_switch
done
echo "1..$number"
