"""Keys and values of rows that come and go: each row has a place in a buffer with room to grow.

transformers' cache grows by copying all of itself at every token, and again whenever a row leaves.
Here a step writes one column, a row that leaves has its place taken by the last row, and new rows
are written beside those that are there. What no row uses any more is masked, so its content does
not matter as long as it is finite: buffers begin with zeros.
"""

from __future__ import annotations

from typing import Any

ROOM = 32  # columns to grow into, each time the buffer is laid out anew


class Places:
    """Keys and values of one layer of a cache, which is shown a view of them.

    Rows end in the same column; `start` is the first column that some row uses.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.rows, _, width, _ = layer.keys.shape
        self.start, self.end = 0, width
        self._keys, self._values = layer.keys, layer.values
        self._lay_out(self.rows, width)
        layer.update = self.update

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Add columns at the end of each row, as a cache layer's `update` does.

        Args:
            keys, values: (rows, heads, columns, size).
        """
        end = self.end + keys.shape[2]
        if end > self._keys.shape[2]:
            self._lay_out(self.rows, self.end - self.start, keys.shape[2])
            end = self.end + keys.shape[2]
        self._keys[: self.rows, :, self.end : end] = keys
        self._values[: self.rows, :, self.end : end] = values
        self.end = end
        return self._show()

    def join(self, keys: Any, values: Any) -> None:
        """Add rows after those that are there; shorter ones begin in a later column."""
        count, _, width, _ = keys.shape
        rows = self.rows + count
        if rows > self._keys.shape[0] or width > self.end:
            self._lay_out(rows, max(width, self.end - self.start))
        self._keys[self.rows : rows, :, self.end - width : self.end] = keys
        self._values[self.rows : rows, :, self.end - width : self.end] = values
        self.rows, self.start = rows, min(self.start, self.end - width)
        self._show()

    def keep(self, order: list[int]) -> None:
        """Let rows go: place `i` then holds the row that was at `order[i]`, itself or a later."""
        for place, row in enumerate(order):
            if place != row:
                self._keys[place] = self._keys[row]
                self._values[place] = self._values[row]
        self.rows = len(order)
        self._show()

    def drop(self, columns: int) -> None:
        """Forget the first columns."""
        self.start += columns
        self._show()

    def _lay_out(self, rows: int, width: int, more: int = 0) -> None:
        """Copy what is used to a buffer of `rows`, in which it ends at column `width`."""
        used = slice(width - (self.end - self.start), width)
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_zeros(rows, old.shape[1], width + more + ROOM, old.shape[3])
            new[: self.rows, :, used] = old[: self.rows, :, self.start : self.end]
            setattr(self, name, new)
        self.start, self.end = used.start, width
        self._show()

    def _show(self) -> tuple[Any, Any]:
        seen = slice(0, self.rows), slice(None), slice(self.start, self.end)
        self.layer.keys, self.layer.values = self._keys[seen], self._values[seen]
        return self.layer.keys, self.layer.values


def closed_up(places: list[int]) -> list[int]:
    """Return `places` in an order in which as many as can stay where they are.

    The last of those that stay take the places of those that go.
    """
    count = len(places)
    later = [place for place in places if place >= count]
    staying = {place for place in places if place < count}
    return [place if place in staying else later.pop() for place in range(count)]
