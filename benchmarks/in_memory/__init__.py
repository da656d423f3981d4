"""Pairs inside one process, beside raw Trio memory channels and workerd's own pairs."""
