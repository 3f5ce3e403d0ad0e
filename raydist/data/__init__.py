"""Readers, text formats, id lists, processors, the document store and training samples."""
