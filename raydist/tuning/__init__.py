"""Tuning: training runs of drawn configurations, compared by validation, the worst stopped."""
