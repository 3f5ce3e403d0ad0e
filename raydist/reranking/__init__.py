"""Rerankers: BM25, cross-encoders, Qwen3, bi-encoders, and the engine that scores in batches.

====================  ==========================================================================
`spec`, `load`        what can be set of a reranker, and `load_reranker(spec)`
`apply`               `rerank(run, reranker, store, queries)`, written once for all of them
`bm25`                BM25Reranker, without torch
`cross_encoder`       CrossEncoder: sequence-classification models (`packed_encoder`: no padding)
`qwen3`               Qwen3Reranker (`prefix`: shared keys and values, `packed_decoder`: no padding)
`biencoder`           scores as dot products of vectors
`engine`              a query and its documents to rows, logits to scores (`rows`: the types)
`batcher`             the micro-batcher of reranking and embedding (`request`: what it works on;
                      `queue`: who comes next)
`device`              devices, precisions, budgets
====================  ==========================================================================

Importing this package imports none of them.
"""
