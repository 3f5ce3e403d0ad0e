"""Rerankers: BM25, cross-encoders, Qwen3, bi-encoders, and the engine that scores in batches.

====================  ==========================================================================
`apply`               `rerank(run, reranker, store, queries)`, written once for all of them
`bm25`                BM25Reranker, without torch
`cross_encoder`       CrossEncoder: sequence-classification models (`packed`: without padding)
`qwen3`               Qwen3Reranker (`prompt`: its text as ids, `prefix`: shared keys and values,
                      `released`: what the released models were trained with)
`biencoder`           scores as dot products of vectors
`engine`              requests to micro-batches (`pool`: who comes next, `rows`: what is scored)
====================  ==========================================================================

Importing this package imports none of them.
"""
