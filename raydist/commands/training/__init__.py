"""What the verbs that train have in common."""
