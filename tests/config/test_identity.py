"""What command lines resolve to, as recorded: identities, `config.json`, reference, mistakes.

An output folder is recognised by the identity of its configuration. A change to an identity in
`tests/golden/config` means that outputs of earlier versions are rebuilt.
"""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydist.commands import VERBS
from raydist.config.base import Block
from raydist.config.load import load
from raydist.config.schema import reference
from raydist.errors import ConfigError

ROOT = Path(__file__).parents[2]
JOBS = {
    "train": ["terminology/train", "nfcorpus/train", "quickstart/train"],
    "distill": ["dl19/stage1", "dl19/distill", "rank-distillm/stage1", "rank-distillm/stage2"],
    "index": ["quickstart/index"],
    "serve": ["serve/rerank", "serve/search"],
}
LINES = yaml.safe_load((Path(__file__).parent / "lines.yaml").read_text(encoding="utf-8"))


def config_of(verb: str) -> type[Block]:
    model: type[Block] = importlib.import_module(f"raydist.commands.{verb}").Config
    return model


def line(name: str, config: Block) -> str:
    parts = [config.identity(), config.resolved()]
    return "\n".join([name, *(json.dumps(part, ensure_ascii=False) for part in parts)]) + "\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_verb_is_recorded() -> None:
    modules = [importlib.import_module(f"raydist.commands.{verb}") for verb in VERBS]
    verbs = {verb for verb, module in zip(VERBS, modules) if hasattr(module, "Config")}
    assert verbs == set(LINES["resolves"])


@pytest.mark.parametrize("verb", LINES["resolves"])
def test_a_command_line_resolves_as_recorded(verb: str, golden: Callable[[str, str], None]) -> None:
    text = ""
    for words in map(shlex.split, LINES["resolves"][verb]):
        words = [w if "=" in w else f"{config_of(verb).primary}={w}" for w in words]
        text += line(" ".join(words), load(config_of(verb), (), words))
    for job in JOBS.get(verb, ()):
        text += line(f"jobs/{job}.yaml", load(config_of(verb), [str(ROOT / f"jobs/{job}.yaml")]))
    golden(f"config/{verb}.txt", text)


def test_the_pipelines_and_applications_resolve_as_recorded(
    golden: Callable[[str, str], None],
) -> None:
    text = ""
    stages: dict[str, Any] = yaml.safe_load((ROOT / "jobs/quickstart/pipeline.yaml").read_text())
    for name, stage in stages["stages"].items():
        text += line(name, load(config_of(stage.pop("verb", name)), [stage]))
    for file in sorted((ROOT / "cluster/serve").glob("*.yaml")):
        for app in yaml.safe_load(file.read_text())["applications"]:
            text += line(file.name, load(config_of("serve"), [app["args"]]))
    golden("config/files.txt", text)


def test_the_reference_has_the_keys_types_and_defaults_as_recorded(
    golden: Callable[[str, str], None],
) -> None:
    for verb in LINES["resolves"]:
        rows = reference(config_of(verb))
        text = "".join(f"{row.key}: {row.type} = {row.default}\n" for row in rows)
        golden(f"config/fields/{verb}.txt", text)


def test_mistakes_are_explained_as_recorded(golden: Callable[[str, str], None]) -> None:
    text = ""
    for verb, lines in LINES["mistakes"].items():
        for words in map(shlex.split, lines):
            with pytest.raises(ConfigError) as caught:
                load(config_of(verb), (), words)
            text += f"{verb} {' '.join(words)}\n  " + str(caught.value).replace("\n", "\n  ") + "\n"
    golden("config/mistakes.txt", text)
