"""The servers, each a separate program. Its arguments end with an app and a port.

The app ``echo`` sends each message back; ``broadcast`` sends it to all clients.
"""
