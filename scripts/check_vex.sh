#!/usr/bin/env bash
# Refuses an x86-64 ELF file whose AVX2 or AVX-512 kernels hold an instruction in SSE's old encoding:
#
#     ./scripts/check_vex.sh ELF
#
# Between instructions on registers wider than its own, one `sqrtss` without the VEX prefix costs some 300 cycles: once
# a row in LayerNorm it took 6 % of an inference of DeiT-III-Small. Compilers write VEX where they know the instruction
# set; inline assembly of a library does not. `{vex}` is how objdump marks VEX where EVEX would do, too.
set -euo pipefail
elf=$1
objdump -d --no-show-raw-insn "$elf" | awk -v elf="$elf" '
    /^[0-9a-f]+ <.*>:$/ {
        name = $2
        kernel = name ~ /vitlet.*kernels.*isa.*(avx2|avx512).*run/
        if (kernel) kernels++
    }
    kernel && /%[xyz]mm/ && $2 !~ /^([{]vex[}]$|v)/ {
        if (!failed) printf "error: %s: %s: %s\n", elf, name, $0
        failed = 1
    }
    END {
        if (kernels < 20) {
            printf "error: %s: %d kernels: where are the others?\n", elf, kernels
            failed = 1
        }
        if (!failed) printf "%s: %d AVX2 and AVX-512 kernels, all in VEX or EVEX encoding\n", elf, kernels
        exit failed
    }'
