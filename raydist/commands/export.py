"""Writes a trained model as a Hugging Face folder with a model card.

    raydist export checkpoint=DIR out=HF_FOLDER name=owner/name bibtex=cite.bib

The folder loads in sentence-transformers with the same vectors or scores. It is pushed only with
push=true. `register=NAME` registers it with MLflow, with its card and as a pyfunc that ranks texts;
`alias=champion` also moves that alias, after a paired test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydist import log, storage
from raydist.artefact import Artefact
from raydist.config.base import Flags
from raydist.config.convert import ExportConfig
from raydist.config.inputs import inputs, is_text_file
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.exporting.provenance import Provenance

Config = ExportConfig
ARTEFACT = Artefact("model", saves_config=False)  # the model has a config.json of its own


def run(config: ExportConfig, flags: Flags) -> None:
    """Writes the folder, then pushes or registers it."""
    from raydist.exporting.hub import check_push, export_model, push_folder
    from raydist.exporting.provenance import find_provenance
    from raydist.fingerprints import model_fingerprint

    about = find_provenance(config.checkpoint, trust_remote_code=config.trust_remote_code)
    if config.push:
        check_push(config.name)
    values = _values_of(about) if config.alias is not None else {}
    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"export the {about.kind} in {about.folder} to {config.out}",
        dry_run=flags.dry_run,
    ) as output:
        if not output.done:
            export_model(
                config.checkpoint,
                output.folder,
                name=config.name,
                doc=_text(config.doc),
                bibtex=_text(config.bibtex),
                about=about,
                adapter=config.adapter,
                layout=config.layout,
                attention=config.attention,
                trust_remote_code=config.trust_remote_code,
            )
            output.finish(exported=about.kind, fingerprint=model_fingerprint(output.folder))
            log.say(f"{config.out}: {about.kind} with its model card in README.md")
    if flags.dry_run:
        return
    if config.push:
        url = push_folder(output.folder, config.name, private=config.private)
        log.say(f"pushed to {url}")
    if config.register_ is not None or config.alias is not None:
        _register(config, about, values, output.folder, output.job["inputs"]["checkpoint"])


def _text(text: str) -> str:
    """Returns a text, or the content of the file that it names."""
    return Path(text).read_text(encoding="utf-8") if is_text_file(text) else text


def _values_of(about: Provenance) -> Mapping[str, float]:
    """Returns the value per query of the measure that chose the checkpoint.

    For an aggregate it is the mean of the values that its listeners have for the query.
    """
    import pyarrow.parquet as pq

    settings = about.settings
    if about.run is None or "key" not in settings:
        raise ConfigError(
            f"alias: {about.folder} was not chosen by a validation listener, so it has no "
            "values to compare; export checkpoint=RUN/listeners/ID/best/MEASURE"
        )
    values: dict[str, list[float]] = {}
    for listener in _measuring(about):
        path = about.run / f"listeners/{listener}/per_query/step-{settings['step']:08}.parquet"
        if not path.is_file():
            raise ConfigError(f"alias: {path} is missing, with the checkpoint's values per query")
        table = pq.read_table(path)
        for query_id, value in zip(
            table["query_id"].to_pylist(), table[settings["key"]].to_pylist()
        ):
            values.setdefault(query_id, []).append(value)
    return {query_id: sum(each) / len(each) for query_id, each in values.items()}


def _measuring(about: Provenance) -> Sequence[str]:
    """Returns the listeners whose values chose the checkpoint: one, or those of an aggregate."""
    chose: str = about.settings["listener"]
    spec = about.config.get("validation", {}).get(chose, {})
    listeners: Sequence[str] = spec.get("listeners") or [chose]
    return listeners


def _register(
    config: ExportConfig,
    about: Provenance,
    values: Mapping[str, float],
    folder: Path,
    fingerprint: str,
) -> None:
    from raydist.evaluation.follower import State, read_state
    from raydist.evaluation.registry import Candidate, promote, register
    from raydist.evaluation.tracking import resolve_uri
    from raydist.exporting.pyfunc import write_mlmodel

    place = folder if about.run is None else about.run
    uri = resolve_uri(config.tracking.uri, place.absolute().parent)
    if uri is None:
        raise ConfigError("register: tracking.uri=none has no registry; name an MLflow URI")
    write_mlmodel(folder)
    tracked = None if about.run is None else read_state(about.run)
    if tracked is None or tracked.uri != uri:
        tracked = State()  # the run is not in this MLflow
    models = tracked.models.get("{listener}/{key}".format(**about.settings), {}) if values else {}
    name = config.register_ or config.name or Path(config.out).name
    candidate = Candidate(
        name=name.replace("/", "-"),
        folder=folder,
        metric=str(about.settings["key"]) if values else "",
        values=values,
        fingerprint=fingerprint,
        run_id=tracked.run_id or None,
        model_id=models.get(str(about.settings.get("step"))),
        upload=storage.leaves(config.out),
        experiment=config.tracking.experiment,
    )
    if config.alias is None:
        version, note = register(uri, candidate), ""
    else:
        promotion = promote(uri, candidate, alias=config.alias)
        version, note = promotion.version, f"; {config.alias}: {promotion.reason}"
    log.say(f"registered as version {version} of {candidate.name}{note}")
