# SPDX-License-Identifier: GPL-2.0
# What bench/run has the virtual machine do. Booting leaves work behind that would be counted.
sleep 20
exec mapdrv-bench run --mib 16,256,1024 --ours 4096 --rounds 2
