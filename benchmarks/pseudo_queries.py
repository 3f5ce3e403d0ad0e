"""Queries made from passages: `python -m benchmarks.pseudo_queries corpus=FILE out=FILE`.

Each is two to four neighbouring content words of one sentence, every second one in the form of a
question. They need no judge and no language model: a teacher that ranks passages for them shows a
cross-encoder what it is to compare a query with a passage.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

from benchmarks.report import arguments
from raydist.data.readers import read_documents

DEFAULTS = {"corpus": "", "out": "", "count": 800, "seed": 0}
FORMS = ("what is {}", "what are {}", "define {}", "{} definition", "how does {}", "causes of {}")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+|\d+")
_END = re.compile(r"(?<=[.!?])\s+")
_COMMON = 0.08  # words of more than this share of the passages are no content


def write_queries(corpus: str | Path, out: str | Path, *, count: int = 800, seed: int = 0) -> None:
    """Writes `count` queries as jsonl, each from another passage."""
    texts = [text for table in read_documents(corpus) for text in table["text"].to_pylist()]
    words = [{word.lower() for word in _WORD.findall(text)} for text in texts]
    frequency = Counter(word for each in words for word in each)
    content = {w for w, n in frequency.items() if 2 <= n <= _COMMON * len(texts)}
    draw = random.Random(seed)
    draw.shuffle(texts)
    queries: dict[str, None] = {}
    for text in texts:
        if len(queries) == count:
            break
        sentences = [s for s in _END.split(text) if 5 <= len(s.split()) <= 40]
        if not sentences:
            continue
        terms = [w.lower() for w in _WORD.findall(draw.choice(sentences))]
        terms = [w for w in dict.fromkeys(terms) if w in content]
        if len(terms) < 2:
            continue
        size = draw.randint(2, min(4, len(terms)))
        first = draw.randrange(len(terms) - size + 1)
        phrase = " ".join(terms[first : first + size])
        queries[draw.choice(FORMS).format(phrase) if draw.random() < 0.5 else phrase] = None
    lines = [json.dumps({"id": f"p{i}", "text": query}) for i, query in enumerate(queries)]
    Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    options = arguments(DEFAULTS)
    write_queries(options["corpus"], options["out"], count=options["count"], seed=options["seed"])
