"""The run's log: one JSON object a line, appended as it happens and never rewritten.

    {"start": {...}}        flags and facts of the run; with "resumed" or "continued" saying from what
    {"losses": {...}}       epoch, step, loss, and each term before its weight
    {"scores": {...}}       epoch, step, and every score of an evaluation

A resumed run does the steps again that its last state did not hold: of two lines with one epoch and step the later counts.
"""

import json
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


class RunLog:
    """Appends to <folder>/log.jsonl; a line that a kill cut short is closed first."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / LOG_FILE

    def write(self, kind: str, content: dict[str, Any]) -> None:
        """Append one line {kind: content}."""
        line = json.dumps({kind: content}, ensure_ascii=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if file.tell() and not self._ends_with_newline(file):
                line = b"\n" + line
            file.write(line)

    @staticmethod
    def _ends_with_newline(file) -> bool:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
