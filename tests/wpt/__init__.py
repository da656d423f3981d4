"""The paths of `wpt_server.py`."""
