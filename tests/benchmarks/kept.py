"""A benchmark's figures, kept in a file: none is measured twice, and files of several machines make one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelmerge.demo.results import Mean


@dataclass
class Kept:
    """Figures by world and row.

    Attributes:
        file: where they are kept.
        worlds: by seed and row, each row's figures by column.
        devices: what they were measured on.
    """

    file: Path
    worlds: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, file: Path, others: Iterable[Path] = ()) -> Kept:
        """What a file has, if there is one, and `others`; of a row that several have, the last one's figures."""
        kept = cls(file)
        for path in [*([file] if file.exists() else []), *others]:
            read: dict[str, Any] = json.loads(path.read_text())
            kept.devices |= set(read["devices"])
            for seed, rows in read["worlds"].items():
                kept.worlds.setdefault(int(seed), {}).update(rows)
        return kept

    def has(self, seed: int, row: str) -> bool:
        """Whether a row was measured in a world."""
        return row in self.worlds.get(seed, {})

    def add(self, seed: int, row: str, figures: dict[str, float], device: str) -> None:
        """Keep and print a row's figures."""
        self.worlds.setdefault(seed, {})[row] = figures
        self.devices.add(device_name(device))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = {"devices": sorted(self.devices), "worlds": self.worlds}
        self.file.write_text(json.dumps(content, indent=1) + "\n")
        print(f"world {seed}, {row}: {figures}", flush=True)

    def table(self, rows: Sequence[str], columns: Sequence[str], title: str) -> str:
        """Markdown: mean and standard deviation over the worlds, with their number where it is not that of all."""
        lines = [f"| {title} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for row in rows:
            found = [world[row] for world in self.worlds.values() if row in world]
            cells = [
                Mean.of(values).percent() if (values := [each[column] for each in found if column in each]) else "–"
                for column in columns
            ]
            worlds = "" if len(found) == len(self.worlds) else f" ({len(found)} of {len(self.worlds)} worlds)"
            lines.append(f"| {row}{worlds} | {' | '.join(cells)} |")
        return "\n".join([*lines, "", f"{len(self.worlds)} worlds; {', '.join(sorted(self.devices))}"])


def device_name(device: str) -> str:
    """`cpu`, or the name of the card."""
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else device
