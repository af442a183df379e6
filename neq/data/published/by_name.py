"""Published data sets opened by name: from prepared image folders, or from their published files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from neq.config.paths import data_folder
from neq.data.image_folder import open_prepared
from neq.data.published.download import Download, fetch
from neq.data.published.obtain import is_complete, obtain
from neq.data.published.published_set import SPLIT_FOLDERS, ListedImage, PublishedSet, check_lists
from neq.data.sources import Source, file_size, source_of_files
from neq.utils.errors import UserError


def open_published(published: PublishedSet, root: str | None) -> Source:
    """Open a published set; it is downloaded and unpacked first if it is not there.

    Args:
        published: the set.
        root: the data folder; None: that of all data sets.

    Raises:
        UserError: it cannot be downloaded, or what is there is incomplete or damaged.
    """
    prepared = open_prepared(published.name, root)
    if prepared is not None:
        return prepared
    raw = provide(published.name, published.downloads, root, published.page, published.folder)
    tops = dict.fromkeys(part.partition("/")[0] for one in published.downloads for part in one.unpacks)
    remedy = (
        f"remove {' and '.join(tops)} there and run again to unpack the published files"
        if tops
        else f"unpack the files from {published.page} again"
    )
    return source_of_lists(published.name, published.read(raw), raw, published.display_name, remedy)


def provide(name: str, downloads: Sequence[Download], root: str | None, page: str, folder: str = "") -> Path:
    """The folder of a data set's published files, which are downloaded and unpacked first if needed.

    Files that are needed as they are (not unpacked) are verified each time.

    Args:
        name: of the data set.
        downloads: its published files.
        root: the data folder; None: that of all data sets.
        page: where the set is published, for the message.
        folder: the folder of the files below the data folder.

    Raises:
        UserError: they cannot be downloaded, or a file is damaged.
    """
    base = data_folder(root)
    raw = base / folder
    if is_complete(downloads, raw):
        for download in downloads:
            if not download.unpacks:
                fetch(download, raw, Console(quiet=True))
        return raw
    try:
        obtain(name, downloads, raw, Console(stderr=True), beside=base, keep_archives=False)
    except UserError as error:
        files = ", ".join(download.name for download in downloads)
        raise UserError(
            f"data set {name} is not in {str(base)!r}: {error}; all its files ({files}) are on {page}; "
            "if another folder has them, give it with --root"
        ) from error
    except OSError as error:
        raise UserError(
            f"data set {name} cannot be stored in {str(base)!r} ({error.strerror or error}); free space or "
            "correct the permissions and run again to continue, or give another folder with --root"
        ) from error
    return raw


def source_of_lists(
    name: str,
    listed: Sequence[ListedImage],
    raw: Path,
    display_name: Callable[[str], str],
    remedy: str,
    folder: Path | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """A data set as its official lists define it; labels are the ranks of the class numbers.

    Args:
        name: of the data set.
        listed: every image, in the order of the lists.
        raw: the folder that the paths are relative to.
        display_name: from a class name of the lists to the one that a run records.
        remedy: what to do if images are missing, for the message.
        folder: as in `source_of_files`.
        notes: as in `source_of_files`.

    Raises:
        UserError: the lists contradict themselves, or an image is missing.
    """
    check_lists(listed)
    names = {image.class_id: display_name(image.class_name) for image in listed}
    labels = {class_id: label for label, class_id in enumerate(sorted(names))}
    splits = {
        split: [(str(raw / image.path), labels[image.class_id]) for image in listed if image.split == split]
        for split in SPLIT_FOLDERS
    }
    missing = [file for images in splits.values() for file, _ in images if file_size(file) < 0]
    if missing:
        raise UserError(
            f"data set {name} in {str(raw)!r} is incomplete or damaged ({len(missing)} of {len(listed)} "
            f"images are missing, the first {Path(missing[0]).relative_to(raw)}); {remedy}"
        )
    if not splits["validation"]:
        del splits["validation"]
    return source_of_files([names[class_id] for class_id in labels], splits, folder, notes)
