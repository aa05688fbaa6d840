"""What operators and service managers see of the server, and do to it.

- :mod:`.control`: the endpoint where operators connect.
- :mod:`.view`: what they may see and do, a view over all parts.
- :mod:`.systemd`: what a service manager is told.
"""
