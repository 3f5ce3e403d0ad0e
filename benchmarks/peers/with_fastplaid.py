"""fast-plaid: `with_fastplaid.py VECTORS INDEX BITS` builds an index, or searches one.

Where there is no index it builds one, prints a line of JSON, and ends. Else it answers each line of
JSON with settings that it reads: the seconds, and the documents of each query.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(vectors: Path, index: str, bits: int) -> None:
    import numpy as np
    import torch
    from fast_plaid import search

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    built = Path(index).exists()
    engine = search.FastPlaid(index=index, device="cpu")
    if not built:
        rows = torch.from_numpy(np.load(vectors / "documents.npy").astype(np.float32))
        lengths = np.load(vectors / "lengths.npy").tolist()
        started = time.perf_counter()
        engine.create(documents_embeddings=list(rows.split(lengths)), nbits=bits)
        seconds = time.perf_counter() - started
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)
        return
    queries = torch.from_numpy(np.load(vectors / "queries.npy"))
    engine.search(queries[:4], top_k=10, show_progress=False)
    print("{}", flush=True)
    for line in sys.stdin:
        settings = json.loads(line)
        started = time.perf_counter()
        found = engine.search(queries, top_k=10, show_progress=False, **settings)
        seconds = time.perf_counter() - started
        answer = [[int(document) for document, _ in each] for each in found]
        print(json.dumps({"seconds": seconds, "found": answer}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
