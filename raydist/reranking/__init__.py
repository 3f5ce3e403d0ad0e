"""Rerankers: BM25, cross-encoders, Qwen3, bi-encoders, and the engine that scores in batches.

====================  ==========================================================================
`spec`, `load`        what can be set of a reranker, and `load_reranker(spec)`
`apply`               `rerank(run, reranker, store, queries)`, written once for all of them
`bm25`                BM25Reranker, without torch
`cross_encoder`       CrossEncoder: sequence-classification models (`classifier`: padded or end to
                      end; `packed_encoder`: BERT's relatives end to end)
`qwen3`               Qwen3Reranker (`decoder`: padded or end to end; `packed_model`, and on CPUs
                      `packed_decoder`: end to end; `prefix`: shared keys and values)
`neural`, `trial`     what rerankers with a model share; whether one takes rows end to end
`biencoder`           scores as dot products of vectors
`engine`              a query and its documents to rows, logits to scores (`rows`: the types)
`batcher`             the micro-batcher of reranking and embedding (`request`: what it works on;
                      `queue`: who comes next)
====================  ==========================================================================

Importing this package imports none of them.
"""
