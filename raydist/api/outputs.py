"""What verbs wrote, opened: training runs and outputs that are paths for other verbs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.api.display import html_table, text_table
from raydist.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas


class Folder:
    """A folder with a manifest."""

    def __init__(self, path: str, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def __fspath__(self) -> str:
        return self.path

    def _facts(self) -> list[tuple[str, str]]:
        return [("kind", str(self.manifest["kind"]))]

    def _counts(self) -> list[str]:
        return []

    def identity(self) -> Any:
        """Returns JSON that tells the content from another."""
        return {"manifest": self.manifest.get("config_hash"), "inputs": self.manifest.get("inputs")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}: {', '.join(self._counts())})"

    def _repr_html_(self) -> str:
        return html_table(["", ""], [["path", self.path], *map(list, self._facts())])


class Training(Folder):
    """A finished training run, or a search for the best one; itself a `model=` for other verbs.

    >>> import raydist as rd
    >>> run = rd.train(SAMPLES, model={"path": MODEL}, out="run", steps=1, batch_size=2,
    ...                tracking="none")
    >>> run.metrics["step"].to_list()
    [1]
    >>> run.best() == run.path
    True

    Attributes:
        path: the folder.
        manifest: what it was made from.
    """

    @property
    def metrics(self) -> pandas.DataFrame:
        """A DataFrame of pandas: a row for each logged step, or what a trial reported."""
        import pandas

        file = "trials.jsonl" if self.manifest["kind"] == "tuning" else "metrics.jsonl"
        return pandas.DataFrame(_lines(Path(self.path) / file))

    def history(self, listener: str) -> pandas.DataFrame:
        """Returns a DataFrame of pandas: a row for each evaluation of a validation listener.

        Raises:
            ConfigError: the run has no such listener.
        """
        import pandas

        return pandas.DataFrame(_lines(self._listener(listener) / "history.jsonl"))

    def best(self, listener: str | None = None, measure: str | None = None) -> str:
        """Returns the folder of the best model: a listener's, or the run's final one.

        Args:
            listener: its name below `validation`.
            measure: by which it was best; may be left out if the listener keeps one.

        Raises:
            ConfigError: there is no such listener or measure, or several.
        """
        if listener is None:
            return self.path
        folder = self._listener(listener) / "best"
        measures = sorted(each.name for each in folder.glob("*") if each.is_dir())
        if measure is None and len(measures) != 1:
            raise ConfigError(
                f"measure: {listener} keeps the best by {', '.join(measures) or 'none'}; name one"
            )
        measure = measure or measures[0]
        if measure not in measures:
            raise ConfigError(f"measure = {measure!r}: expected one of {', '.join(measures)}")
        return str(folder / measure)

    def _listener(self, name: str) -> Path:
        folder = Path(self.path) / "listeners"
        if not (folder / name).is_dir():
            names = sorted(each.name for each in folder.glob("*") if each.is_dir())
            raise ConfigError(
                f"listener = {name!r}: the run has {', '.join(names) or 'no listener'}"
            )
        return folder / name

    def __repr__(self) -> str:
        lines = [f"Training({self.path!r})"]
        file = Path(self.path) / "metrics.jsonl"
        if file.is_file() and (rows := _lines(file)):
            numbers = {k: v for k, v in rows[-1].items() if isinstance(v, int | float)}
            lines.append(text_table(list(numbers), [list(numbers.values())]))
        return "\n".join(lines)


class Output(Folder):
    """A file or folder that a verb wrote; a path for other verbs.

    >>> Output("samples.jsonl", {"kind": "mined-samples"})
    Output('samples.jsonl': mined-samples)

    Attributes:
        path: the file or folder.
        manifest: what it was made from; the kind alone where none is written.
    """

    def __repr__(self) -> str:
        return f"Output({self.path!r}: {self.manifest['kind']})"


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    return [json.loads(line) for line in lines if line]
