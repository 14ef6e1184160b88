# What the test scripts share: messages, and tools that are installed where that is allowed. Sourced, not run.

say() { printf '\n== %s\n' "$*"; }
die() {
    echo "error: $*" >&2
    exit 1
}

skipped=()
# A part that this machine cannot run: an error under CI, named otherwise.
skip() {
    [ "${CI:-}" != true ] || die "$*"
    skipped+=("$*")
    echo "skipped: $*"
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
