"""One module per file format: each yields tables of documents, or queries, judgements and runs."""
