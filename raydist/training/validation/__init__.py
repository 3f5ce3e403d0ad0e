"""Validation from inside training: listeners steer a run by real retrieval measures.

`listener` evaluates every so many steps, keeps the best checkpoints and votes for stopping;
`retrieval` uses the model as it is now; `decisions` is the arithmetic; `files` writes:

    FOLDER/ID/info.json        best value and step per measure
    FOLDER/ID/history.jsonl    a line per evaluation
    FOLDER/ID/per_query/       a Parquet table per evaluation
    FOLDER/ID/best/MEASURE/    the checkpoint that was best, with settings.json
    FOLDER/ID/runs/, figures/  how start, best and end compare

`build` makes listeners of specs.
"""
