"""What Cloudflare's runtime does, and the means to compare it with ours: see README."""
