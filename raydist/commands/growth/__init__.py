"""Outputs that grow: what the verbs that write them do alike."""
