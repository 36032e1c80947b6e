# SPDX-License-Identifier: MIT
# Makefile - the one build description of Yoke. There is no configure step.
#
# Sources and tests are found by wildcard: a new file registers nowhere. Everything that is made
# lies under $(BUILD), and another BUILD is another variant that disturbs nothing, for instance
#     make test BUILD=build/asan SAN=address,undefined DEBUG=1
#     make CC=clang BUILD=build/clang
# V=1 shows the whole commands. `make help` lists the targets.

VERSION := $(shell sed -n 's/^.define YOKE_VERSION_[A-Z]* //p' include/yoke/base.h | paste -sd.)
MAJOR   := $(firstword $(subst ., ,$(VERSION)))

# ---- what can be set on the command line

# BUILD: where all output goes.
# SAN: sanitizers, as in -fsanitize=. DEBUG=1: YK_ASSERT and other checks of our own code are on.
# ONLY: test: tests with this in their path; bench: this prefix; check: these steps.
# SKIP: check: not these steps. VIA: a program that runs test programs (an emulator).
# SLOW: the time limits of tests, times this. RUNS: inputs of make fuzz.
# PYTHON: the interpreter that the extension is for. VENV: where make python installs.
# DIST: where make wheel and make sdist put what they make.
# DEPS=no: nothing is installed by apt-get.
BUILD   ?= build
SAN     ?=
DEBUG   ?=
ONLY    ?=
SKIP    ?=
VIA     ?=
RUNS    ?= 1000000
PYTHON  ?= /usr/bin/python3
VENV    ?= .venv
DIST    ?= dist
DEPS    ?= yes
SLOW    ?= $(if $(SAN)$(VIA),5,1)
CFLAGS  ?= -O2 -g
AR      ?= ar
ifeq ($(origin CC),default)
CC      := gcc
endif

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man

# ---- flags

WARN = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion \
        -Wvla -Werror $(if $(findstring clang,$(CC)),-Wthread-safety)
YK_CFLAGS = -std=c11 -D_GNU_SOURCE $(if $(DEBUG),-DYK_DEBUG) -fPIC -fvisibility=hidden $(WARN) \
            $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
            -Iinclude $(CFLAGS)
YK_LDFLAGS = $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,now $(LDFLAGS)

# Asked for when a recipe runs, not before: `make` itself may have to install pkg-config first.
CURL_LIBS = -Wl,--as-needed $(shell pkg-config --libs libcurl)

# ---- what there is

HDR     := $(wildcard include/yoke/*.h)
SRC     := $(wildcard src/*/*.c src/platform/linux/*.c)
CLI     := $(wildcard cli/*.c)
EXAMPLE := $(wildcard examples/*.c)
BENCH   := $(wildcard bench/*.c)
PEERS   := $(patsubst %,$(BUILD)/bench/peers/%.so,tbb gomp omp glib uv)
PY_SRC  := $(wildcard python/src/*.c)
PY_FILE := $(wildcard python/yoke/*.py python/yoke/*.pyi python/yoke/py.typed)
MAN     := $(wildcard docs/man/*.[1-8])
TEST_C  := $(sort $(wildcard tests/unit/*/test_*.c tests/fault/test_*.c tests/stress/test_*.c \
             tests/soak/test_*.c))
HELPER  := $(wildcard tests/programs/*.c)
TEST_SH := $(sort $(wildcard tests/cli/test_*.sh $(if $(SAN),,tests/install/test_*.sh)))
TEST_PY := $(sort $(if $(SAN),,$(wildcard tests/python/test_*.py)))
TESTS   ?= $(TEST_C) $(TEST_SH) $(TEST_PY)
CHOSEN  := $(if $(ONLY),$(foreach t,$(TESTS),$(if $(findstring $(ONLY),$(t)),$(t))),$(TESTS))

obj      = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
helper   = $(patsubst %.c,$(BUILD)/%,$(filter-out tests/programs/lib%,$(1))) \
           $(patsubst %.c,$(BUILD)/%.so,$(filter tests/programs/lib%,$(1)))
program  = $(patsubst %.c,$(BUILD)/%,$(filter %.c,$(1)))

LIB_A   := $(BUILD)/libyoke.a
INJECT_A := $(BUILD)/inject.a
INJECTED := $(call program,$(filter tests/fault/test_inject%,$(TEST_C)))
LIB_SO  := $(BUILD)/libyoke.so.$(VERSION)
YOKE    := $(BUILD)/yoke

# Sanitizers want to be in the program and not in a library: there, the archive is enough.
LIBS    := $(LIB_A) $(if $(SAN),,$(LIB_SO))

# ---- how it is done

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
Q   := $(if $(V),,@)
say  = @printf '  %-4s %s\n' $(1) $(patsubst $(BUILD)/%,%,$(2))

.DEFAULT_GOAL := all
.PHONY: all help deps lib demo tour examples test soak check san asan tsan arm bench kill-proof models \
        everything fmt install uninstall clean FORCE python wheel sdist \
        python-extension python-asan python-faults test-python-3.13 test-python-3.14
.SECONDARY:
.DELETE_ON_ERROR:

all: lib $(YOKE) ## The library and the command line (the default).

help: ## This list.
	@awk -F ':.*## ' '/^[a-z_0-9.-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

lib: $(LIBS) ## The library, static and shared.

examples: $(call program,$(EXAMPLE)) ## The example programs.

demo: $(YOKE) | build/deps/demo ## Show Yoke at work.
	@$(YOKE) demo

tour: $(YOKE) | build/deps/demo ## Threads and processes, each claim measured on this machine.
	@$(YOKE) tour

# Shell tests may use all that is built; a choice of C tests builds no more than it needs.
test: $(call program,$(CHOSEN)) $(if $(filter %.sh,$(CHOSEN)),all examples $(INJECT_A))
test: $(if $(findstring test_exec,$(CHOSEN)),$(if $(VIA),,$(call helper,$(HELPER))))
test: $(if $(filter %.py,$(CHOSEN)),python)
test: | build/deps/test ## All tests, or those with ONLY=text in their path.
	@CC='$(CC)' VIA='$(VIA)' SLOW='$(SLOW)' \
	    PYTHON='$(PY_VIA) $(abspath $(VENV))/bin/python' tools/run-tests.sh $(BUILD) $(CHOSEN)

soak: $(BUILD)/tests/soak/test_soak ## Everything at once for T=60 seconds; tests/soak/test_soak.c.
	$< $(or $(T),60)

san: ## The tests under sanitizers: asan, then tsan.
	+@$(MAKE) asan; asan=$$?; $(MAKE) tsan && exit $$asan

asan: | build/deps/check ## All tests under ASan and UBSan, our own checks on.
	+@$(MAKE) test BUILD=build/asan CC=clang SAN=address,undefined DEBUG=1

tsan: | build/deps/check ## The tests marked `tsan: yes` under TSan.
	+@$(MAKE) test BUILD=build/tsan SAN=thread \
	    TESTS='$(shell grep -ls '^[ /*]*tsan: yes' $(TEST_C))'

# Fewer slots than in the library, so that tables fill up often.
FUZZ_C := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ    = $(MAKE) fuzz_programs BUILD=build/fuzz CC=clang DEBUG=1 \
          SAN=fuzzer-no-link,address,undefined \
          CFLAGS='-O2 -g -fno-sanitize-coverage=trace-cmp -DYK_TABLE_SLOTS=16U'
.PHONY: fuzz fuzz_planted fuzz_programs
fuzz_programs: $(call program,$(FUZZ_C))

fuzz: | build/deps/check ## Hostile writes: RUNS inputs to the fuzzing harnesses (docs/fuzzing.md).
	+@$(FUZZ)
	@tests/fuzz/run.sh build/fuzz fuzz $(RUNS) $(ONLY)

fuzz_planted: | build/deps/check ## The harnesses find the bugs of tests/fuzz/planted.
	+@$(FUZZ)
	@tests/fuzz/run.sh build/fuzz planted $(ONLY)

# The emulator keeps a note for each page of a mapping, used or not, so the heap has to be smaller;
# and it cannot make siblings by clone, so there are no process pools.
arm: | build/deps/check ## The unit tests on an emulated ARM machine (aarch64).
	+@CHECK_KINDS=st $(MAKE) test BUILD=build/arm LDFLAGS=-static \
	    CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
	    VIA='prlimit --as=17179869184 qemu-aarch64' TESTS='$(wildcard tests/unit/*/test_*.c)'

check: | build/deps/check ## All that must hold: style, rooms, two compilers, tests, sanitizers, fuzzing, ARM.
	+@MAKE='$(MAKE)' ONLY='$(ONLY)' SKIP='$(SKIP)' tools/check.sh

# In C, then in Python; a choice of figures of one of them builds and runs no more than that.
BENCH_PREFIX := $(filter-out -% 0% 1% 2% 3% 4% 5% 6% 7% 8% 9%,$(ONLY))
BENCH_C      := $(if $(BENCH_PREFIX),$(filter-out python%,$(BENCH_PREFIX)),all)
BENCH_PYTHON := $(if $(BENCH_PREFIX),$(filter python%,$(BENCH_PREFIX)),all)
bench: $(if $(BENCH_C),$(BUILD)/bench/yoke-bench $(PEERS)) $(if $(BENCH_PYTHON),python)
bench: ## The benchmarks, or those that begin with ONLY=prefix.
	@bad=0; \
	$(if $(BENCH_C),$(BUILD)/bench/yoke-bench $(ONLY) || bad=$$?;) \
	$(if $(BENCH_PYTHON),$(VENV)/bin/python bench/python/run.py $(ONLY) || bad=$$?;) \
	exit $$bad

models: | build/deps/check ## The models of fork-join: sound in all states, and each weakened one found out.
	@tests/models/run.sh $(BUILD)/models $(ONLY)

kill-proof: | build/deps/check ## Workers killed at each instruction, in four builds (an hour or more).
	+@tools/kill-proof.sh

fmt: | build/deps/check ## Lay out all C files by .clang-format.
	@clang-format -i $$(git ls-files '*.c' '*.h')

deps: build/deps/check ## Install what all targets need (Debian; otherwise names it).

clean: ## Remove all that was made.
	rm -rf $(BUILD) .venv dist

# All that compiles, for `make check`.
everything: all examples $(BUILD)/bench/yoke-bench $(call program,$(TEST_C)) \
            $(call helper,$(HELPER))

# Each group of packages holds the one before it; one after the other, since apt runs alone.
ifeq ($(DEPS),yes)
build/deps/%: tools/deps.sh
	@tools/deps.sh $*
	@mkdir -p $(@D) && touch $@
build/deps/demo:   | build/deps/build
build/deps/python: | build/deps/demo
build/deps/test:   | build/deps/python
build/deps/check:  | build/deps/test
# The figures against what cannot be installed are skipped.
build/deps/bench:  tools/deps.sh | build/deps/demo
	@if tools/deps.sh bench; then touch $@; fi
else
build/deps/%: ;
endif

# A file that is new only when its text is: objects depend on the compiler and its flags, the
# library and the command on the list of their sources.
define text_file
$(1): FORCE | build/deps/build
	@mkdir -p $$(@D) && echo '$(2)' | cmp -s - $$@ || echo '$(2)' > $$@
endef
$(eval $(call text_file,$(BUILD)/flags,$(CC) $(YK_CFLAGS) $(YK_LDFLAGS)))
$(eval $(call text_file,$(BUILD)/sources,$(SRC) $(CLI) $(BENCH)))

$(BUILD)/obj/src/%.o:   YK_CFLAGS += -Isrc
$(BUILD)/obj/tests/%.o: YK_CFLAGS += -Isrc -Itests -Wno-sign-conversion # CPU_SET has its own
$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_CFLAGS) -MMD -MP -c -o $@ $<

# The supervisor of programs: no libc, not even of a sanitizer. It lies in the library as bytes.
SUP      := $(BUILD)/yoke-supervisor
SUP_DIR  := src/platform/linux/supervisor
SUP_OBJ  := $(foreach d,src inject,$(BUILD)/obj/$(d)/platform/linux/program_image.o)
$(SUP): $(wildcard $(SUP_DIR)/*.[ch]) $(BUILD)/flags
	$(call say,LD,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -Isrc -ffreestanding -fno-stack-protector -fno-pie \
	    -fno-asynchronous-unwind-tables -static -nostdlib -s -Wl,--build-id=none \
	    -Wl,-z,noseparate-code -o $@ $(SUP_DIR)/main.c
$(SUP_OBJ): YK_CFLAGS += -DYK_SUPERVISOR='"$(SUP)"'
$(SUP_OBJ): $(SUP)

# ---- Python: the extension holds the library and shows nothing of it, so that it never mixes with
# another copy; workers find functions by its build id.

PY_SO    := $(BUILD)/python/_yoke.so
PY_WHEEL := $(BUILD)/python/wheel
PY_NAME   = $(shell $(PYTHON) -c 'import sys; print(sys.version)')
PY_INC    = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
PY_SETUP  = env -u PYTHONDONTWRITEBYTECODE YOKE_BUILD='$(abspath $(BUILD))/python' \
            YOKE_EXTENSION='$(abspath $(PY_SO))' $(PYTHON) -W ignore setup.py -q

python: $(VENV)/yoke-is-here ## import yoke, for Debian's Python, in VENV (.venv).

python-extension: $(PY_SO) # what setup.py asks for

# The interpreter is not ours, so the sanitizer comes in before it; its own leaks do not count.
SAN_SO = $(if $(findstring clang,$(CC)),libclang_rt.asan-$(shell uname -m).so,libasan.so)
PY_VIA = $(if $(SAN),env LD_PRELOAD=$(shell $(CC) -print-file-name=$(SAN_SO)) PYTHONMALLOC=malloc)

python-asan: | build/deps/check ## The tests of Python with the extension under ASan and UBSan.
	+@ASAN_MORE=detect_leaks=0 $(MAKE) test BUILD=build/asan VENV=build/asan/venv \
	    CC=clang SAN=address,undefined DEBUG=1 \
	    TESTS='$(shell grep -Ls '^# asan: no' tests/python/test_*.py)'

# Other Pythons, from other releases of Debian, in folders under build/.
test-python-3.13: | build/deps/check ## The tests of Python with Debian 13's.
	@ONLY='$(ONLY)' SLOW='$(SLOW)' tools/python-chroot.sh trixie 3.13

test-python-3.14: | build/deps/check ## The tests of Python with that of Debian's next release.
	@ONLY='$(ONLY)' SLOW='$(SLOW)' tools/python-chroot.sh forky 3.14

python-faults: ## docs/python-faults.md, from runs with each Python that is there.
	-+@$(MAKE) test TESTS='$(PY_FAULTS)'
	-@[ ! -e build/trixie/ready ] || tools/python-chroot.sh trixie 3.13 $(PY_FAULTS)
	-@[ ! -e build/forky/ready ] || tools/python-chroot.sh forky 3.14 $(PY_FAULTS)
	@tools/python-faults.py
PY_FAULTS = $(addprefix tests/python/,test_faults.py test_faults_pool.py test_hosts.py)

wheel: $(PY_WHEEL) ## dist/yoke-*.whl.
	@mkdir -p $(DIST) && cp -v $(BUILD)/python/dist/*.whl $(DIST)/

sdist: | build/deps/python ## dist/yoke-*.tar.gz: what a wheel is made of, elsewhere.
	@$(PY_SETUP) sdist -d $(DIST) && ls -1 $(DIST)/*.tar.gz

$(BUILD)/python/how: FORCE | build/deps/python
	@mkdir -p $(@D) && echo '$(PY_NAME) $(PY_SRC)' | cmp -s - $@ || echo '$(PY_NAME) $(PY_SRC)' > $@

$(BUILD)/obj/python/%.o: YK_CFLAGS += -isystem $(PY_INC) $(if $(DEBUG),,-DNDEBUG) \
                                      -Wno-pedantic -Wno-sign-conversion -Wno-cast-function-type
$(call obj,$(PY_SRC)): $(BUILD)/python/how

$(PY_SO): $(call obj,$(PY_SRC) $(SRC)) $(BUILD)/sources $(BUILD)/python/how python/yoke.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,--version-script=python/yoke.map -Wl,--build-id $(YK_LDFLAGS) -o $@ \
	    $(filter %.o,$^)

$(PY_WHEEL): $(PY_SO) $(PY_FILE) setup.py pyproject.toml README.md
	$(call say,PY,$(BUILD)/python/dist)
	@rm -rf $(BUILD)/python/dist $(BUILD)/python/lib.*
	$(Q)$(PY_SETUP) bdist_wheel -d $(abspath $(BUILD))/python/dist
	@touch $@

$(VENV)/bin/pip: | build/deps/python
	$(Q)$(PYTHON) -m venv --system-site-packages $(VENV)

$(VENV)/yoke-is-here: $(PY_WHEEL) | $(VENV)/bin/pip
	$(call say,PIP,$@)
	$(Q)$(VENV)/bin/python -m pip -q --disable-pip-version-check install --no-index --no-deps \
	    --force-reinstall $(BUILD)/python/dist/*.whl
	@touch $@

$(LIB_A): $(call obj,$(SRC)) $(BUILD)/sources
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(LIB_SO): $(call obj,$(SRC)) $(BUILD)/sources yoke.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libyoke.so.$(MAJOR) -Wl,--version-script=yoke.map -Wl,-z,defs \
	    $(YK_LDFLAGS) -o $@ $(filter %.o,$^)
	$(Q)ln -sf $(@F) $(BUILD)/libyoke.so.$(MAJOR) && ln -sf $(@F) $(BUILD)/libyoke.so

$(YOKE): $(call obj,$(CLI)) $(LIB_A) $(BUILD)/sources
	$(call say,LD,$@)
	$(Q)$(CC) $(YK_LDFLAGS) -o $@ $(filter %.o,$^) $(LIB_A) $(CURL_LIBS)

$(BUILD)/bench/yoke-bench: $(call obj,$(BENCH)) $(LIB_A) $(BUILD)/sources
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_LDFLAGS) -o $@ $(filter %.o,$^) $(LIB_A) -lm

# What the benchmarks compare with: each a library of its own, which they load. Where a peer is not
# installed there is none, and its figures are skipped.
PEER_FLAGS = -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror $(CFLAGS) -O3
$(BUILD)/obj/bench/threads%.o: YK_CFLAGS += -O3 # both sides of a figure alike
PEER_tbb   = pkg-config --exists tbb
PEER_glib  = pkg-config --exists glib-2.0
PEER_uv    = pkg-config --exists libuv
PEER_gomp  = echo | gcc -fopenmp -include omp.h -xc -E - >/dev/null 2>&1
PEER_omp   = echo | clang -fopenmp -include omp.h -xc -E - >/dev/null 2>&1
BUILD_tbb  = g++ -std=c++17 $(PEER_FLAGS) $(PEER_SRC) $$(pkg-config --cflags --libs tbb)
BUILD_glib = gcc -std=c11 $(PEER_FLAGS) $(PEER_SRC) $$(pkg-config --cflags --libs glib-2.0)
BUILD_uv   = gcc -std=c11 -D_GNU_SOURCE $(PEER_FLAGS) $(PEER_SRC) $$(pkg-config --cflags --libs libuv)
BUILD_gomp = gcc -std=c11 $(PEER_FLAGS) -fopenmp -DPEER_QUIET_NS=20000000 $(PEER_SRC)
BUILD_omp  = clang -std=c11 $(PEER_FLAGS) -fopenmp -DPEER_QUIET_NS=250000000 $(PEER_SRC)
$(PEERS): PEER = $(basename $(@F))
$(PEERS): PEER_SRC = $(filter %.c %.cpp,$^)
$(BUILD)/bench/peers/tbb.so: bench/peers/tbb.cpp
$(BUILD)/bench/peers/glib.so: bench/peers/glib.c
$(BUILD)/bench/peers/uv.so: bench/peers/uv.c
$(BUILD)/bench/peers/gomp.so $(BUILD)/bench/peers/omp.so: bench/peers/openmp.c
$(PEERS): bench/peers/peer.h bench/work_tiny.h $(BUILD)/flags | build/deps/bench
	$(Q)mkdir -p $(@D)
	$(Q)if $(PEER_$(PEER)); then \
	    printf '  %-4s %s\n' LD $(patsubst $(BUILD)/%,%,$@); \
	    $(BUILD_$(PEER)) -o $@; else rm -f $@; fi

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(LIB_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_LDFLAGS) -o $@ $^ $(CURL_LIBS) -lz -lpng

# The library once more, with calls that fail when told to: tests/fault/inject.h. The tests named
# test_inject* are linked with it instead.
$(BUILD)/obj/inject/platform/%.o: INJECT_AT = -DINJECT_PLATFORM
$(BUILD)/obj/inject/%.o: src/%.c tests/fault/inject.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_CFLAGS) -Isrc $(INJECT_AT) -include tests/fault/inject.h -w -MMD -MP -c -o $@ $<
$(INJECT_A): $(patsubst src/%.c,$(BUILD)/obj/inject/%.o,$(SRC)) $(call obj,tests/fault/inject.c)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) qcs $@ $^
$(INJECTED): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(INJECT_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_LDFLAGS) -o $@ $^ $(CURL_LIBS)

# Some functions of the library are stood in for: those that a __wrap_x is written for.
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/obj/tests/fuzz/seam.o $(LIB_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_LDFLAGS) -fsanitize=fuzzer \
	    $$(sed -n 's/^.*__wrap_\([a-z_]*\)(.*/-Wl,--wrap=\1/p' tests/fuzz/seam.c tests/fuzz/$*.c | \
	    sort -u) -o $@ $^

# What tests run besides: programs, and libraries (lib*.c) that they load.
$(BUILD)/tests/programs/%.so: $(BUILD)/obj/tests/programs/%.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared $(YK_LDFLAGS) -o $@ $^
$(BUILD)/tests/programs/fixed: YK_LDFLAGS += -no-pie
# These two load libraries that call Yoke.
$(BUILD)/tests/programs/image $(BUILD)/tests/unit/pool/test_exec: YK_LDFLAGS += -rdynamic

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(YK_LDFLAGS) -o $@ $^

-include $(patsubst %.o,%.d,$(call obj,$(SRC) $(PY_SRC) $(CLI) $(EXAMPLE) $(BENCH) $(TEST_C) $(FUZZ_C) tests/fuzz/seam.c $(HELPER)))

# ---- installing; DESTDIR is for packagers

man_dir = $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(1)))

# Each call has a page by its name, which says where it is described: PAGE.NAME for each.
MAN_LINKS = $(foreach m,$(filter %.3,$(MAN)),$(addprefix $(notdir $(m)).,$(filter-out \
    $(basename $(notdir $(m))),$(shell sed -n '/^.Sh NAME/,/^.Nd/s/^.Nm \([a-z_]*\).*/\1/p' $(m)))))
link_page = $(basename $(1))
link_file = $(DESTDIR)$(MANDIR)/man3/$(subst .,,$(suffix $(1))).3

install: all ## Install under PREFIX (/usr/local).
	@install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR)/yoke
	install -m 755 $(YOKE) $(DESTDIR)$(BINDIR)/
	install -m 644 $(HDR) $(DESTDIR)$(INCDIR)/yoke/
	install -m 644 $(LIB_A) $(DESTDIR)$(LIBDIR)/
	install -m 755 $(LIB_SO) $(DESTDIR)$(LIBDIR)/
	@ln -sf libyoke.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libyoke.so.$(MAJOR)
	@ln -sf libyoke.so.$(MAJOR) $(DESTDIR)$(LIBDIR)/libyoke.so
	@sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCDIR@|$(INCDIR)|' \
	     -e 's|@VERSION@|$(VERSION)|' yoke.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/yoke.pc
	$(foreach m,$(MAN),@install -D -m 644 $(m) $(call man_dir,$(m))/$(notdir $(m))$(newline))
	$(foreach l,$(MAN_LINKS),@echo '.so man3/$(call link_page,$(l))' > $(call link_file,$(l))$(newline))
	@[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ldconfig

uninstall: ## Remove what install put there.
	rm -f $(DESTDIR)$(BINDIR)/yoke $(DESTDIR)$(LIBDIR)/libyoke.a $(DESTDIR)$(LIBDIR)/libyoke.so*
	rm -f $(DESTDIR)$(LIBDIR)/pkgconfig/yoke.pc
	rm -rf $(DESTDIR)$(INCDIR)/yoke
	$(foreach m,$(MAN),@rm -f $(call man_dir,$(m))/$(notdir $(m))$(newline))
	@rm -f $(foreach l,$(MAN_LINKS),$(call link_file,$(l)))

define newline


endef
