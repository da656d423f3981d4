"""Hostile bytes: made at random, sent to both sides, and judged by one checker."""
