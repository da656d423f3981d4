"""Recordings of Cloudflare's runtime, compared with this library: see README."""
