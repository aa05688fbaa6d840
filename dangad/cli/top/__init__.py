"""``dangad top``: a server on a full screen, live, and what an operator does about it.

- :mod:`.command`: the subcommand. Only from here on textual is imported, which is an extra.
- :mod:`.app`: the screen, its keys, and what each key does. :mod:`.dialogs` has what lies on top of
  it, and :mod:`.table` the table that fills most of it.
- :mod:`.server`: asks the server over the control endpoint, and connects again.
- :mod:`.news`: what is asked each second, and only as much as is shown.
- :mod:`.views`: the views that the table can have, with their columns and sort orders.
- :mod:`.summary`: the lines above the table. :mod:`.history`: the curves of the last minutes.
- :mod:`.guard`: what happens when an answer cannot be shown.
- :mod:`.filterline`: the line in which an operator says which jobs are meant.

All texts of peers are escaped by :func:`~dangad.text.printable`, and none is read as markup.
"""
