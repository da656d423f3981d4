"""WebSockets of Cloudflare's Durable Objects, recorded and compared: see README."""
