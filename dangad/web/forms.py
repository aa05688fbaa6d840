"""Forms that change something: each a POST with a token, and nothing else changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

if TYPE_CHECKING:
    from dangad.web.layout import Scene

MOST_CANCELLED = 1000
"""Jobs that one order cancels at most."""


def form(scene: Scene, order: str, *fields: Any, **hidden: Any) -> Tag:
    """A form that gives an order.

    :param order: a name of :data:`dangad.web.actions.ORDERS`.
    :param fields: what a person fills in, and a button.
    :param hidden: further values.
    """
    pairs = {"token": scene.token, "back": scene.address.link(scene.root), **hidden}
    return tags.form(method="post", action=f"{scene.root}/do/{order}")(
        [tags.input(type="hidden", name=name, value=str(value)) for name, value in pairs.items()],
        fields,
    )


def button(scene: Scene, order: str, title: str, look: str = "", **hidden: Any) -> Tag | str:
    """A button that gives an order; nothing if the page changes nothing."""
    if not scene.token:
        return ""
    return form(scene, order, tags.button(type="submit", class_=look)(title), **hidden)


def cancel_matching(scene: Scene) -> Tag | str:
    """A button that cancels all jobs that match the filter, with a question first."""
    if not scene.token:
        return ""
    return tags.details(id="cancel-matching", **{"hx-morph-skip": ""})(
        tags.summary("Cancel all jobs that match …"),
        tags.p(
            "Jobs that run are stopped. The filter is applied again when you confirm, and the "
            f"oldest {MOST_CANCELLED:,} jobs are cancelled at most."
        ),
        button(scene, "cancel", "Cancel them", "danger", **scene.address.words),
    )
