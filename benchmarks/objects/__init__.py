"""Durable Objects, awake and asleep."""
