"""Unpacks CIFAR-10 as JPEG files into train.npz and test.npz (x: uint8 [N, 32, 32, 3]; y: int64 [N]).

    prepare_cifar10.py CIFAR10_JPEG_TAR_GZ OUT_DIR

The archive holds {train,test}/CLASS/*.jpg, 50,000 and 10,000 pictures.
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def main(archive: str, out: Path) -> None:
    with tarfile.open(archive) as tar:  # in the archive's order: a compressed file cannot be read in another
        jpegs = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
    pictures = {"train": ([], []), "test": ([], [])}
    for name, jpeg in sorted(jpegs.items()):
        split, label, _ = name.split("/")
        x, y = pictures[split]
        x.append(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))
        y.append(CLASSES.index(label))
    out.mkdir(parents=True, exist_ok=True)
    for split, (x, y) in pictures.items():
        np.savez(out / f"{split}.npz", x=np.stack(x), y=np.array(y, np.int64))
        print(split, len(y))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
