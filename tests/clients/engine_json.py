"""Answers of hostile and of odd engines: hypothesis strategies and hand-written cases."""

from typing import Any, Dict, List

from hypothesis import strategies as st

NASTY_TEXTS = [
    "\x00",
    "\x1b[31mred\x1b[0m",
    "tab\tand\nline\r\nends\r",
    "\ud800 lone \udfff",
    "\ufffe\uffff\ufdd0\U0001ffff",
    "]]>",
    "]]]>>",
    "a]]>b]]>c",
    "<![CDATA[x]]>",
    "<!-- c -->",
    "<?pi?>",
    "&amp;",
    "&amp;amp;",
    "&lt;",
    "&#60;",
    "&#x0;",
    "&nosuch;",
    "<" * 5000,
    "]]>" * 2000,
    "\"'" * 1200,
    "&" * 5000,
    "</entry><entry>",
    "\u202eRTL \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f468\u200d\U0001f469",
    "\u540d\u524d \u0438\u043c\u044f \u1019",
    " \u00a0\u2003 ",
    "\ufeffbom\ufeff",
    "\x85nel\u2028sep",
    "\x7f\x80\x9f",
    "",
    "True",
    "x" * (1 << 20),
    "hasOwnProperty",
    "__proto__",
    "%CPU",
    '{"a": "b\\n"}',
]

text = st.one_of(
    st.text(st.characters(blacklist_categories=()), max_size=30),  # lone surrogates are in
    st.text(st.sampled_from("<>&;]'\"\\ \t\r\n\x00ab\ud83d\ude00\ufffe"), max_size=40),
    st.sampled_from(NASTY_TEXTS),
)
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), text)
anything = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)
# For a field that should be something else: cheaper to draw than anything at all.
odd = st.one_of(scalar, st.sampled_from([[], {}, [None], [[]], {"a": 1}, {"Status": []}, [{}], [5, "x"]]))

container_id = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
_states = "running paused restarting exited created dead removing stopping configured strange".split()
_statuses = [
    "Up 5 minutes",
    "Up 2 hours (healthy)",
    "Up 1 second (health: starting)",
    "Up 3 days (unhealthy)",
    "Up 5 minutes (Paused)",
    "Exited (0) 3 weeks ago",
    "Exited (137) 2 seconds ago",
    "Exited (-1) 1 second ago",
    "Restarting (1) 2 seconds ago",
    "Created",
    "Dead",
    "Removal In Progress",
    "",
]
port = st.fixed_dictionaries(
    {"PrivatePort": st.one_of(st.integers(0, 65535), scalar)},
    optional={
        "PublicPort": st.one_of(st.integers(1, 65535), scalar),
        "IP": st.one_of(st.sampled_from(["0.0.0.0", "::", "10.0.0.1"]), scalar),
        "Type": st.one_of(st.sampled_from(["tcp", "udp", "sctp"]), scalar),
    },
)
_LABELS = ["com.docker.compose." + name for name in ("project", "service", "container-number", "oneoff")] + [
    "com.docker.stack.namespace", "com.docker.swarm.service.name", "com.docker.swarm.task.name",
    "io.kubernetes.pod.name", "io.kubernetes.container.name", "PODMAN_SYSTEMD_UNIT"]
labels = st.dictionaries(
    st.sampled_from(_LABELS), st.one_of(text, st.sampled_from(["shop", "web", "1", "True", "shop_web.3.k5"]), odd),
    max_size=6)
container = st.fixed_dictionaries(
    {"Id": container_id},
    optional={
        "Names": st.one_of(st.lists(text.map(lambda name: "/" + name), max_size=3), odd),
        "Image": st.one_of(text, odd),
        "Command": st.one_of(text, odd),
        "Created": st.one_of(st.integers(0, 1 << 33), odd),
        "State": st.one_of(st.sampled_from(_states), odd),
        "Status": st.one_of(st.sampled_from(_statuses), odd),
        "Health": st.one_of(st.fixed_dictionaries({"Status": st.sampled_from(["healthy", "none"])}), odd),
        "Ports": st.one_of(st.lists(port, max_size=6), odd),
        "Labels": st.one_of(labels, odd),
        "StartedAt": st.one_of(st.integers(0, 1 << 33), odd),
    },
)
containers = st.lists(st.one_of(container, container, container, anything), max_size=4)


def entry(number: int, **fields: Any) -> Dict[str, Any]:
    """A usual entry of GET /containers/json."""
    plain: Dict[str, Any] = {
        "Id": f"{number:064x}",
        "Names": [f"/service-{number}"],
        "Image": "registry.example/app:1.2",
        "Command": "/entrypoint.sh serve",
        "Created": 1700000000 + number,
        "State": "running",
        "Status": "Up 5 minutes",
        "Ports": [],
    }
    plain.update(fields)
    return plain


def nasty_entries() -> List[Dict[str, Any]]:
    """Every nasty text as a name, an image, a command, a state and a status."""
    return [
        entry(n, Names=["/" + value], Image=value, Command=value, State=value, Status=value)
        for n, value in enumerate(NASTY_TEXTS)
    ]
