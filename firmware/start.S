# SPDX-License-Identifier: Apache-2.0
# Reset: stack, zeroed data, main. Everything is loaded into one memory, so nothing has to be copied.
    .section .text.start, "ax"
    .globl _start
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, _stack_top
    la t0, _bss_start
    la t1, _bss_end
    # Both are on 8 bytes (link.ld).
1:  bgeu t0, t1, 2f
    sw zero, 0(t0)
    sw zero, 4(t0)
    addi t0, t0, 8
    j 1b
2:  call main
    # main does not return; the core stops here, which the card sees.
    ebreak
