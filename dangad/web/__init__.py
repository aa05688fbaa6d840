"""The page for operators, metrics and health, over HTTP. Imported only with ``--web``.

It knows the server by :class:`dangad.operators.interfaces.IOperations` alone.

- :mod:`.settings`: the operator's choices. It imports nothing of Twisted.
- :mod:`.website`: the connections. :mod:`.routes`: which path leads where. :mod:`.replies`: the
  answers, with the headers and the checks that protect the page.
- :mod:`.address`: filters, orders and parts of lists, as they are in an address.
- :mod:`.layout`: the frame of every page. :mod:`.parts`: tables, badges and the like.
- :mod:`.overview`, :mod:`.jobviews`, :mod:`.timeline`, :mod:`.otherviews`: the pages themselves.
- :mod:`.live`: keeps open pages up to date. :mod:`.history`: the samples behind the curves.
- :mod:`.forms`, :mod:`.actions`: orders, with ``--web-actions``.
- :mod:`.callviews`, :mod:`.callforms`, :mod:`.calllines`: jobs that are called by hand, too.
- :mod:`.metrics`, :mod:`.scrapes`: for Prometheus. :mod:`.health`: for load balancers.

``static/`` has the files for browsers. htmx, its extension for server-sent events, and uPlot are
there as their authors published them.
"""
