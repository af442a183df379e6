"""What no source file of neq may do: a scan of syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Modules that execute what they read, or that only invite to.
MODULES = {
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "commands",
    "imp",
    "code",
    "codeop",
    "jsonpickle",
}
BUILTINS = {"eval", "exec", "compile", "__import__", "input"}
# Module -> names of it that are never used.
NAMES = {
    "pickle": {"load", "loads", "Unpickler", "_Unpickler"},
    "os": {
        "system",
        "popen",
        "execv",
        "execve",
        "execvp",
        "execl",
        "execlp",
        "spawnl",
        "spawnv",
        "spawnvp",
        "tempnam",
    },
    "subprocess": {"getoutput", "getstatusoutput"},
    "tempfile": {"mktemp"},
    "ssl": {"_create_unverified_context", "CERT_NONE"},
    "torch": {"jit", "package"},
    "pandas": {"read_pickle"},
    "pd": {"read_pickle"},
    "random": {"SystemRandom"},
}
# Module -> the one other name that it is imported under; its names are those of NAMES too.
SHORT = {"pandas": "pd"}
ENDINGS = {
    "extractall": "unpacks whatever names an archive has",
    "add_safe_globals": "lets a file execute more",
    "LOAD_TRUNCATED_IMAGES": "takes half an image for one",
    "MAX_IMAGE_PIXELS": "lets image bombs through",
}
IMAGES = "neq/utils/images.py"
WEIGHTS = "neq/networks/weights.py"


def faults(source: str, path: str = "x.py") -> list[str]:
    """What a source does that it may not, a line each with its number.

    Args:
        source: Python.
        path: relative to the repository.
    """
    tree = ast.parse(source)
    return sorted(f"{path}:{line}: {what}" for line, what in _faults(tree, path))


def _faults(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imported(node)
        elif isinstance(node, ast.Attribute):
            module = _dotted(node.value).rpartition(".")[2]
            if node.attr in NAMES.get(module, ()):
                yield node.lineno, f"{module}.{node.attr}"
            if node.attr == "safe_globals" and path != WEIGHTS:
                yield node.lineno, f"safe_globals outside {WEIGHTS}"
            if node.attr in ENDINGS:
                yield node.lineno, f"{node.attr} {ENDINGS[node.attr]}"
        elif isinstance(node, ast.Call):
            yield from _called(node, path)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] in MODULES:
                yield node.lineno, f"import {alias.name}"
            if alias.asname and alias.name in NAMES and alias.asname != SHORT.get(alias.name):
                yield node.lineno, f"{alias.name} under another name"
        return
    module = node.module or ""
    if module.partition(".")[0] in MODULES:
        yield node.lineno, f"from {module}"
    for alias in node.names:
        if alias.name in NAMES.get(module, ()) or (module, alias.name) in (
            ("torch", "load"),
            ("numpy", "load"),
        ):
            yield node.lineno, f"from {module} import {alias.name}"


def _called(node: ast.Call, path: str) -> Iterator[tuple[int, str]]:
    name = _dotted(node.func)
    given = {one.arg: one.value for one in node.keywords}
    if isinstance(node.func, ast.Name) and name in BUILTINS:
        yield node.lineno, f"{name}()"
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        yield node.lineno, "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
        yield node.lineno, "np.load without allow_pickle=False"
    if not _is(given.get("shell"), False) and "shell" in given:
        yield node.lineno, "a shell"
    if name.endswith("YAML") and not (given and _is(given.get("typ"), "safe")):
        yield node.lineno, "YAML without typ='safe'"
    if name == "tar.extract" and not _is(given.get("filter"), "data"):
        yield node.lineno, "extract without filter='data'"
    if name == "Image.open" and path != IMAGES:
        yield node.lineno, f"Image.open outside {IMAGES}"
    if _is(given.get("verify"), False) or _is(given.get("check_hash"), False):
        yield node.lineno, "a check is switched off"
    if name.endswith("get_model") and "weights" in given and not _is(given["weights"], None):
        yield node.lineno, "torchvision's weights, to be read within tensors_alone()"


def _is(node: ast.expr | None, value: bool | str | None) -> bool:
    """Whether a value stands there as it is; 1 is not True."""
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
