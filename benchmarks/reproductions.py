"""Published figures, measured again: `python -m benchmarks.reproductions [data=FOLDER]`.

Writes what `raydist reproduce` measures for each of its pages, which the site shows and a test
compares.
"""

from __future__ import annotations

import json

from benchmarks.report import RESULTS, SHARED, arguments
from raydist.commands.reproduce import find, measure
from raydist.config.reproduce import ReproduceConfig, read_pages


def main() -> None:
    values = arguments({"data": str(SHARED)})
    measured = {}
    for name, page in read_pages().items():
        folder = find(page, ReproduceConfig(name=name, data=values["data"]))
        figures = measure(page, folder)
        measured[name] = [[*each.cells()[:3], round(each.measured, 4)] for each in figures]
    lines = ",\n".join(
        f'  "{name}": [\n' + ",\n".join(f"   {json.dumps(row)}" for row in rows) + "\n  ]"
        for name, rows in measured.items()
    )
    target = RESULTS / "reproductions.json"
    target.write_text(f'{{\n "figures": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
