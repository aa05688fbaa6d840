"""How operators and service managers watch the server and control it.

- :mod:`.control`: the control endpoint, where operators connect.
- :mod:`.view`: the operations that it offers, over all parts of the server.
- :mod:`.rates`: what was done in the last minutes. :mod:`.events`: what those who watch are told.
- :mod:`.handcalls`: jobs that operators call from the page.
- :mod:`.systemd`: notifications to a service manager.
"""
