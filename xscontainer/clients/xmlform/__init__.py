"""The documents that clients read from other_config and from plugin results.

XenCenter parses them with .NET's XmlDocument and ends on an ill-formed one; Xen
Orchestra uses fast-xml-parser, and a VM whose document it refuses disappears.
Hence, in every document made here:

* Characters that XML 1.0 forbids, and Unicode's non-characters, become U+FFFD:
  XAPI cuts a stored string at the first of them. So do C1 controls and the marks
  that turn the direction of writing around: a reader cannot see them.
* Text is escaped once, and as little as possible: ``&``, ``<``, and ``>`` only
  in ``]]>``. fast-xml-parser 4.5 refuses the 1001st of ``&lt; &gt; &quot; &apos;``
  in a document, so in documents that Xen Orchestra reads such characters turn into
  look-alikes beyond a budget. Plugin results are read by XenCenter, which has no limit.
* No CDATA, comments, processing instructions or namespaces; attributes only on
  SPECIAL_XS_ENCODED_ELEMENT.
* XenCenter looks up ``entry``, ``Process``, ``docker_info`` and
  ``docker_version`` in the whole document, so only what they name is called so.
"""

from xscontainer.clients.xmlform.facts import docker_info, docker_version, info_fields, version_fields
from xscontainer.clients.xmlform.listing import STARTABLE, VALUE_LIMIT, Document, docker_ps
from xscontainer.clients.xmlform.reading import read_docker_ps
from xscontainer.clients.xmlform.results import (
    COLUMN_LIMIT,
    DEPTH_LIMIT,
    RESULT_LIMIT,
    ROW_LIMIT,
    TAKEN,
    VALUE_CHARACTERS,
    inspect_result,
    top_result,
)
from xscontainer.clients.xmlform.twin import as_json
from xscontainer.clients.xmlform.writer import DECLARATION, ENTITY_BUDGET

__all__ = [
    "COLUMN_LIMIT", "DECLARATION", "DEPTH_LIMIT", "Document", "ENTITY_BUDGET", "RESULT_LIMIT", "ROW_LIMIT", "STARTABLE",
    "TAKEN", "VALUE_CHARACTERS", "VALUE_LIMIT", "as_json", "docker_info", "docker_ps", "docker_version", "info_fields",
    "inspect_result", "read_docker_ps", "top_result", "version_fields",
]
