"""Structured queries: the syntax of Lucene's classic query parser, phrases, boolean queries."""
