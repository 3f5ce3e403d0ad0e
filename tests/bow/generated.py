"""A corpus and queries that are generated the same everywhere, for which Lucene's rankings exist.

`python -m tests.bow.generated FOLDER` writes them for the programs in `tests/golden/lucene`.
"""

from __future__ import annotations

import gzip
import json
import sys
from itertools import accumulate
from pathlib import Path
from random import Random

GOLDEN = Path(__file__).parents[1] / "golden" / "lucene"
DOCUMENTS = 20_000
QUERIES = 300


def words() -> list[str]:
    """Returns words by falling frequency; the stop words among them."""
    with gzip.open(GOLDEN / "stems.tsv.gz", "rt", encoding="utf-8") as lines:
        return [line.split("\t")[0] for line in lines]


def write(folder: Path, documents: int = DOCUMENTS, queries: int = QUERIES) -> tuple[Path, Path]:
    """Writes `corpus.jsonl` and `queries.tsv` and returns their paths."""
    rng = Random(13)
    vocabulary = words()
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
    texts: list[list[str]] = []
    for _ in range(documents):
        texts.append(_document(rng, vocabulary, weights, texts))
    corpus_file, queries_file = folder / "corpus.jsonl", folder / "queries.tsv"
    with open(corpus_file, "w", encoding="utf-8") as out:
        for number, text in enumerate(texts):
            row = {"id": f"d{number}", "contents": " ".join(text)}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    lines = [f"{number}\t{_query(rng, vocabulary, texts)}\n" for number in range(queries)]
    queries_file.write_text("".join(lines), encoding="utf-8")
    return corpus_file, queries_file


def write_fields(folder: Path) -> tuple[Path, Path]:
    """Writes 800 documents with title, text and author (some of them empty), and 40 queries."""
    corpus, queries = write(folder, 800, 40)
    rows = []
    for number, line in enumerate(corpus.read_text("utf-8").splitlines()):
        words = json.loads(line)["contents"].split()
        title, author = words[: number % 6], words[6 : 6 + number % 3]
        text = words[3:] if number % 11 else []
        names = ("id", "title", "text", "author")
        rows.append(dict(zip(names, [f"d{number}", *map(" ".join, (title, text, author))])))
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return corpus, queries


def write_terms(folder: Path) -> tuple[Path, Path]:
    """Writes some 2,000 documents and 40 queries; none is of stop words alone.

    Anserini counts such documents where it learns from the best ones; an index here does not know
    them from empty ones, which Anserini leaves out.
    """
    corpus, queries = write(folder, 2000, 40)
    lines = corpus.read_text("utf-8").splitlines(keepends=True)
    corpus.write_text("".join(line for line in lines if 'the and of"}' not in line), "utf-8")
    return corpus, queries


def _document(
    rng: Random, vocabulary: list[str], weights: list[float], before: list[list[str]]
) -> list[str]:
    """Zipf's words with a topic's among them; some texts repeat, some have stop words alone."""
    draw = rng.random()
    if draw < 0.03 and before:  # equal scores
        return list(before[int(rng.random() * len(before))])
    if draw < 0.035:
        return ["the", "and", "of"]
    length = 3 + int(90 * rng.random() ** 2)
    topic = 40 + int(rng.random() * (len(vocabulary) - 60))
    text = rng.choices(vocabulary, cum_weights=weights, k=length)
    for at in range(length):
        kind = rng.random()
        if kind < 0.25:
            text[at] = vocabulary[topic + int(20 * rng.random() ** 2)]
        elif kind < 0.30:
            text[at] = text[int(rng.random() * (at + 1))]
        text[at] = _spelled(rng.random(), text[at])
    return text


def _spelled(draw: float, word: str) -> str:
    """Gives some words the capitals, punctuation and letters of real text."""
    forms = [f"{word},", f"{word}.", word.capitalize(), f"{word}'s", f"({word})", word.upper()]
    forms += [f"{word}-x", f"{word}’S", f"é{word}", f"{word}2.5"]
    at = int(draw * 60)
    return forms[at] if at < len(forms) else word


def _query(rng: Random, vocabulary: list[str], texts: list[list[str]]) -> str:
    """A few words of a document; some twice, some frequent, some that no document has."""
    text = texts[int(rng.random() * len(texts))]
    query = [text[int(rng.random() * len(text))] for _ in range(1 + int(rng.random() * 6))]
    draw = rng.random()
    if draw < 0.2:
        query.append(query[0])
    elif draw < 0.4:
        query += vocabulary[int(rng.random() * 100) :][:2]
    elif draw < 0.5:
        query += ["qqqq", "the"]
    elif draw < 0.55:  # longer than most
        query += [vocabulary[int(rng.random() * 3000)] for _ in range(25)]
    return " ".join(query)


def _main(folder: Path) -> None:
    """Writes a file each of the corpus's ids and texts, and lines of the documents with fields."""
    corpus, _ = write(folder)
    rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    for name, key in (("ids", "id"), ("texts", "contents")):
        (folder / name).write_text("".join(row[key] + "\n" for row in rows), "utf-8")
    (folder / "fields").mkdir()
    corpus, _ = write_fields(folder / "fields")
    rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    (folder / "fields" / "lines").write_text(
        "".join("\t".join(row.values()) + "\n" for row in rows), "utf-8"
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
