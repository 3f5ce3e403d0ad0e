"""Parts of the submit verb."""
