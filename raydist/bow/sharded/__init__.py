"""Search of an index whose segments are opened in several places."""
