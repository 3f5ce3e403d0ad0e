"""The configuration of each verb as typed models; imported by the edge, never by the library."""
