"""Servers over loopback, all under the same load."""
