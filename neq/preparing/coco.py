"""Visual Wake Words' rule: which of COCO's photos show a person.

Source: Chowdhery et al., Visual Wake Words Dataset, arXiv 1906.05721.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neq.preparing.lists import read_json, reading

# A person counts above this share of the photo.
SHARE = 0.005


def labelled(path: Path, area: str) -> list[tuple[int, str, bool]]:
    """Id, file name and label of every image of an annotation file.

    Args:
        path: COCO's instances annotations.
        area: as in `person_images`.

    Raises:
        UserError: the file is missing or damaged.
    """
    instances = read_json(path)
    with reading(path):
        persons = person_images(instances, area)
        return [(image["id"], image["file_name"], image["id"] in persons) for image in instances["images"]]


def person_images(instances: dict[str, Any], area: str) -> set[int]:
    """The ids of the images with a person over the threshold.

    Args:
        instances: COCO's instances annotations.
        area: box: that of the bounding box, as the paper defines; segment: that of the segmentation, which
            is what the field `area` holds that the published scripts read.
    """
    (person,) = (category["id"] for category in instances["categories"] if category["name"] == "person")
    sizes = {image["id"]: image["width"] * image["height"] for image in instances["images"]}
    images = set()
    for annotation in instances["annotations"]:
        if annotation["category_id"] == person:
            covered = (
                annotation["area"] if area == "segment" else annotation["bbox"][2] * annotation["bbox"][3]
            )
            if covered / sizes[annotation["image_id"]] > SHARE:
                images.add(annotation["image_id"])
    return images
