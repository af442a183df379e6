"""All steps of preparing a published data set, one after the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from neq.preparing.downloading import check, fetch
from neq.preparing.mark import Mark, Source, finished_mark
from neq.preparing.planning import check_counts, digest, make_plan
from neq.preparing.published import SPLITS, Download, Published
from neq.preparing.unpacking import unpack
from neq.preparing.writing import only_writer, write_split
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError


def prepare(
    published: Published,
    raw: Path,
    out: Path,
    console: Console,
    validation: float | None = None,
    link: bool = False,
    verify: bool = True,
) -> tuple[Mark, bool]:
    """Downloads, unpacks and writes a data set; each step only as far as it is not done yet.

    Args:
        published: the data set.
        raw: where its files are, or are downloaded to; nothing in it is moved or changed.
        out: where train, val and test are written to.
        console: for what is going on.
        validation: the share of each class of train that becomes validation, 0 <= share < 1; none: the
            official splits.
        link: hard links instead of copies.
        verify: refuse other checksums and other numbers of images than the official ones; else they are
            printed.

    Returns:
        The mark of the finished split, and whether it was there already.

    Raises:
        UserError: what `fetch`, `unpack`, the lists, `make_plan` or `write_split` refuse.
    """
    settings: dict[str, str | int | float | None] = {
        "set": published.name,
        "validation": validation,
        **published.options,
    }
    mark = finished_mark(out, settings)
    if mark is not None:
        return mark, True
    raw.mkdir(parents=True, exist_ok=True)
    sources = _obtain(published.downloads, raw, console, verify)
    listed = published.read(raw)
    deviations = check_counts(listed, published.counts)
    if deviations and verify:
        raise UserError(
            f"these lists are not the official ones of {published.name}: {'; '.join(deviations)}; put the "
            "published files into --raw, or give --unverified to use these."
        )
    for deviation in deviations:
        console.print(f"warning: {deviation}", highlight=False)
    plan = make_plan(listed, raw, validation)
    counts = Counter(item.split for item in plan)
    mark = Mark(
        settings=settings,
        plan=digest(plan),
        counts={split: counts[split] for split in SPLITS if counts[split]},
        classes=len({item.folder for item in plan}),
        official_counts=not deviations,
        sources=sources,
    )
    write_split(plan, out, mark, link, published.small_side, console)
    return mark, False


def _obtain(downloads: tuple[Download, ...], raw: Path, console: Console, verify: bool) -> list[Source]:
    """Makes sure that everything needed lies unpacked in the raw folder.

    A raw folder that has everything is only read: others may share it.
    """
    sources = []
    for download in downloads:
        # Beside what was unpacked, the md5 of the archive: the archive itself may be deleted then.
        record = raw / f".{download.name}.md5"
        md5: str | None
        if download.unpacks and all((raw / name).exists() for name in download.unpacks):
            md5 = record.read_text() if record.exists() else None
            if md5 is not None:
                what = f"the archive that {str(raw / download.unpacks[0])!r} was unpacked from"
                remedy = f"delete {', '.join(download.unpacks)} and {download.name} from --raw and run again"
                check(download, md5, what, remedy, verify, console)
        elif (raw / download.name).exists() and not download.unpacks:
            md5 = fetch(download, raw, console, verify)
        else:
            with only_writer(raw / ".lock", raw):
                md5 = fetch(download, raw, console, verify)
                if download.unpacks:
                    unpack(raw / download.name, download.unpacks, raw, console)
                    write_text(record, md5)
        sources.append(Source(file=download.name, url=download.url, md5=md5))
    return sources
