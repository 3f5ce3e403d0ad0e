"""Runs a verb, or a script such as the pipeline, as a Ray job and returns its exit code.

    raydist submit VERB FILE... [key=value...] [address=http://127.0.0.1:8265]
    raydist submit jobs/pipeline.py FILE [key=value...] [address=http://127.0.0.1:8265]

A verb's configuration is checked here first. The working directory travels as git would commit it
(without git: all of it but hidden files and outputs); data does not: it is named by a path or URI
that the cluster sees, and outputs go below `storage=`. Logs are streamed; Ctrl-C asks, then stops
the job. The address is also read from RAY_API_SERVER_ADDRESS, a token from Ray's own variables.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raydist import log
from raydist.errors import ConfigError, JobError

__all__ = ["package_files", "run_words"]

_DEFAULT = "http://127.0.0.1:8265"
_LARGEST_FILE = 10 << 20
_LARGEST_PACKAGE = 100 << 20
_SKIP = {"__pycache__", "venv", "node_modules", "out", "build", "dist", "mlruns"}


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
    _check(rest)
    root = Path.cwd()
    files = package_files(root)
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


def _check(words: Sequence[str]) -> None:
    """Validates the verb and its configuration before anything is sent."""
    if _is_script(words[0]):
        if Path(words[0]).is_absolute() or not Path(words[0]).is_file():
            raise ConfigError(f"submit: {words[0]}: no such script below the working directory")
        return
    import importlib

    from raydist.cli import VERBS
    from raydist.config.load import load

    verb, *rest = words
    if verb not in VERBS:
        raise ConfigError(f"submit: {verb}: unknown verb; the verbs are {', '.join(VERBS)}")
    module = importlib.import_module(f"raydist.commands.{verb}")
    if not hasattr(module, "Config"):
        raise ConfigError(f"submit: {verb} is not run on a cluster")
    load(module.Config, [w for w in rest if "=" not in w], [w for w in rest if "=" in w])


def package_files(root: Path) -> list[Path]:
    """Returns the files of the working directory that travel with a job.

    Raises:
        ConfigError: a file or the whole is too large: data is to be named by path or URI.
    """
    files = _git_files(root)
    if files is None:
        files = [
            path
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and not any(p.startswith(".") or p in _SKIP for p in path.relative_to(root).parts)
        ]
    sizes = {path: path.stat().st_size for path in files}
    for path, nbytes in sizes.items():
        if nbytes > _LARGEST_FILE:
            raise ConfigError(
                f"submit: {path.relative_to(root)} has {log.size(nbytes)}: data does not travel "
                f"with a job; put it on storage that the cluster sees, or ignore it in .gitignore"
            )
    if sum(sizes.values()) > _LARGEST_PACKAGE:
        raise ConfigError(
            f"submit: the working directory has {log.size(sum(sizes.values()))}, at most "
            f"{log.size(_LARGEST_PACKAGE)} travel with a job; ignore what it does not need"
        )
    return files


def _git_files(root: Path) -> list[Path] | None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = [root / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def _submit(address: str, entrypoint: str, what: str, root: Path, files: Sequence[Path]) -> int:
    import shutil
    import tempfile

    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise JobError(
            f"address = {address}: {str(error).splitlines()[0]}; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN, or put the cluster's token into ~/.ray/auth_token"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(
            f"address = {address}: {str(error).splitlines()[0]}; is the cluster up, its dashboard "
            f"forwarded (ray dashboard CLUSTER.yaml), and RAY_AUTH_MODE=token set if it uses one?"
        ) from error
    logging.getLogger("ray").setLevel(logging.WARNING)  # which files it packs is ours to say
    with tempfile.TemporaryDirectory(prefix="raydist-submit-") as folder:
        for path in files:
            target = Path(folder) / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        job = _send(client, address, entrypoint, what, folder)
    log.say(f"submitted {job} to {address}: {entrypoint}")
    while True:
        try:
            asyncio.run(_follow(client, job))
            break
        except KeyboardInterrupt:
            if _stop(client, job):
                break
    return _exit_code(client, job)


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
        except RuntimeError as error:
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise JobError(f"address = {address}: {str(error).splitlines()[0]}") from error
            time.sleep(1)


def _environment() -> dict[str, str]:
    """The variables that a job needs of ours: offline switches and the tracking server."""
    passed = ("HF_HUB_OFFLINE", "MLFLOW_TRACKING_URI", "RAYDIST_AUTOSCALING", "RAYDIST_STORAGE")
    found = {name: os.environ[name] for name in passed if name in os.environ}
    return {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", **found}


async def _follow(client: Any, job: str) -> None:
    """Streams the job's log; the stream can end early, so the status has the last word."""
    seen = 0
    while True:
        async for text in client.tail_job_logs(job):
            sys.stdout.write(text)
            sys.stdout.flush()
            seen += len(text)
        if client.get_job_status(job).is_terminal():
            sys.stdout.write(client.get_job_logs(job)[seen:])
            sys.stdout.flush()
            return
        await asyncio.sleep(1)


def _stop(client: Any, job: str) -> bool:
    """Asks whether the job is to be stopped; a second Ctrl-C means yes."""
    try:
        answer = input(f"\nstop {job}? [y/N] ") if sys.stdin.isatty() else "y"
    except (KeyboardInterrupt, EOFError):
        answer = "y"
    if not answer.strip().lower().startswith("y"):
        return False
    client.stop_job(job)
    log.say(f"stopping {job}")
    return True


def _exit_code(client: Any, job: str) -> int:
    deadline = time.monotonic() + 60
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > deadline:
            raise JobError(f"{job} is still {status} after a minute")
        time.sleep(0.5)
    info = client.get_job_info(job)
    code = getattr(info, "driver_exit_code", None)
    log.say(f"{job} {str(status).lower()}" + (f", exit code {code}" if code is not None else ""))
    if str(status) == "SUCCEEDED":
        return 0
    if code in (None, 0):
        log.say(info.message or "the job did not end by itself")
        return 1
    return int(code)
