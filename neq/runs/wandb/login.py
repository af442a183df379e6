"""Whether runs are mirrored to W&B, decided without importing its client, which takes a second."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

SERVER = "https://api.wandb.ai"
_SECTION = "default"


def why_no_wandb(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why runs are not mirrored to W&B: None where they are, empty where it is disabled, else the reason."""
    settings = _settings(environment)
    mode = environment.get("WANDB_MODE") or settings.get("mode")
    if mode == "disabled" or environment.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return ""
    if not find_spec("wandb"):
        return "W&B is not installed (pip install wandb)"
    # Whoever sets a mode wants W&B, and an agent is logged in.
    if mode or environment.get("WANDB_SWEEP_ID") or _has_key(environment, settings):
        return None
    return "not logged in to W&B (wandb login)"


def _has_key(environment: Mapping[str, str], settings: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if settings.get("api_key"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or settings.get("base_url") or SERVER).netloc
    homes = (Path.home() / ".netrc", Path.home() / "_netrc")
    files = [Path(environment["NETRC"]).expanduser()] if environment.get("NETRC") else homes
    for file in files:
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue  # the client cannot read it either
    return False


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that `wandb login --host`, `offline` and `disabled` save; those of this folder win."""
    home = Path(environment.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    here = Path(environment.get("WANDB_DIR") or ".") / "wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([home.expanduser() / "settings", here / "settings"], encoding="utf-8")
        return dict(parser[_SECTION]) if parser.has_section(_SECTION) else {}
    except (configparser.Error, UnicodeDecodeError):
        return {}
