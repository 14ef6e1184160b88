#!/usr/bin/env bash
# Refuses prose and comments that go beyond column 120:
#
#     ./scripts/check_columns.sh
#
# It reads Markdown, the comments of Rust, shell, Python and TOML files, docstrings, and whole headers of C. Tables,
# links, code (indented by four, or between fences) and lines of one long word may be longer.
set -euo pipefail
cd "$(dirname "$0")/.."

files=('*.md' '*.rs' '*.sh' '*.py' '*.toml' '*.h' '*.hpp')
mapfile -t files < <(git ls-files -- "${files[@]}")
[ "${#files[@]}" -gt 100 ] || { echo "error: ${#files[@]} files: this is no git checkout of the project" >&2 && exit 1; }

awk '
    FNR == 1 {
        fenced = quoted = 0
        python = FILENAME ~ /[.]py$/
        markdown = FILENAME ~ /[.]md$/
        header = FILENAME ~ /[.]h(pp)?$/
        mark = FILENAME ~ /[.](rs|h|hpp)$/ ? "^[ \t]*//[/!]?" : "^[ \t]*#"
    }
    {
        text = $0
        comment = markdown || header || sub(mark, "", text)
    }
    python && /"""/ {
        if (!quoted) margin = match($0, /[^ ]/) - 1
        if (gsub(/"""/, "\"\"\"") % 2) quoted = !quoted
        comment = 1
    }
    python && (quoted || /"""/) {
        comment = 1
        text = substr($0, margin + 1)
    }
    !comment {
        fenced = 0
        next
    }
    text ~ /^ *```/ {
        fenced = !fenced
        next
    }
    length($0) <= 120 || fenced || text ~ /^ *[|]/ || text ~ /^ ?    / { next }
    {
        # A link may end where it likes, and so may a word.
        shown = $0
        gsub(/\]\([^)]*\)|https?:[^ ]*/, "]", shown)
        sub(/^[ \t]*(\/\/[\/!]?|#|[*-])?[ \t]*/, "", text)
    }
    length(shown) > 120 && text ~ / / {
        printf "error: %s:%d: %d columns, at most 120\n", FILENAME, FNR, length($0)
        failed = 1
    }
    END { exit failed }' "${files[@]}"
