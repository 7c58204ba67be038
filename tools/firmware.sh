#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The firmware for the soft core: tools/firmware.sh FOLDER, from the root. Run by make.
# Makes twinstamp.elf, .bin (what the host loads), .map, and firmware.json: sizes, stack and forbidden symbols.
set -euo pipefail
folder=$1
mkdir -p "$folder"
tool=riscv64-unknown-elf
# rv32im: plain loads and multiplications of picorv32. -fstack-usage and -fcallgraph-info feed tools/firmware.py.
flags=(-march=rv32im -mabi=ilp32 -std=c11 -Os -g -ffreestanding -fno-builtin-printf -ffunction-sections -fdata-sections
    -fno-common -fstack-usage -fcallgraph-info=su -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror -Wvla
    -Ifirmware -Ifirmware/drivers -Ifirmware/servo -Ihdl/regs/generated --specs=picolibc.specs)
objects=()
for source in firmware/start.S firmware/*.c firmware/drivers/*.c firmware/servo/*.c; do
    object=$folder/$(basename "${source%.*}").o
    own=()
    case $source in
        */fixed.c) own=(-O2) ;;  # what the servo spends its time in
        */memory.c) own=(-fno-builtin -fno-tree-loop-distribute-patterns -fno-strict-aliasing) ;;  # not by itself
    esac
    $tool-gcc "${flags[@]}" "${own[@]}" -c "$source" -o "$object"
    objects+=("$object")
done
$tool-gcc "${flags[@]}" -nostartfiles -T firmware/link.ld -Wl,--gc-sections,-Map,"$folder/twinstamp.map" \
    "${objects[@]}" -o "$folder/twinstamp.elf"
$tool-objcopy -O binary "$folder/twinstamp.elf" "$folder/twinstamp.bin.new"
$tool-size "$folder/twinstamp.elf"
mv "$folder/twinstamp.bin.new" "$folder/twinstamp.bin"
