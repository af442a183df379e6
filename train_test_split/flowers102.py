"""Downloads Oxford 102 Flowers and splits it officially; --help tells how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neq.cli.preparing import run_script
from neq.preparing import Download, Listed, Published, Split
from neq.preparing.lists import reading
from neq.utils.errors import UserError

ABOUT = """\
Oxford 102 Flowers: 8,189 photos of 102 flowers, official train, validation and test splits.

source   https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ (345 MB)
licence  none stated; photos from the web, which belong to who took them

Many papers train on train and validation together: --validation 0 does so.
"""
URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
KEYS: dict[str, Split] = {"trnid": "train", "valid": "val", "tstid": "test"}


def read(raw: Path) -> list[Listed]:
    """The official splits: ids of images by split, and the class of every image, both from 1."""
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102  # the published files do not name the classes

    with reading(raw / "setid.mat"):
        splits = {key: loadmat(raw / "setid.mat")[key].ravel().tolist() for key in KEYS}
    with reading(raw / "imagelabels.mat"):
        labels = loadmat(raw / "imagelabels.mat")["labels"].ravel().tolist()
    listed = []
    for key, ids in splits.items():
        for image in ids:
            if not 1 <= image <= len(labels) or not 1 <= labels[image - 1] <= len(Flowers102.classes):
                raise UserError(
                    f"{key} of setid.mat names image {image}, but imagelabels.mat has {len(labels)} labels "
                    f"of up to {len(Flowers102.classes)} classes; delete both lists and run again."
                )
            number = int(labels[image - 1])
            name = Flowers102.classes[number - 1]
            listed.append(Listed(KEYS[key], number, name, f"jpg/image_{image:05d}.jpg"))
    return listed


SET = Published(
    name="flowers102",
    downloads=(
        Download("102flowers.tgz", f"{URL}102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", ("jpg",)),
        Download("imagelabels.mat", f"{URL}imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
        Download("setid.mat", f"{URL}setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    counts={"train": 1020, "val": 1020, "test": 6149},
    read=read,
)

if __name__ == "__main__":
    sys.exit(run_script(ABOUT, lambda _: SET))
