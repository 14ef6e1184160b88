#!/usr/bin/env bash
# Checks that programs and libraries load on every board:
#
#     ./scripts/check_elf.sh FILE...
#
# Segments aligned to the largest page (16 KiB on a Raspberry Pi 5); no symbol of a glibc above 2.27, JetPack 4's; and a
# program needs no library at all. Needs readelf (package binutils), which reads files of every architecture.
set -euo pipefail

for file in "$@"; do
    wrong() { echo "error: $file: $*" >&2; exit 1; }
    segments=$(readelf --wide --program-headers "$file")
    # The largest page of a system that runs the file: 16 KiB on a Raspberry Pi 5, 4 KiB on every x86-64.
    page=0x4000
    ! readelf --file-header "$file" | grep -q 'Machine:.*X86-64' || page=0x1000
    alignments=$(awk '$1 == "LOAD" { print $NF }' <<<"$segments")
    [ -n "$alignments" ] || wrong "no segments"
    for alignment in $alignments; do
        ((alignment >= page)) || wrong "a segment is aligned to $alignment only"
    done
    needed=$(readelf --wide --dynamic "$file" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
    glibc=$(readelf --wide --version-info "$file" 2>/dev/null | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1 || true)
    if [[ $file != *.so* ]]; then
        [ -z "$needed" ] || wrong "needs $needed"
        grep -q INTERP <<<"$segments" && wrong "is not static"
    else
        [ -n "$glibc" ] || wrong "names no version of glibc"
        [ "$(printf '%s\n' "$glibc" GLIBC_2.27 | sort -V | tail -n 1)" = GLIBC_2.27 ] || wrong "needs $glibc"
    fi
    echo "$file: aligned to $(sort -u <<<"$alignments" | tr '\n' ' ')needs ${needed:-nothing }${glibc:+up to $glibc}"
done
