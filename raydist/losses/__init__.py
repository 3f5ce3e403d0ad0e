"""Loss functions: pure functions of scores or embeddings that return a sum and a count."""
