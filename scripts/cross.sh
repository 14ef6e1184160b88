#!/usr/bin/env bash
# Builds for 64-bit ARM boards under Linux, from any machine with rustup and Python:
#
#     ./scripts/cross.sh [raspberry-pi|jetson] [--to USER@HOST] [--model FILE]
#
# One static program runs on all of them: it chooses its kernels when it starts. --to copies the program, and the model
# if one is named, into the folder vitlet of that machine, which is asked for before anything is built; a program that
# runs there goes on running. The commands to run there are printed next. The library for C programs is built last,
# because it needs Python packages from the network.
set -euo pipefail
usage() { echo "usage: cross.sh [raspberry-pi|jetson] [--to USER@HOST] [--model FILE]" >&2; exit 2; }

board='' to='' model=''
while [ "$#" -gt 0 ]; do
    case "$1" in
        raspberry-pi | jetson) board=$1 ;;
        --to) to=${2:?--to USER@HOST} && shift ;;
        --model) model=$(realpath "${2:?--model FILE}") && shift ;;
        *) usage ;;
    esac
    shift
done
[ -z "$model" ] || [ -f "$model" ] || { echo "error: $model: No such file or directory" >&2; exit 1; }
cd "$(dirname "$0")/.."
# shellcheck source=scripts/board_builds.sh
. scripts/board_builds.sh
# shellcheck source=scripts/board_copy.sh
. scripts/board_copy.sh
[ -z "$to" ] || ask_board "$to"

out=target/boards
mkdir -p "$out"
echo "the program ..."
cp "$(static_program aarch64-unknown-linux-musl)" "$out/vitlet"
./scripts/check_elf.sh "$out/vitlet"

name=${model:+$(basename "$model")}
files=("$out/vitlet" ${model:+"$model"})
host=${to:-USER@HOST}
if [ -n "$to" ]; then
    copy_to_board "$to" "${files[@]}"
else
    echo
    echo "copy it:  ssh $host mkdir -p vitlet && scp ${files[*]} $host:vitlet/"
fi
echo
case "$board" in
    raspberry-pi) echo "first:    ssh $host 'echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor'    (docs/raspberry-pi.md)" ;;
    jetson) echo "first:    ssh $host 'sudo nvpmodel -m 0; sudo jetson_clocks'    (docs/jetson.md)" ;;
esac
if [ -n "$name" ]; then
    echo "measure:  ssh $host vitlet/vitlet bench -m vitlet/$name"
fi
echo "classify: ssh $host vitlet/vitlet classify ${name:+-m vitlet/$name }--digest - < photo.jpg    (the digest is the same on this machine)"

echo
echo "the library ..."
(
    link_for_old_glibc aarch64-unknown-linux-gnu
    CARGO_PROFILE_LIBRARY_STRIP=true ./scripts/install_capi.sh "$out" aarch64-unknown-linux-gnu
)
./scripts/check_elf.sh "$out"/lib/libvitlet.so
ls -l "$out/vitlet" "$out"/lib/libvitlet.a "$(realpath "$out/lib/libvitlet.so")" | awk '{ printf "%8.2f MB  %s\n", $5 / 1e6, $NF }'
