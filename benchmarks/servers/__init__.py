"""The servers, each a program of its own: it is given what to do and the port.

``echo`` answers each message with itself; ``broadcast`` sends it to all clients.
"""
