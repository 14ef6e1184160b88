#!/usr/bin/env bash
# Refuses links in Markdown files that lead to no file of the project, or to no heading of a page:
#
#     ./scripts/check_links.sh
#
# Addresses on the web are not looked at.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t pages < <(git ls-files '*.md')
[ "${#pages[@]}" -gt 10 ] || { echo "error: ${#pages[@]} pages: this is no git checkout of the project" >&2 && exit 1; }

# A line for every heading and every link: its kind, page, line, and target. Headings have GitHub's form.
links() {
    awk '
        /^ *```/ { fenced = !fenced }
        FNR == 1 { fenced = 0 }
        fenced { next }
        /^#+ / {
            heading = tolower($0)
            sub(/^#+ /, "", heading)
            gsub(/[^a-z0-9_ -]/, "", heading)
            gsub(/ /, "-", heading)
            print "heading", FILENAME, FNR, heading
        }
        {
            text = $0
            while (match(text, /\]\([^) ]+\)/)) {
                print "link", FILENAME, FNR, substr(text, RSTART + 2, RLENGTH - 3)
                text = substr(text, RSTART + RLENGTH)
            }
        }' "${pages[@]}"
}

declare -A headings
failed=0
while read -r kind page line target; do
    if [ "$kind" = heading ]; then
        headings[$page#$target]=1
        continue
    fi
    [[ $target != *:* ]] || continue
    path=$page
    [[ $target == '#'* ]] || path=$(realpath --canonicalize-missing --relative-to=. "$(dirname "$page")/${target%%#*}")
    if [ ! -e "$path" ]; then
        echo "error: $page:$line: $target: No such file or directory"
        failed=1
    elif [[ $target == *'#'* && -z ${headings[$path#${target#*#}]:-} ]]; then
        echo "error: $page:$line: $target: no such heading"
        failed=1
    fi
done < <(links | sort)
exit "$failed"
