#!/usr/bin/env bash
# The images without an operating system, in QEMU: Raspberry Pi 3 and 4, UEFI, and the C firmware.
#
#     ./scripts/test_bare.sh
#
# Requires that every one of them prints the digest of the logits that the program prints here. Installs what is missing
# where it may, as scripts/test.sh does; with CI=true nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh

packages=(gcc gcc-aarch64-linux-gnu qemu-system-arm qemu-efi-aarch64 device-tree-compiler make)
targets=(aarch64-unknown-none aarch64-unknown-uefi)

say "Bare metal: tools"
need_targets "${targets[@]}"
need_packages "${packages[@]}"
if [ "${#skipped[@]}" -gt 0 ]; then
    echo "skipped: all of bare metal"
    exit 0
fi

work=$PWD/target/bare
rm -rf "$work"
mkdir -p "$work"
pi=$PWD/boards/raspberry-pi/image
# The images share the workspace's target folder.
export CARGO_TARGET_DIR=$PWD/target
pi_elf=$CARGO_TARGET_DIR/aarch64-unknown-none/release/vitlet-raspberry-pi-image
jetson=$PWD/boards/jetson/image
jetson_efi=$CARGO_TARGET_DIR/aarch64-unknown-uefi/release/vitlet-jetson-image.efi
models=$PWD/models/cifar10-vit-layerscale

say "Bare metal: building"
for image in "$pi" "$jetson"; do
    (cd "$image" && cargo fmt --check && cargo clippy --release --locked --quiet -- -D warnings && cargo build --release --locked --quiet)
    echo "${image#"$PWD"/}"
done
cargo build --release --quiet
host=target/release/vitlet

# The digest that the program prints for the arguments.
expect() { "$host" classify --digest "$@" 2>/dev/null | grep -oE '[0-9a-f]{16}$'; }
# Runs a machine that ends by itself; its text goes to FILE.
boot() {
    local file=$1 status=0
    shift
    timeout 300 "$@" </dev/null >"$file.raw" 2>&1 || status=$?
    tr -d '\r' <"$file.raw" | sed 's/\x1b\[[0-9;]*[A-Za-z=]//g' >"$file"
    return "$status"
}
# FILE holds this digest COUNT times, and no other.
digests_are() {
    local file=$1 digest=$2 count=$3
    [ "$(grep -oE 'digest [0-9a-f]{16}$' "$file")" = "$(yes "digest $digest" | head -n "$count")" ] || {
        cat "$file"
        die "$file: not $count times the digest $digest"
    }
}

say "Bare metal: vector loads"
./scripts/check_vector_loads.sh "$pi_elf"
# The check can fail: a load whose alignment the compiler does not know.
cat >"$work/split.rs" <<'END'
#![no_std]
pub mod kernels {
    #[inline(never)]
    pub unsafe fn load(p: *const u8) -> core::arch::aarch64::uint8x16_t { unsafe { core::arch::aarch64::vld1q_u8(p) } }
}
END
rustc --edition 2024 --crate-name vitlet --crate-type lib --emit obj -O --target aarch64-unknown-none -o "$work/split.o" "$work/split.rs"
! ./scripts/check_vector_loads.sh "$work/split.o" >"$work/split.txt" || die "check_vector_loads.sh did not see a split load"
grep -q 'vitlet::kernels::load: a vector is loaded byte by byte' "$work/split.txt" || die "$(cat "$work/split.txt")"

say "Bare metal: Raspberry Pi"
raspi4b=$(./scripts/fetch_qemu_raspi4b.sh) || skip "Raspberry Pi 4: no QEMU with the machine raspi4b"
chelsea=$(expect "$models/pictures/chelsea.jpg")
# MACHINE=QEMU; another version's modules are none of its business.
export QEMU_MODULE_DIR=$work
for machine in raspi3b=qemu-system-aarch64 ${raspi4b:+raspi4b=$raspi4b}; do
    name=${machine%%=*}
    MACHINE=$name QEMU=${machine#*=} boot "$work/$name" "$pi/run.sh" "$pi_elf" || { cat "$work/$name"; die "$name: exit status"; }
    digests_are "$work/$name" "$chelsea" 2
    grep -q '^  1 core ' "$work/$name" && grep -q '^  4 cores' "$work/$name" || die "$name: not on 1 and on 4 cores: $(cat "$work/$name")"
    echo "$name: $(grep -c digest "$work/$name") digests equal, on 1 and 4 cores"
done
image=$(dirname "$pi_elf")/kernel8.img

say "Bare metal: files that the firmware loads"
"$host" convert tests/fixtures/checkpoints/timm_deit3 -o "$work/model.gguf" >/dev/null
cp "$models/pictures/horse.jpg" "$work/"
tar -C "$work" -cf "$work/files.tar" model.gguf horse.jpg
# What the Pi's firmware passes, as far as the image looks at it; QEMU adds the initramfs's place.
dtc -q -O dtb -o "$work/pi.dtb" - <<'END'
/dts-v1/;
/ {
    #address-cells = <1>;
    #size-cells = <1>;
    memory@0 { device_type = "memory"; reg = <0 0x3b400000>; };
    chosen { };
};
END
boot "$work/initramfs" "$pi/run.sh" "$pi_elf" -dtb "$work/pi.dtb" -initrd "$work/files.tar" || { cat "$work/initramfs"; die "exit status"; }
digests_are "$work/initramfs" "$(expect -m "$work/model.gguf" "$work/horse.jpg")" 2
grep -E '^(model|picture)' "$work/initramfs"

say "Bare metal: faults and errors"
# The first instruction of the secondary cores' main function becomes one that no CPU has.
at=$(aarch64-linux-gnu-nm "$pi_elf" | awk '/ secondary_main$/ { print $1 }')
cp "$image" "$work/fault.img"
printf '\0\0\0\0' | dd of="$work/fault.img" bs=1 seek=$((0x$at - 0x80000)) conv=notrunc status=none
! boot "$work/fault" qemu-system-aarch64 -M raspi3b -kernel "$work/fault.img" -nographic -semihosting || die "a fault is no success"
grep -A1 'on core 1: undefined instruction' "$work/fault" || die "$(cat "$work/fault")"
grep -qiE "ESR_EL1 0x02000000  ELR_EL1 0x0*${at#"${at%%[!0]*}"}  FAR_EL1" "$work/fault" || die "$(cat "$work/fault")"
printf 'no model' >"$work/model.gguf"
tar -C "$work" -cf "$work/files.tar" model.gguf
! boot "$work/no-model" "$pi/run.sh" "$pi_elf" -dtb "$work/pi.dtb" -initrd "$work/files.tar" || die "an error is no success"
grep '^error: model: ' "$work/no-model" || die "$(cat "$work/no-model")"

say "UEFI"
uefi() {
    boot "$work/$1" "$jetson/run.sh" "$jetson_efi" || die "$1: QEMU's exit status: $(cat "$work/$1")"
}
for core in cortex-a57 cortex-a76; do
    CPU=$core uefi "uefi-$core"
    digests_are "$work/uefi-$core" "$chelsea" 1
    echo "$core: $(grep '^kernels' "$work/uefi-$core")"
done
grep -q 'neon-dotprod' "$work/uefi-cortex-a76" || die "the A76 has dot products"
cargo run --release --quiet -p vitlet-firmware --example ppm -- "$models/pictures/horse.jpg" "$work/horse.ppm"
PICTURE=$work/horse.ppm uefi uefi-ppm
digests_are "$work/uefi-ppm" "$(expect "$models/pictures/horse.jpg")" 1
MODEL=$work/model.gguf uefi uefi-no-model
grep '^error: model: ' "$work/uefi-no-model" || die "$(cat "$work/uefi-no-model")"

say "C firmware"
make -s -C examples/c/firmware OUT="$work/firmware" PICTURE="$work/horse.ppm"
firmware=$work/firmware/firmware.elf
undefined=$(aarch64-linux-gnu-nm --undefined-only "$firmware")
[ -z "$undefined" ] || die "undefined symbols: $undefined"
if aarch64-linux-gnu-nm --format=just-symbols "$firmware" | grep -iE '^(malloc|calloc|realloc|free|_sbrk|printf|exit|__libc)|__rust_alloc|__rg_'; then
    die "an allocator or a libc"
fi
./scripts/check_vector_loads.sh "$firmware"
boot "$work/c" qemu-system-aarch64 -M raspi3b -kernel "$work/firmware/kernel8.img" -nographic -semihosting || { cat "$work/c"; die "exit status"; }
digests_are "$work/c" "$(expect "$models/pictures/horse.jpg")" 1
grep digest "$work/c"

say "Bare metal: done"
[ "${#skipped[@]}" = 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
