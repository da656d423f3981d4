"""What Cloudflare's Durable Objects do with WebSockets: see README."""
