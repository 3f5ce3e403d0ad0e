"""Runs a verb, a pipeline or a script as a Ray job and returns its exit code.

    raydist submit index corpus=s3://bucket/corpus.jsonl out=s3://bucket/idx workers=8
    raydist submit pipeline FILE storage=/mnt/raydist address=http://127.0.0.1:8265
    raydist submit script.py WORD...

A verb's configuration is checked here first. The files that git would commit travel with the job
(without git, all but hidden files and outputs). Other data does not: name it by an absolute path or
a URI that the cluster sees; outputs go below `storage=`. The log is streamed; Ctrl-C asks, then
stops the job. The address is also read from RAY_API_SERVER_ADDRESS, a token from Ray's own
variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import importlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from raydist import log
from raydist.commands import check_flags, check_verb
from raydist.errors import ConfigError, JobError
from raydist.evaluation.secrets import has_password
from raydist.job_server import connect, read_log

FLAGS = ("--dry-run", "--resume", "--append")

T = TypeVar("T")

_DEFAULT = "http://127.0.0.1:8265"
_LARGEST_FILE = 10 << 20
_LARGEST_PACKAGE = 100 << 20
_SKIP = {"__pycache__", "venv", "node_modules", "out", "build", "dist", "mlruns"}
_STOP_S = 60.0  # that a job may take to stop
_LOG_S = 10.0  # that its log may be away while its status is not


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
    named = _check(rest, flags_for_job(flags))
    root = Path.cwd()
    files = package_files(root)
    check_travels(named, root, files)
    program = ["python"] if _is_script(rest[0]) else ["python", "-m", "raydist"]
    entrypoint = shlex.join([*program, *rest, *flags_for_job(flags)])
    if "--dry-run" in flags:
        nbytes = sum(f.stat().st_size for f in files)
        log.say(f"would submit to {address}: {entrypoint}")
        log.say(f"would send {log.count(len(files), 'file')} of {root}, {log.size(nbytes)}")
        return 0
    return _submit(address, entrypoint, rest[0], root, files)


def flags_for_job(flags: Sequence[str]) -> list[str]:
    """Returns the flags that are passed on to the job."""
    return [flag for flag in flags if flag in ("--resume", "--append")]


def _is_script(word: str) -> bool:
    return word.endswith(".py")


def _check(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Validates the verb, its configuration and flags; returns what the job reads.

    That is the files that configure it and, of a verb, its inputs.
    """
    for word in words:
        check_utf8(word)
    verb, *rest = words
    files = [word for word in rest if "=" not in word]
    if _is_script(verb):
        if not Path(verb).is_file():
            raise ConfigError(f"submit: {verb}: no such script below the working directory")
        return [verb, *(word for word in files if Path(word).is_file())]
    check_verb(verb)
    module = importlib.import_module(f"raydist.commands.{verb}")
    if verb != "pipeline" and not hasattr(module, "Config"):
        raise ConfigError(f"submit: {verb} is not run on a cluster")
    check_flags(module, flags)
    if verb == "pipeline":
        return _pipeline_inputs(rest)
    from raydist.config.load import load, split_words

    configs, arguments = split_words(module.Config, rest)
    config = load(module.Config, configs, arguments)
    return [*(file for file in configs if isinstance(file, str)), *_inputs(config)]


def _inputs(config: Any) -> list[str]:
    """Returns what a verb reads that can only come from the working directory."""
    from raydist.config.inputs import find_inputs

    inputs = find_inputs(config)
    return [path for each in inputs for path in each.paths if _must_travel(path, each.kind)]


def _pipeline_inputs(words: Sequence[str]) -> list[str]:
    """Returns a pipeline's file, and what its stages read beside each other's outputs."""
    from raydist.commands.pipeline import output, parse

    file, plan = parse(words)
    configs = [config for _, config in plan.stages.values()]
    own = [str(plan.out), *filter(None, map(output, configs))]
    paths = [path for config in configs for path in _inputs(config)]
    return [file, *(p for p in paths if not any(f"{p}/".startswith(f"{o}/") for o in own))]


def _must_travel(path: str, kind: str) -> bool:
    """Returns whether an input can only come from the working directory.

    An absolute path or a URI may be on storage that the cluster sees, and a model may be one by
    name.
    """
    named = ":" in path and not os.path.exists(path)  # URIs, docstrings:, irds:, package:
    if named or os.path.isabs(os.path.expanduser(path)):
        return False
    return kind != "model" or path.startswith(".") or path.count("/") > 1 or os.path.exists(path)


def check_utf8(name: str) -> None:
    """Raises ConfigError for a name that Ray cannot send."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"submit: {os.fsencode(name)!r}: is not UTF-8, and cannot travel with a job; rename "
            "it, or put it into .gitignore"
        ) from error


def _submit(address: str, entrypoint: str, what: str, root: Path, files: Sequence[Path]) -> int:
    client = connect(address)
    job = submit_files(client, address, entrypoint, what, root, files)
    log.say(f"submitted {job} to {address} with {log.count(len(files), 'file')}: {entrypoint}")
    return Follower(client, job).exit_code()


def submit_files(
    client: Any, address: str, entrypoint: str, what: str, root: Path, files: Sequence[Path]
) -> str:
    """Submits a job with these files of the working directory alone; returns its id.

    Raises:
        JobError: the cluster refuses.
    """
    logging.getLogger("ray").setLevel(logging.WARNING)  # it would report the files a second time
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # git has chosen them already
    with tempfile.TemporaryDirectory(prefix="raydist-submit-") as folder:
        for path in files:
            target = Path(folder) / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        return _send(client, address, entrypoint, what, folder)


def _send(client: Any, address: str, entrypoint: str, what: str, folder: str) -> str:
    """Submits a job; waits a minute for a cluster that has just started."""
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
    """Returns the variables that a job inherits: offline switches and the tracking server."""
    inherited = ("HF_HUB_OFFLINE", "MLFLOW_TRACKING_URI", "RAYDIST_AUTOSCALING", "RAYDIST_STORAGE")
    own = {name: os.environ[name] for name in inherited if name in os.environ}
    if has_password(own.get("MLFLOW_TRACKING_URI", "")):
        raise ConfigError(
            "submit: MLFLOW_TRACKING_URI holds a password, and Ray's dashboard shows what travels "
            "with a job; set it without one, and MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD on the cluster's nodes"
        )
    return {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", **own}


def package_files(root: Path) -> list[Path]:
    """Returns the files of the working directory that travel with a job.

    Raises:
        ConfigError: a file, or all together, are too large.
    """
    files = _git_files(root)
    if files is None:
        files = [
            path
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and not any(p.startswith(".") or p in _SKIP for p in path.relative_to(root).parts)
        ]
    for path in files:
        check_utf8(str(path.relative_to(root)))
    sizes = {path: path.stat().st_size for path in files}
    for path, nbytes in sizes.items():
        if nbytes > _LARGEST_FILE:
            raise ConfigError(
                f"submit: {path.relative_to(root)} has {log.size(nbytes)}: data does not travel "
                "with a job; put it on storage that the cluster sees, or into .gitignore"
            )
    if sum(sizes.values()) > _LARGEST_PACKAGE:
        raise ConfigError(
            f"submit: the working directory has {log.size(sum(sizes.values()))}, of which at most "
            f"{log.size(_LARGEST_PACKAGE)} travel with a job; put what it does not need into "
            ".gitignore"
        )
    return files


def check_travels(names: Sequence[str], root: Path, files: Sequence[Path]) -> None:
    """Raises ConfigError for a name that the job would not find in its own working directory.

    Of a folder or pattern every file has to travel, but for hidden ones.
    """
    travelling = set(files)
    for name in names:
        there = _files_of(root, name)
        if os.path.isabs(name) or not there or not travelling.issuperset(there):
            raise ConfigError(
                f"submit: {name}: does not travel with the job: expected a relative path to a file "
                f"in the working directory {root} that git does not ignore, or, for data, a path "
                "or URI that the cluster sees"
            )


def _files_of(root: Path, name: str) -> set[Path]:
    """Returns the files that a path, folder or pattern stands for."""
    paths = (
        [root / name]
        if (root / name).exists()
        else list(map(Path, glob.glob(str(root / name), recursive=True)))
    )
    files: set[Path] = set()
    for path in (Path(os.path.normpath(each)) for each in paths):
        below = [path] if path.is_file() else path.rglob("*")
        files.update(
            each
            for each in below
            if each.is_file() and not any(p.startswith(".") for p in each.relative_to(path).parts)
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


class Follower:
    """Prints a job's log until the job has ended.

    Neither the log's stream nor the way to the cluster is reliable: a stream ends early or breaks,
    a forwarded port is gone for a while. So the status alone says when a job has ended, every
    question is repeated until it is answered, and the printed characters of the log are counted:
    each stream begins at the log's first character.

    Attributes:
        client: what talks to the cluster, a `JobSubmissionClient`.
        job: the submission's id.
        patience_s: how long to wait for an answer of the cluster.
    """

    def __init__(self, client: Any, job: str, patience_s: float = 120.0) -> None:
        self.client = client
        self.job = job
        self.patience_s = patience_s
        self._printed = 0  # characters of the log

    def exit_code(self) -> int:
        """Follows the job and returns its exit code; Ctrl-C asks whether to stop it.

        Raises:
            JobError: the cluster no longer answers, or the job does not stop.
        """
        while True:
            try:
                self._follow()
                break
            except KeyboardInterrupt:
                if _wants_to_stop(self.job):
                    self._stop()
                    break
        info = self._answer(self.client.get_job_info)
        code, status = info.driver_exit_code, str(info.status)
        suffix = "" if code is None else f", exit code {code}"
        log.say(f"{self.job} {status.lower()}{suffix}")
        if status == "SUCCEEDED":
            return 0
        if code in (None, 0):
            log.say(info.message or "the job did not end by itself")
            return 1
        return int(code)

    def _follow(self) -> None:
        """Prints the log as it grows, until the status says that the job has ended."""
        while True:
            with contextlib.suppress(*_failures()):
                asyncio.run(self._stream())
            ended = self._answer(self.client.get_job_status).is_terminal()
            self._print_rest()
            if ended:
                return
            time.sleep(1)

    async def _stream(self) -> None:
        end = 0
        async for text in self.client.tail_job_logs(self.job):
            end += len(text)
            self._print(text, end)

    def _print_rest(self) -> None:
        """Prints the new part of the log; what the log's server refuses ends nothing."""
        patience_s = min(self.patience_s, _LOG_S)
        for _ in range(2):
            try:
                whole = self._answer(partial(read_log, self.client), patience_s)
            except JobError as error:
                reason = str(error.__cause__).partition("\n")[0]
                self._answer(self.client.get_job_status)  # the cluster was away, and is back
            else:
                self._print(whole, len(whole))
                return
        log.warn(f"{self.job}: its log cannot be read now: {reason}")

    def _print(self, text: str, end: int) -> None:
        """Prints the new part of a text that ends at character `end` of the log."""
        if end > self._printed:
            sys.stdout.write(text[self._printed - end :])
            sys.stdout.flush()
            self._printed = end

    def _answer(self, ask: Callable[[str], T], patience_s: float | None = None) -> T:
        """Returns the cluster's answer about the job, asking again while there is none."""
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        while True:
            try:
                return ask(self.job)
            except _failures() as error:
                if time.monotonic() > deadline:
                    reason = str(error).partition("\n")[0] or type(error).__name__
                    raise JobError(
                        f"{self.job}: the cluster does not answer: {reason}; the job may still be "
                        f"running: ray job status {self.job}"
                    ) from error
                time.sleep(1)

    def _stop(self) -> None:
        self._answer(self.client.stop_job)
        log.say(f"stopping {self.job}")
        deadline = time.monotonic() + _STOP_S
        while not (status := self._answer(self.client.get_job_status)).is_terminal():
            if time.monotonic() > deadline:
                raise JobError(f"{self.job} is still {status} after a minute")
            time.sleep(0.5)
        self._print_rest()


def _failures() -> tuple[type[Exception], ...]:
    """Returns what Ray's client raises when the cluster cannot be reached."""
    import aiohttp

    return RuntimeError, OSError, aiohttp.ClientError


def _wants_to_stop(job: str) -> bool:
    """Asks whether to stop the job; a second Ctrl-C means yes."""
    try:
        answer = input(f"\nstop {job}? [y/N] ") if sys.stdin.isatty() else "y"
    except (KeyboardInterrupt, EOFError):
        answer = "y"
    return answer.strip().lower().startswith("y")
