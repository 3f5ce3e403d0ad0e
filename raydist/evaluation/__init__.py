"""Measures, significance, figures and the tracking of runs."""
