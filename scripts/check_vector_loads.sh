#!/usr/bin/env bash
# Refuses an ELF file for bare-metal aarch64 whose kernels load vectors byte by byte:
#
#     ./scripts/check_vector_loads.sh ELF
#
# aarch64-unknown-none is strict-align: the compiler turns a vector load whose alignment it does not know into 16 byte loads.
# Emulators run that as fast, and a board many times slower, so the disassembly decides: in every function of `vitlet::kernels`, byte
# loads are at most a fiftieth of the 16-byte loads (the few there are load single bytes), and there are many of the latter.
set -euo pipefail
elf=$1
"${OBJDUMP:-aarch64-linux-gnu-objdump}" -d --no-show-raw-insn -C "$elf" | awk -v elf="$elf" '
    /^[0-9a-f]+ <.*>:$/ {
        name = $0
        sub(/^[0-9a-f]+ </, "", name)
        sub(/>:$/, "", name)
        kernel = name ~ /vitlet::kernels::/
    }
    kernel && $2 ~ /^ld(r|ur)b$/ { bytes[name]++ }
    kernel && $2 ~ /^(ldr|ldur|ldp)$/ && $3 ~ /^q/ { vectors[name]++; total++ }
    END {
        for (name in bytes) {
            if (bytes[name] > vectors[name] / 50 && bytes[name] >= 8) {
                printf "error: %s: %s loads %d times a byte and %d times 16 bytes\n", elf, name, bytes[name], vectors[name]
                failed = 1
            }
        }
        if (total < 500) {
            printf "error: %s: %d vector loads: where are the kernels?\n", elf, total
            failed = 1
        }
        if (!failed) printf "%s: %d vector loads, none split\n", elf, total
        exit failed
    }'
