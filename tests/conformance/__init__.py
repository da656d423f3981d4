"""Compares this library with recordings of Cloudflare's runtime: see README.md."""
