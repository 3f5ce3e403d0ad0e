"""The configurations of the verbs as typed models; for the edge alone."""
