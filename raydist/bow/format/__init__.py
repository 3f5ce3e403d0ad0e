"""The index on disk: postings, dictionaries, segments."""
