"""The Autobahn TestSuite against our echo server and our echo client: see README."""
