"""Outputs on object stores: published one generation at a time, read from copies of exactly one."""
