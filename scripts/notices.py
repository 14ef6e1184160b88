#!/usr/bin/env python3
"""The licences of the crates that are linked into what is handed out:

    notices.py TARGET > NOTICES.txt

Most of them ask that their notice goes with binaries. A line a crate, then the text of each licence file, once where
several crates have the same. A crate without such a file has its expression alone. Wants cargo, and the crates' sources
that a build has downloaded.
"""

import json
import subprocess
import sys
from pathlib import Path

#: What is handed out: the program and the C library.
ROOTS = {"vitlet-cli", "vitlet-capi"}
NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT")


def linked(metadata: dict) -> list[dict]:
    """The packages behind normal dependencies of the roots, by name and version; our own have no source."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [id for id, package in packages.items() if package["name"] in ROOTS]
    seen = set(waiting)
    while waiting:
        for dep in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in dep["dep_kinds"])
            if normal and dep["pkg"] not in seen:
                seen.add(dep["pkg"])
                waiting.append(dep["pkg"])
    return sorted((packages[id] for id in seen if packages[id]["source"]), key=lambda p: (p["name"], p["version"]))


def texts(package: dict) -> list[str]:
    folder = Path(package["manifest_path"]).parent
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name.upper().startswith(NAMES))
    return [f.read_text(encoding="utf-8", errors="replace").strip() for f in files]


def main() -> None:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", sys.argv[1]]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    packages = linked(metadata)
    users: dict[str, list[str]] = {}
    print("vitlet contains these crates:\n")
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or 'see its licence file'}")
        for text in texts(package):
            users.setdefault(text, []).append(name)
    for text, names in users.items():
        print(f"\n{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n{text}")


if __name__ == "__main__":
    main()
