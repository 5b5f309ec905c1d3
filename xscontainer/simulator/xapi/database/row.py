"""One record of the database, with a cache of its encoded forms."""

import threading
from typing import Any, Dict, Optional

from xscontainer.simulator.xapi.database.datamodel import Class
from xscontainer.simulator.xapi.wire.encode import json_member, xml_member


class Row:
    """One record; `values` is read only outside this module and its sets and maps are never changed in place.

    The encoded record is cached, unless a field was set during the encoding.
    """

    __slots__ = ("cls", "ref", "values", "created", "modified", "_edition", "_pieces", "_xml", "_json")
    _keeping = threading.Lock()  # one for all rows: it is held only briefly

    def __init__(self, cls: Class, ref: str, values: Dict[str, Any]) -> None:
        self.cls = cls
        self.ref = ref
        self.values = values
        self.created = 0
        self.modified = 0
        self._edition = 0
        self._pieces: Optional[Dict[str, str]] = None
        self._xml: Optional[str] = None
        self._json: Optional[str] = None

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    def put(self, field: str, value: Any) -> None:
        """Set a field and update the cache; the database calls this under its lock."""
        piece = xml_member(field, value) if self._pieces is not None else ""
        with self._keeping:
            self.values[field] = value
            self._edition += 1
            self._xml = self._json = None
            if self._pieces is not None and piece:
                self._pieces[field] = piece
            else:
                self._pieces = None

    def xml(self) -> str:
        """Return the record as an XML-RPC value."""
        with self._keeping:
            text, pieces, edition = self._xml, self._pieces, self._edition
        if text is None:
            if pieces is None:
                pieces = {k: xml_member(k, v) for k, v in self.values.items()}
            text = "<value><struct>" + "".join(pieces.values()) + "</struct></value>"
            with self._keeping:
                if edition == self._edition:
                    self._xml, self._pieces = text, pieces
        return text

    def json(self) -> str:
        """Return the record as a JSON object."""
        with self._keeping:
            text, edition = self._json, self._edition
        if text is None:
            text = "{" + ",".join([json_member(k, v) for k, v in self.values.items()]) + "}"
            with self._keeping:
                if edition == self._edition:
                    self._json = text
        return text
