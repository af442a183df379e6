"""The processor's name."""

import platform
from pathlib import Path

from neq.utils.cpu import cpu_model


def test_it_has_a_name(monkeypatch):
    cpu_model.cache_clear()
    assert cpu_model()
    cpu_model.cache_clear()

    def unreadable(*_, **__):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", unreadable)
        patch.setattr(platform, "processor", lambda: "a processor")
        assert cpu_model() == "a processor"
    cpu_model.cache_clear()
