#!/usr/bin/env bash
# Boots the UEFI application in QEMU's `virt` machine, under the firmware of Debian's qemu-efi-aarch64: cargo's runner.
#
#     ./run.sh target/aarch64-unknown-uefi/release/vitlet-jetson-image.efi [QEMU ARGUMENT...]
#
# CPU=cortex-a76 for another core (cortex-a57 unless given), MODEL= and PICTURE= for other files, QEMU=PATH for another
# QEMU, FIRMWARE=PATH for another firmware. The boot volume is a folder beside the application.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
models=$here/../../../models/cifar10-vit-layerscale
application=$1
shift
volume=$(dirname "$application")/volume
rm -rf "$volume"
mkdir -p "$volume/EFI/BOOT"
cp "$application" "$volume/EFI/BOOT/BOOTAA64.EFI"
cp "${MODEL:-$models/model.gguf}" "$volume/model.gguf"
picture=${PICTURE:-$models/pictures/chelsea.jpg}
cp "$picture" "$volume/picture.${picture##*.}"
exec "${QEMU:-qemu-system-aarch64}" -M virt -cpu "${CPU:-cortex-a57}" -m 512 -nographic -net none \
    -bios "${FIRMWARE:-/usr/share/qemu-efi-aarch64/QEMU_EFI.fd}" \
    -drive "file=fat:rw:$volume,format=raw,if=none,id=boot" -device virtio-blk-device,drive=boot "$@"
