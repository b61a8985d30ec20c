"""The tables of settings in docs/training.md, from their declarations. Run this file to write them anew."""

from __future__ import annotations

from pathlib import Path

from labelmerge.settings import table
from labelmerge.train.config import DEFAULT_PRESET, all_settings, heading, load_config, preset_names, settings_by_group

PAGE = Path(__file__).resolve().parents[2] / "docs/training.md"
_BEGIN, _END = "<!-- settings, written by tests/train/settings_page.py -->\n", "<!-- end of settings -->\n"


def with_settings(page: str) -> str:
    """The page with its tables as they should be."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    presets = {name: load_config(name).to_dict() for name in sorted(preset_names(), key=lambda n: n != DEFAULT_PRESET)}
    parts = []
    for group, declared in settings_by_group().items():
        parts += [f"### {heading(group)}", "", *table(declared, presets), ""]
    incidental = ", ".join(f"`{each.name}`" for each in all_settings() if each.incidental)
    parts += [f"An interrupted run may resume with other values of {incidental}.", ""]
    return f"{head}{_BEGIN}\n" + "\n".join(parts) + f"\n{_END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_settings(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
