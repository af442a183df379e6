"""pydantic's errors in the words of this project."""

from __future__ import annotations

from pydantic_core import ErrorDetails

_KINDS = {
    "int": "an integer is expected",
    "float": "a number is expected",
    "finite": "a finite number is expected",
    "bool": "yes or no (1 or 0) is expected",
    "string": "text is expected (quote it where YAML reads something else)",
    "tuple": "a list is expected, as [1, 2]",
    "model": "keys with values are expected",
}


def expected(details: ErrorDetails) -> str:
    """What would have been right, for one of the errors of a ValidationError, in one line."""
    kind = details["type"]
    if kind == "missing":
        missing = details["loc"][-1]
        return f"{missing if isinstance(missing, str) else 'a value'} is missing"
    if kind == "extra_forbidden":
        return f"key {str(details['loc'][-1])!r} is unknown"
    stem, _, rest = kind.partition("_")
    if stem in _KINDS and rest != "refused":
        return _KINDS[stem]
    text = details["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return " ".join(text.split())
