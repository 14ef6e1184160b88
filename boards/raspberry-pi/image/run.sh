#!/usr/bin/env bash
# Boots an ELF file of this folder in QEMU: cargo's runner.
#
#     ./run.sh target/aarch64-unknown-none/release/vitlet-raspberry-pi-image [QEMU ARGUMENT...]
#
# MACHINE=raspi4b for a Pi 4 (QEMU 9 or later), QEMU=PATH for another qemu-system-aarch64, OBJCOPY=PATH for another
# objcopy. Makes kernel8.img beside the ELF file: the same bytes as an SD card needs, and what makes QEMU start the
# cores as the Pi's firmware does (at EL2, the secondary cores waiting in the spin table).
set -euo pipefail
elf=$1
shift
image=$(dirname "$elf")/kernel8.img
"${OBJCOPY:-aarch64-linux-gnu-objcopy}" -O binary "$elf" "$image"
exec "${QEMU:-qemu-system-aarch64}" -M "${MACHINE:-raspi3b}" -kernel "$image" -nographic -semihosting "$@"
