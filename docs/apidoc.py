"""How pydoctor treats single backticks in docstrings: as code, and as a link if there is a target.

In reStructuredText they are a reference, which pydoctor wants to lead somewhere. Here they also
mark parameters, options and other libraries' names, so only a name below dangad has to exist.
"""

from typing import Any

from pydoctor import model


class System(model.System):
    """Warns of a name that leads nowhere only if it begins with `dangad.`."""

    def msg(self, section: str, msg: str, *args: Any, **options: Any) -> None:
        """Print `msg`, and count it as a warning, unless it is about a foreign name."""
        if section == "resolve_identifier_xref" and '"dangad.' not in msg:
            return
        super().msg(section, msg, *args, **options)
