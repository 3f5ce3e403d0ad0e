"""Sends the local record of a run to MLflow, whole or from where an outage stopped it.

    raydist tracking replay DIR... [uri=sqlite:///mlflow.db] [experiment=NAME]

DIR is a run's output folder, with metrics.jsonl and tracking.jsonl. Without `uri=` the record goes
where the run was tracked, or to MLFLOW_TRACKING_URI or ./mlflow.db if it was not. Sending twice
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from raydist import log
from raydist.errors import ConfigError


def run_words(words: Sequence[str], flags: Sequence[str]) -> int:
    """Sends the records in the folders of `words`."""
    from raydist.evaluation.tracking import replay, resolve_uri

    options = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    unknown = sorted(options.keys() - {"uri", "experiment"})
    if unknown:
        raise ConfigError(f"{unknown[0]}: unknown key; allowed here: uri, experiment")
    if plain[:1] != ["replay"] or len(plain) < 2:
        raise ConfigError("tracking: expected replay DIR... [uri=URI] [experiment=NAME]")
    uri = options.get("uri")
    if uri is not None:
        uri = resolve_uri(uri)
        if uri is None:
            raise ConfigError("uri = none: expected where to send the record, for example sqlite")
    for folder in plain[1:]:
        if "--dry-run" in flags:
            log.say(f"would send {folder} to {uri or 'where it was tracked'}")
            continue
        tracker = replay(folder, uri=uri, experiment=options.get("experiment"))
        left_out = tracker.follower.state.skipped + tracker.follower.state.refused
        note = f" (values and files left out: {left_out:,})" if left_out else ""
        log.say(f"{folder}: sent to run {tracker.run_id}{note}: {tracker.look}")
    return 0
