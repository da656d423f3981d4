"""The examples in a browser."""
