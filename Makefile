# SPDX-License-Identifier: GPL-2.0
#
# A person's half of the build; the kernel's half is Kbuild. `make help` lists the targets.

KDIR ?= /lib/modules/$(shell uname -r)/build
M ?= .
CPU ?= max
SMP ?= 1
MEM ?= 1024
TIMEOUT ?= 300
KERNEL ?= stock
MINUTES ?= 10
Q := $(if $(filter 1,$(V)),,@)

arch := $(shell uname -m)
packages := qemu-system-$(if $(filter aarch64,$(arch)),arm,x86) busybox-static shellcheck mypy
mapdrv := userspace/target/$(arch)-unknown-linux-gnu/release/mapdrv

# An option with its value, if the variable has one.
quote = '$(subst ','\'',$(1))'
option = $(if $($(2)),$(1)=$(call quote,$($(2))))

# Another kernel than the distribution's, and the tree of links in which its module is built.
configs = $(patsubst %,--config $(CURDIR)/test/kernels/%.config,common $(KERNEL))
tree := .
ifneq ($(KERNEL),stock)
tree := out/$(KERNEL)
endif

# Runs a command where the kernel's own compiler is, KDIR set to a build directory made for it. A
# KDIR of the command line's stays.
kdir = $(CURDIR)/kdir/kdir $(call option,--suite,SUITE) $(call option,--flavour,FLAVOUR) \
	$(call option,--release,RELEASE) $(call option,--mirror,MIRROR) \
	$(if $(filter command%,$(origin KDIR))$(filter stock,$(KERNEL)),,$(configs))
enter = $(kdir) --with $(packages) -- \
	$(if $(filter command%,$(origin KDIR)),env KDIR=$(call quote,$(KDIR)))
vm = $(enter) test/vm --cpu=$(call quote,$(CPU)) --smp=$(SMP) --mem=$(MEM) \
	$(call option,--append,APPEND) $(call option,--overlay,OVERLAY) $(call option,--gdb,GDB) \
	$(if $(filter 1,$(ICOUNT)),--icount) \
	--file $(tree)/map_driver.ko:/root/map_driver.ko --file $(mapdrv):/usr/bin/mapdrv

# KDIR, or one sentence that says what is wrong with it and ends with the cure.
cure = `make KDIR="$$(kdir/kdir)"` builds for a distribution kernel and sees to all it takes
checked = $(if $(wildcard $(KDIR)/Makefile),,$(error there is no kernel build directory $(KDIR); \
	$(cure)))$(if $(shell grep -s '^CONFIG_RUST=y' $(KDIR)/include/config/auto.conf),,$(error \
	the kernel of $(KDIR) is built without Rust (CONFIG_RUST); $(cure)))$(if \
	$(wildcard $(KDIR)/rust/libkernel.rmeta),,$(error $(KDIR) lacks the metadata that a Rust \
	module needs (rust/libkernel.rmeta); $(cure)))$(KDIR)
kbuild = $(Q)$(MAKE) -C $(checked) M=$(call quote,$(abspath $(M)))

.PHONY: module modules_install rust-analyzer userspace run vm shell bench trace test test-debug fuzz \
	soak kdir clean help host-packages inside-userspace script built

module:
	$(kbuild) modules

modules_install:
	$(kbuild) modules_install

rust-analyzer:
	$(kbuild) rust-analyzer

run: built
	$(Q)$(vm) --timeout=$(TIMEOUT) test/session.sh

vm: script built
	$(Q)$(vm) --timeout=$(TIMEOUT) $(call quote,$(SCRIPT))

shell: built
	$(Q)$(vm) --shell

bench: built
	$(Q)$(enter) bench/run

trace: built
	$(Q)$(enter) bench/trace

# It adds the configurations itself.
test soak: configs :=
test: host-packages
	$(Q)$(enter) true
	$(Q)test/run --kernel=$(KERNEL) $(call option,--only,T) $(call option,--coverage,COVERAGE) \
		$(if $(filter 1,$(LONG)),--long) $(if $(filter 1,$(V)),--verbose) -- $(enter)

test-debug:
	$(Q)for kernel in debug kcsan; do $(MAKE) --no-print-directory KERNEL=$$kernel kdir || exit; done
	$(Q)$(MAKE) --no-print-directory KERNEL=debug,kcsan COVERAGE=$(if $(T),0,95) test

fuzz: built
	$(Q)$(enter) test/fuzz/run --module $(tree)/map_driver.ko $(call option,--seed,SEED) \
		$(call option,--seconds,SECONDS) $(call option,--replay,REPLAY) $(if $(filter 1,$(V)),--verbose)

soak: host-packages
	$(Q)test/run --kernel=$(KERNEL) --only='^suite: soak' --minutes=$(MINUTES) --verbose -- $(enter)

userspace: host-packages
	$(Q)$(enter) $(MAKE) --no-print-directory inside-userspace

kdir: host-packages
	$(Q)$(kdir)

script:
	$(if $(SCRIPT),,$(error SCRIPT is not set: give the file to run, as in `make vm SCRIPT=file.sh`))
	@test -r $(call quote,$(SCRIPT)) || { echo 'vm: cannot read' $(call quote,$(SCRIPT)) >&2; exit 1; }

# The module and the program, built by one make at a time. What that says is no output of a guest.
built: host-packages | $(tree)
	$(Q)flock Makefile $(enter) $(MAKE) --no-print-directory M=$(tree) module inside-userspace >&2

out/%:
	$(Q)mkdir -p $@ && ln -sfnr Kbuild map_driver.rs abstractions uapi $@

inside-userspace:
	$(Q)cd userspace && CARGO_BUILD_TARGET=$(arch)-unknown-linux-gnu cargo build --release --locked

host-packages:
	$(Q)kdir/host-packages 'for kdir/kdir and the tests' python3 xz-utils

clean:
	$(if $(filter .,$(M)),$(Q)rm -rf out userspace/target test/suite/target bench/target test/foreign/target test/fuzz/target)
	$(Q)find $(call quote,$(M)) -name .git -prune -o -type f \( -name '*.ko' -o -name '*.[oa]' \
		-o -name '*.mod' -o -name '*.mod.c' -o -name '.*.cmd' -o -name '.*.d' \
		-o -name modules.order -o -name Module.symvers -o -name '*.rmeta' \
		-o -name rust-project.json \) -exec rm -f {} +

help:
	$(info $(help))
	@:

define help
Targets:
  module           map_driver.ko, for the kernel of KDIR (the default)
  module M=DIR     any other out-of-tree module
  modules_install  install it: root, and the kernel's usual INSTALL_MOD_PATH=
  rust-analyzer    rust-project.json, for editors
  userspace        the program mapdrv, static: $(mapdrv)
  run              the session of the tutorial, in a virtual machine
  vm SCRIPT=FILE   run FILE in a virtual machine, as root in /root, beside map_driver.ko
  shell            the same with an interactive shell
  bench            measure what mapping costs, for docs/
  trace            count the instructions of a fault, by function
  test             all tests; T=PATTERN selects some
  test-debug       the suites in kernels that check what they do: minutes to build, once; LONG=1
                   has those too that take long there
  fuzz             random calls, compared with a model: SEED=, SECONDS=, REPLAY=FILE
  soak             everything mixed, for MINUTES= [10]
  kdir             the path of a build directory for the distribution's kernel
  clean            remove what building left

Variables of module, modules_install and rust-analyzer:
  KDIR=DIR         the kernel's build directory [$(KDIR)]
  V=1 W=1 CLIPPY=1 LLVM= ARCH= CROSS_COMPILE=  as for the kernel itself

Variables of run, vm, shell, bench, test, userspace and kdir, which make or find their own KDIR:
  KERNEL=NAME      debug or kcsan: one of our own, of test/kernels [stock: the distribution's]
  SUITE=NAME       Debian release whose kernel it is [trixie]
  FLAVOUR=NAME     its flavour, such as amd64 [cloud-amd64]
  RELEASE=NAME     one particular release, as from `uname -r` [the newest]
  MIRROR=URL       the mirror to download from [the host's own]

Variables of run, vm and shell:
  OVERLAY=DIR      copy what is in DIR over /
  CPU=MODEL        QEMU's CPU model [$(CPU)]; max,la57=off for four levels of page tables
  SMP=N            CPUs [$(SMP)]
  MEM=SIZE         memory in MiB, or with a suffix: 6G [$(MEM)]
  ICOUNT=1         the guest's clock counts instructions, one a nanosecond
  APPEND=TEXT      more of the kernel's command line
  GDB=PORT         let a debugger look into it: `target remote :PORT`
  TIMEOUT=SECONDS  end it after that long [$(TIMEOUT)]
endef
