#!/usr/bin/env bash
# Refuses an ELF file for bare-metal aarch64 whose kernels load vectors byte by byte:
#
#     ./scripts/check_vector_loads.sh ELF
#
# aarch64-unknown-none is strict-align: the compiler turns a vector load whose alignment it does not know into 16 byte
# loads. Emulators run that as fast, and a board many times slower, so the disassembly decides: in no function of
# `vitlet::kernels` do eight byte loads stand within twenty instructions, and there are hundreds of 16-byte loads.
set -euo pipefail
elf=$1
"${OBJDUMP:-aarch64-linux-gnu-objdump}" -d --no-show-raw-insn -C "$elf" | awk -v elf="$elf" '
    /^[0-9a-f]+ <.*>:$/ {
        name = $0
        sub(/^[0-9a-f]+ </, "", name)
        sub(/>:$/, "", name)
        kernel = name ~ /vitlet::kernels::/
        bytes = 0
    }
    kernel && $2 ~ /^ldu?rb$/ {
        bytes++
        if (bytes >= 8 && NR - line[(bytes - 7) % 8] < 20) split_in[name] = $1
        line[bytes % 8] = NR
    }
    kernel && $2 ~ /^(ldr|ldur|ldp)$/ && $3 ~ /^q/ { vectors++ }
    END {
        for (name in split_in) {
            printf "error: %s: %s: a vector is loaded byte by byte at %s\n", elf, name, split_in[name]
            failed = 1
        }
        if (vectors < 500) {
            printf "error: %s: %d vector loads: where are the kernels?\n", elf, vectors
            failed = 1
        }
        if (!failed) printf "%s: %d vector loads, none split\n", elf, vectors
        exit failed
    }'
