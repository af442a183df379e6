import json
import shutil
from pathlib import Path

import pytest
import torch

from neq.results.evaluation import evaluation
from neq.results.report.contents import run_reports
from neq.results.report.speed import VERSION
from neq.runs import load_run
from neq.runs.layout import SPEED
from neq.utils.atomic_files import file_sha256


def speed_file(folder: Path, milliseconds: float) -> None:
    """Writes what measuring would have written."""
    variants = [
        {
            "name": name,
            "file_bytes": size,
            "milliseconds": [milliseconds / factor, 20 * milliseconds / factor],
            "least": [1.0, 10.0],
            "rounds": [50, 50],
            "agreement": agreement,
            "accuracy": 0.9 * agreement,
        }
        for name, size, factor, agreement in (
            ("torch fp32", 2**22, 1, 1.0),
            ("onnxruntime fp32", 2**22, 3, 1.0),
            ("onnxruntime int8 u8s8", 2**20, 4, 0.96),
        )
    ]
    content = {
        "version": VERSION,
        "weights": file_sha256(load_run(folder).best_weights),
        "variants": variants,
        "int8": "onnxruntime int8 u8s8",
        "images": 256,
        "real": True,
        "environment": {"cpu": "A <b>CPU</b>", "cpu_flags": "avx2", "threads": 1},
        "missing": "",
    }
    (folder / SPEED).write_text(json.dumps(content))


@pytest.fixture(scope="session")
def two_runs(tiny_run, tmp_path_factory):
    """Two folders of a run with its evaluation and a speed; tests read them and leave them as they are."""
    place = tmp_path_factory.mktemp("reported")
    first = Path(shutil.copytree(tiny_run, place / "first"))
    evaluation(first, torch.device("cpu"))
    speed_file(first, 6.0)
    second = Path(shutil.copytree(first, place / "second"))
    speed_file(second, 12.0)
    return first, second


@pytest.fixture(scope="session")
def reports(two_runs):
    """The reports of both."""
    return run_reports(two_runs, torch.device("cpu"), True, pytest.fail)
