import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from neq.runs import environment
from neq.runs.environment import (
    FIELDS,
    Environment,
    current_environment,
    differences,
    differences_line,
)

CPU = torch.device("cpu")


@pytest.fixture
def found():
    return current_environment(CPU, 2)


def test_what_this_process_computes_with(found):
    assert found.threads == torch.get_num_threads()
    assert found.processes == 2
    assert (found.device, found.device_name) == ("cpu", found.cpu)
    assert found.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert found.torch.partition("+")[0] == torch.__version__.partition("+")[0]
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    known = {name: getattr(found, name) for name in ("cpu", "torchvision", "timm", "numpy", "platform")}
    assert all(isinstance(value, str) and value for value in known.values()), known
    assert found.cuda is None


def test_threads_and_the_variable_are_both_recorded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    torch.set_num_threads(2)
    try:
        found = current_environment(CPU)
    finally:
        torch.set_num_threads(1)
    assert (found.threads, found.omp_num_threads) == (2, "7")


def test_json_gives_it_back_and_unknown_fields_are_ignored(found):
    values = json.loads(json.dumps(found.to_json()))
    assert list(values) == list(FIELDS)
    assert Environment.from_json(values) == found
    assert Environment.from_json({**values, "a later field": 3, "torch": ["x"]}) == replace(found, torch=None)
    assert Environment.from_json({}) == Environment()


def test_differences_are_told_by_field_and_unknown_values_are_none():
    one, two = Environment(threads=1, torch="2.9.0"), Environment(threads=2, torch="2.9.0", cpu="x")
    assert differences([one, two, one, Environment()]) == {"threads": (1, 2)}
    assert differences([]) == {}
    assert differences_line([two, one, replace(one, torch="2.9.1")]) == "threads: 2, 1; torch: 2.9.0, 2.9.1"
    assert differences_line([one, one]) == ""


def test_the_variable_alone_is_no_difference():
    assert differences([Environment(omp_num_threads="1"), Environment(omp_num_threads="2")]) == {}


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_and_whether_files_of_neq_were_modified(tmp_path, monkeypatch):
    module = tmp_path / "neq" / "runs" / "environment.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(environment, "__file__", str(module))
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    checkout = environment._checkout.__wrapped__
    assert checkout() == (None, None)
    git(tmp_path, "init", "-q")
    assert checkout() == (None, True)
    git(tmp_path, "add", "neq")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert checkout() == (commit, False)
    (tmp_path / "notes").write_text("not a part of neq")
    assert checkout() == (commit, False)
    (tmp_path / "configs" / "further.yaml").touch()
    assert checkout() == (commit, True)


def test_without_git_there_is_no_commit(monkeypatch):
    def fails(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(environment.subprocess, "run", fails)
    assert environment._checkout.__wrapped__() == (None, None)
