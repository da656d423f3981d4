"""Hostile bytes: random, sent to server and client, and judged by one checker."""
