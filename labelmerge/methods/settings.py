"""The methods: one line for each. Light to import: the command line builds its flags from their settings."""

from __future__ import annotations

from typing import Any

from labelmerge.methods.depth.settings import DepthSettings
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.mdp.settings import MdpSettings
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.usss.settings import UsssSettings

METHOD_SETTINGS: dict[str, type[Any]] = {
    "ssiw": SsiwSettings,
    "lmseg": LmsegSettings,
    "usss": UsssSettings,
    "mdp": MdpSettings,
    "depth": DepthSettings,
}
"""For each method, the dataclass of its settings (`labelmerge.settings.setting`).

The method itself is ``METHOD`` in ``method.py`` beside the file that declares them, and imported when it is asked for.
A method's settings may not be called as one of training's: both are keys of the same file.
"""
