#!/usr/bin/env bash
# Bytes of the engine's code in a program for aarch64 that links libvitlet.a, by instruction set.
#
#     ./scripts/capi_size.sh PROGRAM [LIMIT]
#
# Counts the symbols of the engine and of the crates that it depends on, in the linked program (--gc-sections), without
# the standard library, libc and the model. A level of NEON uses the code of the level below where it is the same;
# `scalar` is inlined into its callers where it is small. More bytes than LIMIT are an error.
set -euo pipefail
program=$1 limit=${2:-0}

aarch64-linux-gnu-nm --defined-only --print-size --radix=d --demangle "$program" | awk -v limit="$limit" '
    # Address, size, type, name.
    NF < 4 || $3 !~ /^[tTwW]$/ { next }
    {
        size = $2 + 0
        $1 = $2 = $3 = ""
        name = $0
    }
    name !~ /vitlet|libm::|<?half::/ || name ~ /vitlet_pool|ThreadPool|threads::/ { next }
    {
        all += size
        if (name ~ /isa::neon::run_fp16/) set["neon-fp16"] += size
        else if (name ~ /isa::neon::run_dot/) set["neon-dotprod"] += size
        else if (name ~ /isa::neon::run_i8mm/) set["neon-i8mm"] += size
        else if (name ~ /isa::neon::run/) set["neon"] += size
        else if (name ~ /Kernels>?::run/) set["scalar"] += size
        else common += size
    }
    END {
        if (!all) { print "error: no symbols of the engine: is the program stripped?"; exit 1 }
        printf "engine, all kernels: %d bytes of code\n", all
        printf "  without kernels: %d\n", common
        for (name in set) {
            printf "  %s: %d\n", name, set[name]
        }
        if (limit && all > limit) { printf "error: more than %d bytes\n", limit; exit 1 }
    }'
