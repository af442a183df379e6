"""Configuration files, flags and sweep files, mutated and hostile: one line, or a configuration."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st

from neq.cli import COMMANDS
from neq.config import configs_folder, load, read_yaml, resolve
from neq.config.keys import KEYS, SECTIONS
from neq.planning.sequence import read_sequence
from neq.sweeps import cells, check_search, read_sweep
from neq.sweeps.queue import sweep_name
from tests.faults.hostile import FUZZ, WORDS, refusal, refused, run_refused

pytestmark = pytest.mark.slow

POLICIES = configs_folder().parent / "policies"
WHOLE = [path.read_text() for path in sorted(configs_folder().glob("*.yaml"))[:2]] + [
    (configs_folder() / "transfer.yaml").read_text()
]
SWEEPS = [
    path.read_text()
    for path in (POLICIES / "test_policy.yaml", *sorted((POLICIES / "digits").glob("*.yaml")))
]
SEQUENCES = [path.read_text() for path in sorted((configs_folder() / "retraining").glob("*.yaml"))]
VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 10**90, -(10**90), 1e308, -1e308, 1e-320, float("inf"), float("nan"), 0.5),
    *([], [None], [[1]], {}, {"a": 1}, [1] * 1000, ["x"], *WORDS),
)


def mutated(text: str, seed: int) -> str:
    """A text with a few lines and words exchanged for others and for hostile ones."""
    rng = random.Random(seed)
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        word = rng.choice(WORDS)
        lines[at] = rng.choice(
            [
                f"{key}{colon} {word}",
                f"{word}: 1",
                f"{key}{colon} [{word}, {word}]",
                f"{key}{colon} {rng.choice(lines).strip()}",
                lines[at] + "\n" + lines[at],
                "\t" + lines[at],
                "  " + lines[at],
                lines[at].lstrip(),
                f"{key}{colon}",
                "",
            ]
        )
    ending = rng.choice(("\n", "\n", "\r\n", "\r"))
    return rng.choice(("", "", "\ufeff")) + ending.join(lines) + ending


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("seed", range(6))
def test_mutated_configurations(place, seed):
    path = place / "mutated.yaml"
    taken = 0
    for at in range(40):
        path.write_bytes(mutated(WHOLE[at % len(WHOLE)], 1000 * seed + at).encode("utf-8", "surrogatepass"))
        taken += refusal(load, ["--config-file", str(path)], "neq train") is None
    assert 0 < taken < 40  # else the mutations are too weak or too wild to say much


def test_mutated_sequences_of_tasks(place):
    path = place / "sequence.yaml"
    taken = 0
    for at in range(60):
        path.write_bytes(mutated(SEQUENCES[at % len(SEQUENCES)], at).encode("utf-8", "surrogatepass"))
        taken += refusal(read_sequence, path) is None
    assert 0 < taken < 60


@limited(FUZZ, max_examples=250)
@given(st.dictionaries(st.sampled_from(sorted(KEYS)), st.sampled_from(VALUES), min_size=1, max_size=3))
def test_hostile_values_of_settings(flat):
    line = refusal(resolve, {}, flat)
    assert line is None or len(line) < 2000
    nested: dict[str, dict[str, object]] = {}
    for name, value in flat.items():
        nested.setdefault(KEYS[name].section or "", {})[name] = value
    refusal(resolve, {**nested.pop("", {}), **nested}, {})


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_hostile_keys_and_sections(place, word):
    path = place / "keys.yaml"
    for text in (
        f"{word}: 1\n",
        f"run_config:\n  {word}: 1\n",
        f"run_config: {word}\n",
        f"n_epochs: {word}\n",
    ):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        line = refusal(load, ["--config-file", str(path)], "neq train")
        assert line is None or len(line) < 2000
    refusal(resolve, {word: 1}, {})
    refusal(resolve, {"run_config": {word: 1}}, {})
    refusal(resolve, {}, {word: 1, f"run_config.{word}": 2})


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"a: " + b"[" * 50_000, "nested deeper"),
        (b"\n".join(b" " * n + b"a:" for n in range(400)), "nested deeper"),
        (BOMB.encode(), "more than 100000 values"),
        (b"a: &a [*a]", "no anchor"),
        (b"a: &a {b: *a}", "no anchor"),
        (b"run_config: !!python/object/apply:os.system ['id']", "tags are not allowed"),
        (b"run_config: !<tag:yaml.org,2002:python/name:os.system> ''", "tags are not allowed"),
        (b"%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x", "tags are not allowed"),
        (b"<<: {n_epochs: 1}", "unknown"),
        (b"run_config:\n\tn_epochs: 1\n", "a tab stands"),
        (b"n_epochs: " + b"9" * 5000, "digits"),
        (b"n_epochs: 0x" + b"f" * 5000, "digits"),
        (b"? [a, b]\n: 1", "a key must be plain text"),
        (b"? {a: 1}\n: 1", "a key must be plain text"),
        (b"manual_seed: 1\nmanual_seed: 2", "stands there twice"),
        (b"a: \xff\xfe", "not UTF-8"),
        ("a: 1".encode("utf-32"), "not UTF-8"),
        (b"\x00", "special characters"),
        (b"a: \x07", "special characters"),
        (b'a: "\\ud800"', "key"),
        (b'a: "\\UFFFFFFFF"', "YAML"),
        (b"a: 1\n...\n---\na: 2\n", "several documents"),
        (b"#" * 300_000, "larger than"),
    ],
    ids=lambda value: ascii(value[:40]) if isinstance(value, bytes) else None,
)
def test_hostile_files_through_the_command(tmp_path, monkeypatch, capsys, raw, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.yaml"
    path.write_bytes(raw)
    assert said in run_refused(
        capsys,
        tmp_path,
        ["train", "--config-file", str(path)],
        "hostile.yaml" if said not in ("unknown", "key") else "",
    )


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    text = (configs_folder() / "transfer.yaml").read_text()
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_yaml(path) == read_yaml(configs_folder() / "transfer.yaml")


# Settings that name a file or a folder, with what no file can be called: refused before anything is trained.
@pytest.mark.parametrize("key", ["run_dir", "root", "weights"])
@pytest.mark.parametrize(
    "word", ["a\\0b", "\\ud800", "~nobody-there/x", "x" * 5000, "\\x1b[31m", "/dev/null/x", "a\\nb"]
)
def test_names_that_no_file_can_have(tmp_path, monkeypatch, capsys, key, word):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "names.yaml"
    section = {"root": "data_provider", "weights": "net_config"}.get(key)
    lines = ["net_config: {net_name: mcunet-in0}", "data_provider: {dataset: image_folder, root: missing}"]
    if key == "weights":
        lines = [
            f'net_config: {{net_name: mcunet-in0, weights: "{word}"}}',
            "data_provider: {dataset: digits, image_size: 24}",
        ]
    elif key == "root":
        lines[1] = f'data_provider: {{dataset: image_folder, root: "{word}"}}'
    else:
        lines = [
            "net_config: {net_name: mcunet-in0}",
            "data_provider: {dataset: digits, image_size: 24}",
            f'run_dir: "{word}"',
        ]
    assert section is None or section in "\n".join(lines)
    path.write_text("\n".join([*lines, "run_config: {n_epochs: 0}"]))
    codes = (0, 2) if key == "run_dir" and "\\0" not in word and "ud8" not in word else (2,)
    run_refused(capsys, tmp_path, ["train", "--config-file", str(path), "--dry-run"], codes=codes)


ARGUMENTS = st.lists(
    st.sampled_from(
        [
            *WORDS,
            "status",
            "book",
            "best",
            "plot",
            "compare",
            "--workers",
            "--storage",
            "--runs-dir",
            "-o",
            "-w",
            "--onnx",
            "--image-size",
            "--timeout",
            "--metric",
            "--copy",
            "--choices",
            "--force",
            "--debug",
        ]
    ),
    max_size=5,
)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_hostile_arguments(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neq.config.flags.DEFAULT_CONFIG", "no-such-thing")  # nothing is ever trained

    @limited(FUZZ, max_examples=25)
    @given(ARGUMENTS)
    def tried(words):
        words = [word for word in words if word != "--debug"]
        run_refused(
            capsys,
            tmp_path,
            [command, *words],
            codes=(0, 2) if command in ("networks", "datasets", "results", "partition") else (2,),
        )

    tried()


@pytest.mark.parametrize("seed", range(5))
def test_mutated_sweep_files(place, seed):
    path, taken = place / "sweep.yaml", 0

    def whole():
        sweep = read_sweep(path)
        sweep_name(sweep, path.stem, {})
        if sweep.method == "grid":
            cells(sweep)
        else:
            check_search(sweep)

    for at in range(30):
        path.write_bytes(
            mutated(SWEEPS[at % len(SWEEPS)], 7000 * (seed + 1) + at).encode("utf-8", "surrogatepass")
        )
        line = refusal(whole)
        taken += line is None
        assert line is None or len(line) < 3000
    assert 0 < taken < 30


NUMBERS: st.SearchStrategy[object] = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        10**90,
        -(10**90),
        1e308,
        -1e308,
        1e-320,
        0.1,
        float("inf"),
        float("nan"),
        True,
        None,
        "1",
        [],
    ]
)
DISTRIBUTION_KEYS = [
    "min",
    "max",
    "q",
    "mu",
    "sigma",
    "a",
    "b",
    "value",
    "values",
    "probabilities",
    "distribution",
    "parameters",
]
NAMES = st.sampled_from(
    [
        "uniform",
        "q_uniform",
        "int_uniform",
        "log_uniform",
        "q_log_uniform",
        "log_uniform_values",
        "q_log_uniform_values",
        "inv_log_uniform",
        "inv_log_uniform_values",
        "normal",
        "q_normal",
        "log_normal",
        "q_log_normal",
        "beta",
        "q_beta",
        "categorical",
        "constant",
        "categorical_w_probabilities",
        "x",
    ]
)


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_hostile_distributions(place, method):
    path = place / f"{method}.yaml"

    @limited(FUZZ, max_examples=120)
    @given(st.dictionaries(st.sampled_from(DISTRIBUTION_KEYS[:6]), NUMBERS, max_size=5), NAMES)
    def tried(numbers, name):
        given = {"distribution": name, **numbers}
        sweep = {
            "program": "train_classification.py",
            "method": method,
            "metric": {"name": "valid.val/best"},
            "parameters": {"base_lr": given},
        }
        path.write_text(json.dumps(sweep).replace("Infinity", ".inf").replace("NaN", ".nan"))

        def whole():
            found = read_sweep(path)
            if found.method == "grid":
                cells(found)
            else:
                check_search(found)

        line = refusal(whole)
        assert line is None or path.name in line or "a run" in line or "cell" in line or "grid" in line

    tried()


SCALARS: st.SearchStrategy[object] = st.sampled_from([0, 1, -1, 3, 0.5, 1e308, True, None, "1", "x", [], {}])
SETTINGS = st.dictionaries(
    st.sampled_from(["n_epochs", "base_lr", "warmup_epochs", "net_name", "n_epoch", ""]), SCALARS, max_size=3
)
SECTION = st.one_of(
    st.fixed_dictionaries({"value": SETTINGS}),
    st.fixed_dictionaries({"values": st.lists(SETTINGS | SCALARS, max_size=3)}),
    st.fixed_dictionaries({"parameters": st.dictionaries(st.sampled_from(["n_epochs", "x"]), SETTINGS)}),
)
COMMAND: st.SearchStrategy[list[object]] = st.lists(
    st.sampled_from(
        [
            *("${env}", "python3", "${program}", "${args}", "${args_json}", "${args_no_hyphens}"),
            *("${envvar:HOME}", "${envvar:}", "${envvar:NEQ_NO_SUCH}", "${x}", "${"),
            *("--momentum", "--config-file", "published", 0.5, 1, True, None, [], ""),
        ]
    ),
    max_size=6,
)
EARLY = st.dictionaries(st.sampled_from(["min_iter", "max_iter", "s", "eta"]), NUMBERS, max_size=4)


def test_shapes_of_sweep_files(place):
    """Sections as values, words of a command, and bands: a sweep whose cells resolve, or one line."""
    path, taken = place / "shapes.yaml", 0

    @limited(FUZZ, max_examples=200)
    @given(
        SECTION, st.none() | COMMAND, st.none() | EARLY, st.sampled_from(["run_config", "net_config", "x"])
    )
    def tried(section, command, early, name):
        nonlocal taken
        sweep = {
            **{"program": "train_classification.py", "method": "grid"},
            **{"metric": {"name": "valid.val/best"}, "parameters": {name: section}},
        }
        if command is not None:
            sweep["command"] = ["python3", "${program}", *command]
        if early is not None:
            sweep["early_terminate"] = {"type": "hyperband", **early}
        path.write_text(json.dumps(sweep).replace("Infinity", ".inf").replace("NaN", ".nan"))

        def whole():
            found = read_sweep(path)
            if found.early_terminate is not None:
                assert all(band >= 1 for band in itertools.islice(found.early_terminate.bands(), 3))
            cells(found)

        taken += refusal(whole) is None

    tried()
    assert taken


def test_a_sweep_file_that_is_refused_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.yaml"
    for at in range(12):
        path.write_bytes(mutated(SWEEPS[0], at).encode("utf-8", "surrogatepass") + b"\nx: 1\nx: 2\n")
        for command in (
            ["sweep"],
            ["cells"],
            ["sweep", "status"],
            ["results", "best"],
            ["results", "book", "-w"],
        ):
            run_refused(capsys, tmp_path, [*command, str(path)], "sweep.yaml")
    assert refused(read_sweep, tmp_path / "none.yaml", named="none.yaml")
    assert set(SECTIONS)
