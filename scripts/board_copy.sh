# Sourced by cross.sh: the way to a board by ssh.
#
#     ask_board USER@HOST               whether ssh gets there, and whether the programs run there; names the board
#     copy_to_board USER@HOST FILE...   copies files into the board's folder vitlet

# What the board answers: its machine, and its model where the kernel knows it.
board_says='uname -m && mkdir -p vitlet && { tr -d "\0" </proc/device-tree/model 2>/dev/null || true; }'

ask_board() {
    local to=$1 said machine
    said=$(ssh "$to" "$board_says") ||
        { echo "error: $to: ssh does not get there, or cannot make the folder vitlet" >&2; return 1; }
    machine=$(head -n 1 <<<"$said")
    if [ "$machine" != aarch64 ]; then
        echo "error: $to: its kernel is $machine, and vitlet runs on aarch64: install a 64-bit system" >&2
        return 1
    fi
    echo "the board: $to, $(sed -n '2s/^./&/p' <<<"$said" | grep . || echo "aarch64")"
}

# A program that runs cannot be written over, and a model that is in use must not be. So each file is copied beside the
# old one, which the new one then replaces under its name.
copy_to_board() {
    local to=$1 file name renames=''
    shift
    for file in "$@"; do
        name=$(printf %q "$(basename "$file")")
        scp -q "$file" "$to:vitlet/.$(basename "$file").new" || { echo "error: $to: $file was not copied" >&2; return 1; }
        renames+="mv -f .$name.new $name && "
    done
    ssh "$to" "cd vitlet && ${renames}sync" || { echo "error: $to: the old files are still there" >&2; return 1; }
    echo "copied to $to:vitlet/"
}
