"""The servers, each a program of its own: it is given what to do and the port.

``echo`` answers each message with itself; ``broadcast`` passes it on to everybody.
"""
