"""Casbin in process: its faster enforcer, with the policies of one token and permission found by a key."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.oracle import Ask
from benchmarks.workload import Workload

_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.act == p.act && g(r.obj, p.obj)
"""


def make_casbin(workload: Workload) -> Callable[[Ask], bool]:
    """Asks one enforcer that knows all tokens and the whole directory."""
    import casbin

    rules = {
        f"p, {holder.name}, {grant.node}, {permission}": None
        for holder in workload.tokens
        for grant in holder.grants
        for permission in grant.permissions
    }
    rules |= {f"g, {node}, {node.rpartition('/')[0]}": None for node in workload.nodes if "/" in node}
    with tempfile.TemporaryDirectory() as folder:  # it takes both by their paths; rule by rule it needs minutes
        model, policy = Path(folder) / "model.conf", Path(folder) / "policy.csv"
        model.write_text(_MODEL, encoding="utf-8")
        policy.write_text("\n".join(rules), encoding="utf-8")
        enforcer = casbin.FastEnforcer(str(model), str(policy), cache_key_order=[0, 2])

    def ask_casbin(ask: Ask) -> bool:
        return bool(enforcer.enforce(workload.tokens[ask.token].name, ask.target, ask.permission))

    return ask_casbin
