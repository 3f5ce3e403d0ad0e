"""Runs a verb, or a script such as the pipeline, as a Ray job and returns its exit code.

    raydist submit VERB FILE... [key=value...] [address=http://127.0.0.1:8265]
    raydist submit jobs/pipeline.py FILE [key=value...] [address=http://127.0.0.1:8265]

A verb's configuration is checked here first. The working directory travels as git would commit it
(without git: all of it but hidden files and outputs); data does not: it is named by a path or URI
that the cluster sees, and outputs go below `storage=`. Logs are streamed; Ctrl-C asks, then stops
the job. The address is also read from RAY_API_SERVER_ADDRESS, a token from Ray's own variables.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raydist import log
from raydist.commands import check_verb
from raydist.commands.submitting.files import check_travels, package_files
from raydist.commands.submitting.follow import Follower
from raydist.errors import ConfigError, JobError

_DEFAULT = "http://127.0.0.1:8265"


def run_words(words: Sequence[str], flags: Sequence[str]) -> int:
    """Checks, packages, submits, streams and waits; returns the job's exit code."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS", _DEFAULT)
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "address":
            address = value
        else:
            rest.append(word)
    if not rest:
        raise ConfigError("submit: expected VERB FILE... [key=value...] [address=URL]")
    named = _check(rest)
    root = Path.cwd()
    files = package_files(root)
    check_travels(named, root, files)
    program = ["python"] if _is_script(rest[0]) else ["python", "-m", "raydist"]
    entrypoint = shlex.join([*program, *rest, *flags_for_job(flags)])
    if "--dry-run" in flags:
        nbytes = sum(f.stat().st_size for f in files)
        log.say(f"would submit to {address}: {entrypoint}")
        log.say(f"would send {len(files)} files of {root}, {log.size(nbytes)}")
        return 0
    return _submit(address, entrypoint, rest[0], root, files)


def flags_for_job(flags: Sequence[str]) -> list[str]:
    """Returns the flags that the job itself gets."""
    return [flag for flag in flags if flag in ("--resume", "--append")]


def _is_script(word: str) -> bool:
    return word.endswith(".py")


def _check(words: Sequence[str]) -> list[str]:
    """Validates the verb and its configuration; returns the files that the job is to read."""
    verb, *rest = words
    files = [word for word in rest if "=" not in word]
    if _is_script(verb):
        if not Path(verb).is_file():
            raise ConfigError(f"submit: {verb}: no such script below the working directory")
        return [verb, *(word for word in files if Path(word).is_file())]
    import importlib

    from raydist.config.load import load

    check_verb(verb)
    module = importlib.import_module(f"raydist.commands.{verb}")
    if not hasattr(module, "Config"):
        raise ConfigError(f"submit: {verb} is not run on a cluster")
    load(module.Config, files, [word for word in rest if "=" in word])
    return files


def _submit(address: str, entrypoint: str, what: str, root: Path, files: Sequence[Path]) -> int:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise JobError(
            f"address = {address}: {str(error).splitlines()[0]}; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN, or put the cluster's token into ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise JobError(
            f"address = {address}: {str(error).splitlines()[0]}; is the cluster up, its dashboard "
            f"forwarded (ray dashboard CLUSTER.yaml), and RAY_AUTH_MODE=token set if it uses one?"
        ) from error
    job = submit_files(client, address, entrypoint, what, root, files)
    log.say(f"submitted {job} to {address} with {len(files)} files: {entrypoint}")
    return Follower(client, job).exit_code()


def submit_files(
    client: Any, address: str, entrypoint: str, what: str, root: Path, files: Sequence[Path]
) -> str:
    """Submits a job with these files of the working directory, and no others; returns its id.

    Raises:
        JobError: the cluster refuses.
    """
    logging.getLogger("ray").setLevel(logging.WARNING)  # which files it packs is ours to say
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # git has said which ones already
    with tempfile.TemporaryDirectory(prefix="raydist-submit-") as folder:
        for path in files:
            target = Path(folder) / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        return _send(client, address, entrypoint, what, folder)


def _send(client: Any, address: str, entrypoint: str, what: str, folder: str) -> str:
    """Submits; a cluster that has just started is given a minute to get ready."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return str(
                client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env={"working_dir": folder, "env_vars": _environment()},
                    metadata={"raydist": what},
                )
            )
        except (OSError, RuntimeError) as error:
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise JobError(f"address = {address}: {str(error).splitlines()[0]}") from error
            time.sleep(1)


def _environment() -> dict[str, str]:
    """The variables that a job needs of ours: offline switches and the tracking server."""
    passed = ("HF_HUB_OFFLINE", "MLFLOW_TRACKING_URI", "RAYDIST_AUTOSCALING", "RAYDIST_STORAGE")
    found = {name: os.environ[name] for name in passed if name in os.environ}
    return {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", **found}
