"""Make the simulator's run-time data model and the compact recordings.

usage: extract.py DATA_DIR   (holding xenapi.json and xapi-26.1.4/*.json)

Writes xscontainer/simulator/xapi/database/datamodel.json, and beside this file xenapi.json.gz (the published model
without its texts) and steps.json.gz. Only needed when XAPI's published data model or the recordings change; the
results are kept in the repository.

The published model lacks what xapi 26.1.4 has beyond it (VM_group, VM.call_host_plugin, some fields): that is
taken from the recorded list of methods, the recorded permissions and records, and SUPPLEMENT below.
"""

import ast
import gzip
import json
import os
import re
import sys
from typing import Any, Dict, List, Optional

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
RECORDINGS = (
    "session",
    "records",
    "errors",
    "other_config",
    "events",
    "events_more",
    "plugins",
    "plugins_more",
    "messages_tasks_secrets",
)
ROLES = ("pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only")
MAP = "(string -> string) map"

# Fields of xapi 26.1.4 that the published model does not have: class -> (name, type, default).
SUPPLEMENT: Dict[str, List[Any]] = {
    "VM": [("groups", "VM_group ref set", [])],
    "VM_guest_metrics": [("netbios_name", MAP, {}), ("services", MAP, {})],
    "Certificate": [("fingerprint_sha256", "string", ""), ("fingerprint_sha1", "string", "")],
    "Cluster": [("cluster_stack_version", "int", 2), ("expected_hosts", "host ref set", [])],
    "PCI": [
        ("class_id", "string", ""),
        ("vendor_id", "string", ""),
        ("device_id", "string", ""),
        ("subsystem_vendor_id", "string", ""),
        ("subsystem_device_id", "string", ""),
    ],
    "Repository": [("origin", "string", "remote"), ("certificate", "string", "")],
    "host": [
        ("ssh_enabled", "bool", True),
        ("ssh_enabled_timeout", "int", 0),
        ("ssh_expiry", "datetime", "19700101T00:00:00Z"),
        ("console_idle_timeout", "int", 0),
        ("ssh_auto_mode", "bool", True),
        ("max_cstate", "string", ""),
        ("secure_boot", "bool", False),
        ("ntp_mode", "string", "Factory"),
        ("ntp_custom_servers", "string set", []),
        ("timezone", "string", "UTC"),
    ],
    "pool": [
        ("ext_auth_cache_enabled", "bool", False),
        ("ext_auth_cache_size", "int", 50),
        ("ext_auth_cache_expiry", "int", 300),
        ("recommendations", MAP, {}),
        ("license_server", MAP, {}),
        ("ha_reboot_vm_on_internal_shutdown", "bool", True),
        ("limit_console_sessions", "bool", False),
        ("vm_console_idle_timeout", "int", 0),
    ],
    "VM_group": [
        ("uuid", "string", ""),
        ("name_label", "string", ""),
        ("name_description", "string", ""),
        ("placement", "string", "normal"),
        ("VMs", "VM ref set", []),
    ],
    "Host_driver": [
        ("uuid", "string", ""),
        ("host", "host ref", "OpaqueRef:NULL"),
        ("name", "string", ""),
        ("friendly_name", "string", ""),
        ("variants", "Driver_variant ref set", []),
        ("active_variant", "Driver_variant ref", "OpaqueRef:NULL"),
        ("selected_variant", "Driver_variant ref", "OpaqueRef:NULL"),
        ("type", "string", ""),
        ("description", "string", ""),
        ("info", "string", ""),
    ],
    "Driver_variant": [
        ("uuid", "string", ""),
        ("name", "string", ""),
        ("driver", "Host_driver ref", "OpaqueRef:NULL"),
        ("version", "string", ""),
        ("hardware_present", "bool", False),
        ("priority", "float", 0.0),
        ("status", "string", ""),
    ],
    "Diagnostics": [],
}
# Parameters (after the session) and result of methods that the published model does not have.
METHODS = {
    "VM.call_host_plugin": ([["vm", "VM ref"], ["plugin", "string"], ["fn", "string"], ["args", MAP]], "string"),
    "secret.introduce": ([["uuid", "string"], ["value", "string"], ["other_config", MAP]], "secret ref"),
    "VM.atomic_set_resident_on": ([["vm", "VM ref"], ["host", "host ref"]], "void"),
}


def load(path: str) -> Any:
    """Parse a JSON file."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def default_of(field: Dict[str, Any]) -> Any:
    """Return the default of a published field as a JSON value, None where there is none."""
    text, kind = field.get("default"), field["type"]
    if text is None or kind.endswith("option"):
        return None
    if kind.endswith(" ref"):
        return text if text.startswith("OpaqueRef:") else "OpaqueRef:NULL"
    if kind.endswith(" map"):
        return dict(re.findall(r'"([^"]*)" -> "([^"]*)"', text))
    if kind.endswith(" set"):
        return re.findall(r"[\w:.-]+", text) if not text.startswith("{OpaqueRef") else []
    if kind == "bool":
        return text == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    return ast.literal_eval(text) if text.startswith('"') else text


def recorded_orders(steps: Dict[str, List[Dict[str, Any]]]) -> Dict[str, List[str]]:
    """Return lower-case class name -> field names in the order in which the real xapi sends them."""
    orders: Dict[str, List[str]] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "snapshot" in value and "class" in value:
                orders.setdefault(value["class"], list(value["snapshot"]))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk([step["reply"] for recording in steps.values() for step in recording])
    for step in steps["records"] + steps["session"]:
        value = step["reply"].get("Value") if isinstance(step["reply"], dict) else None
        match = re.match(r"(\w+)\.get_(all_)?records?$", step["method"] or "")
        if match and isinstance(value, dict) and value and step["transport"] == "xml-rpc":
            orders.setdefault(match.group(1).lower(), list(list(value.values())[0] if match.group(2) else value))
    return orders


def fields_of(name: str, published: Optional[Dict[str, Any]], order: List[str]) -> List[List[Any]]:
    """Return [name, type, default, qualifier] of each field, in xapi's order."""
    found: Dict[str, List[Any]] = {}
    for field in published["fields"] if published else []:
        kind = field["type"].replace("<class>", name)
        found[field["name"]] = [field["name"], kind, default_of(field), field["qualifier"]]
    for field_name, kind, default in SUPPLEMENT.get(name, []):
        found[field_name] = [field_name, kind, default, "RO/runtime"]
    names = [n for n in order if n in found] + [n for n in found if n not in order]
    return [found[n] for n in names]


def implicit_params(name: str, verb: str, fields: Dict[str, str]) -> Optional[List[List[str]]]:
    """Return the parameters after the session of a method that follows from a field, None for others."""
    me = ["self", name + " ref"]
    if verb in ("get_all", "get_all_records"):
        return []
    if verb in ("get_all_where", "get_all_records_where"):
        return [["expr", "string"]]
    if verb == "get_by_uuid":
        return [["uuid", "string"]]
    if verb == "get_by_name_label":
        return [["label", "string"]]
    if verb in ("get_record", "destroy"):
        return [me]
    if verb == "create":
        return [["args", name + " record"]]
    for prefix in ("get_", "set_"):
        if verb.startswith(prefix) and verb[4:] in fields:
            return [me] if prefix == "get_" else [me, ["value", fields[verb[4:]]]]
    return None


def messages_of(
    name: str, published: Optional[Dict[str, Any]], listed: List[str], fields: Dict[str, str]
) -> Dict[str, List[Any]]:
    """Return method -> [parameters after the session or None if unknown, result type, flags]."""
    out: Dict[str, List[Any]] = {}
    for message in published["messages"] if published else []:
        params = [[p["name"], p["type"]] for p in message["params"]]
        flags = "r" if message["lifecycle"]["state"] == "Removed_s" else ""
        if params and params[0][0] == "session_id":
            params.pop(0)
        else:
            flags += "n"
        out[message["name"]] = [params, message["result"][0], flags]
    for method in listed:
        cls, verb = method.split(".", 1)
        if cls == name and verb not in out:
            known = METHODS.get(method)
            out[verb] = [known[0], known[1], ""] if known else [implicit_params(name, verb, fields), "", ""]
    return out


def permissions(steps: Dict[str, List[Dict[str, Any]]], model: List[Dict[str, Any]]) -> List[List[Any]]:
    """Return [permission, [roles]] in xapi's order, from the recordings and the published model."""
    recorded = {s["name"]: s["reply"].get("Value") for s in steps["session"]}
    highest = recorded["pool-admin.get_record"]["rbac_permissions"]
    lowest = set(recorded["read-only.get_record"]["rbac_permissions"])
    samples = {role: set(recorded[role + ".get_rbac_permissions"]["sample"]) for role in ROLES}
    published = {"{}.{}".format(c["name"], m["name"]).lower(): m["roles"] or [] for c in model for m in c["messages"]}
    out = []
    for name in highest:
        if name in lowest:
            roles = list(ROLES)
        else:
            base = published.get(name) or guess(name)
            roles = [r for r in ROLES if r == "pool-admin" or (r != "read-only" and (r in base or name in samples[r]))]
        out.append([name, roles])
    return out


def guess(name: str) -> List[str]:
    """Return the probable roles of a permission that neither the published model nor the recordings place."""
    if "/key:" in name:
        return [] if name.endswith("key:pci") else list(ROLES[:5])
    if name in ("http/connect_console", "http/connect_console_ws", "http/get_vncsnapshot"):
        return list(ROLES[:5])
    if name.startswith(("http/put_import", "http/get_export")):
        return list(ROLES[:4])
    if name.startswith(("vm.set_", "vm.add_", "vm.remove_", "vm_group.set")):
        return list(ROLES[:4])
    if name.startswith(("vm.", "vbd.")):
        return list(ROLES[:3])
    if name.startswith(
        (
            "network.set",
            "pool.set_default",
            "pool.set_susp",
            "pool.set_crash",
            "task.",
            "pif.",
            "sr.",
            "pgpu.",
            "gpu_group.",
            "pvs_site.",
            "vlan.",
            "vm_group.",
            "secret.",
            "host.add",
            "host.set",
            "host.remove",
            "http/",
        )
    ):
        return list(ROLES[:2])
    return []


def recorded_defaults(steps: Dict[str, List[Dict[str, Any]]]) -> Dict[str, Any]:
    """Return field values of real records for a new simulated host, pool, domain or VM."""
    value: Dict[str, Any] = {
        s["name"]: s["reply"].get("Value") for s in steps["records"] if isinstance(s["reply"], dict)
    }
    return {
        "pool": value["get_record.pool"],
        "host": value["get_record.host-coordinator"],
        "VM": value["get_record.vm-halted"],
        "dom0": value["get_record.vm-control-domain"],
        "bios_strings": value["get_record.vm-running"]["bios_strings"],
        "subject": list(value["get_all_records.subject"].values())[0],
    }


def without_texts(model: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the published model without its texts, for tests."""
    return [
        {
            "name": c["name"],
            "fields": [[f["name"], f["type"], f["qualifier"]] for f in c["fields"]],
            "messages": [
                {
                    "name": m["name"],
                    "params": [[p["name"], p["type"]] for p in m["params"]],
                    "result": m["result"][0],
                    "roles": m["roles"],
                    "errors": [e["name"] for e in m["errors"]],
                    "state": m["lifecycle"]["state"],
                }
                for m in c["messages"]
            ],
            "enums": {e["name"]: [v["name"] for v in e["values"]] for e in c["enums"]},
        }
        for c in model
    ]


def write_packed(name: str, value: Any) -> None:
    """Write compressed JSON beside this file, with the same bytes for the same value."""
    with open(os.path.join(HERE, name), "wb") as raw:
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
            packed.write(json.dumps(value, separators=(",", ":")).encode())


def main(data_dir: str) -> None:
    """Write the three files."""
    model = load(os.path.join(data_dir, "xenapi.json"))
    steps = {name: load(os.path.join(data_dir, "xapi-26.1.4", name + ".json")) for name in RECORDINGS}
    listed = next(s for s in steps["records"] if s["name"] == "listMethods")["reply"]
    orders = recorded_orders(steps)
    published = {c["name"]: c for c in model}
    names = list(published) + [n for n in SUPPLEMENT if n not in published]
    classes: Dict[str, Any] = {}
    for name in names:
        fields = fields_of(name, published.get(name), orders.get(name.lower(), []))
        kinds = {f[0]: f[1] for f in fields}
        classes[name] = {"fields": fields, "messages": messages_of(name, published.get(name), listed, kinds)}
    counts = next(s for s in steps["events_more"] if s["name"] == "coordinator.raw")["reply"]["Value"]
    out = {
        "classes": classes,
        "methods": listed,
        "permissions": permissions(steps, model),
        "enums": {e["name"]: [v["name"] for v in e["values"]] for c in model for e in c["enums"]},
        "errors": sorted({e["name"] for c in model for m in c["messages"] for e in m["errors"]}),
        "counted": list(counts["valid_ref_counts"]),
        "records": recorded_defaults(steps),
    }
    target = os.path.join(REPO, "xscontainer", "simulator", "xapi", "database", "datamodel.json")
    with open(target, "w", encoding="utf-8") as stream:
        json.dump(out, stream, separators=(",", ":"), ensure_ascii=False)
        stream.write("\n")
    write_packed("steps.json.gz", steps)
    write_packed("xenapi.json.gz", without_texts(model))


if __name__ == "__main__":
    main(sys.argv[1])
