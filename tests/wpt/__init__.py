"""The handlers of `wpt_server.py`."""
