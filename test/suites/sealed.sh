# SPDX-License-Identifier: GPL-2.0
# Kernels that refuse a module without a signature; see docs/security.md.
# vm: MEM=256 KERNEL=stock
# vm: MEM=256 KERNEL=stock APPEND=module.sig_enforce=1
# vm: MEM=256 KERNEL=stock APPEND=lockdown=integrity
# vm: MEM=256 KERNEL=stock APPEND=lockdown=confidentiality
case $(cat /proc/cmdline) in
*sig_enforce=1*) group=sealed-enforced ;;
*lockdown=*)
	group=sealed-locked
	sleep 6 # the kernel has said much of this while booting, and limits how often it does
	;;
*) group=sealed ;;
esac
echo "$group -" | suite
