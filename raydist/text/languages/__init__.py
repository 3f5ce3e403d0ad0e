"""Languages as Lucene 9.9 analyses them: what is done to a word after it was cut out of a text."""
