"""Parts of the search verb."""
