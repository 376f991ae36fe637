# SPDX-License-Identifier: GPL-2.0
# What is in a device, by every way of reading it.
# vm: MEM=1024 SMP=2 CPU=max
exec suite <<'END'
contents size=1
contents size=4095
contents size=4096
contents size=4097
contents size=1048576
contents size=33554433
contents size=4097 fill=0
contents size=1000000 fill=0
contents devices=3 size=70000
contents size=1 huge=1
contents size=33554433 huge=1
contents devices=3 size=2097153 huge=1 fill=0
END
