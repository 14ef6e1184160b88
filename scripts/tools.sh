# What the test scripts share: messages, and tools that are installed where that is allowed. Sourced, not run.

# When the first of the scripts that call each other began.
export STARTED=${STARTED:-$EPOCHSECONDS}
elapsed() { printf '%d:%02d' $(((EPOCHSECONDS - STARTED) / 60)) $(((EPOCHSECONDS - STARTED) % 60)); }
say() { printf '\n== %s  (%s)\n' "$*" "$(elapsed)"; }
die() {
    echo "error: $*" >&2
    exit 1
}

skipped=()
# A part that this machine cannot run: an error under CI, named otherwise.
skip() {
    [ "${CI:-}" != true ] || die "$*"
    skipped+=("$*")
    echo "skipped: $*" | tee -a "${SKIPPED:-/dev/null}"
}

# From now on, scripts that are called add their skipped parts to the file $SKIPPED.
share_skipped() {
    SKIPPED=$(mktemp)
    export SKIPPED
    trap 'rm -f "$SKIPPED"' EXIT
}

# kernels_of_this_machine: the kernels that the engine must find here, as the operating system tells the CPU's features.
kernels_of_this_machine() {
    local flags kernels=scalar
    flags=" $(sed -n 's/^\(flags\|Features\)[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1) "
    has_flags() {
        local flag
        for flag in "$@"; do
            case "$flags" in *" $flag "*) ;; *) return 1 ;; esac
        done
    }
    case "$(uname -m)" in
        x86_64)
            if has_flags avx2 fma f16c; then
                kernels+=,avx2
                ! has_flags avx_vnni || kernels+=,avx-vnni
                ! has_flags avx512f avx512bw avx512dq avx512vl avx512_vnni || kernels+=,avx512-vnni
            fi
            ;;
        aarch64)
            kernels+=,neon
            ! has_flags asimdhp || kernels+=,neon-fp16
            ! has_flags asimdhp asimddp || kernels+=,neon-dotprod
            ! has_flags asimdhp asimddp i8mm || kernels+=,neon-i8mm
            ;;
        *) return 0 ;;
    esac
    echo "$kernels"
}

# kernels_of_core CORE: the kernels that the engine must find on one of QEMU's cores.
kernels_of_core() {
    case "$1" in
        cortex-a53 | cortex-a57 | cortex-a72) echo scalar,neon ;;
        cortex-a76) echo scalar,neon,neon-fp16,neon-dotprod ;;
        max) echo scalar,neon,neon-fp16,neon-dotprod,neon-i8mm ;;
        *) die "kernels_of_core: $1" ;;
    esac
}

# need_targets TARGET...: adds missing rustup targets.
need_targets() {
    local target
    for target in "$@"; do
        rustup target list --installed | grep -qx "$target" || rustup target add "$target" || skip "rustup target $target: could not be added"
    done
}

# need_packages PACKAGE...: installs missing Debian packages, as root.
need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
            skip "Debian packages ${missing[*]}: could not be installed"
    else
        skip "Debian packages ${missing[*]}: install them (apt-get install ${missing[*]})"
    fi
}
