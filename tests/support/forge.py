"""Catalogs that between them use every part of the format, for a service whose world keeps changing."""

from __future__ import annotations

FORGE_1 = """
catalog: forge
version: 1
base_path: /api
roles:
  minimal: {inherits: false}
  guest: [minimal]
  developer: [guest]
  owner: [developer]
top_role: owner
targets:
  /projects/:id: project
  /groups/:gid: group
  /users/:uid: user
  /namespaces/:nid: namespace
  /runners: caller
  /search: anywhere
permissions:
  issue:
    read:
      project: GET /projects/:id/issues
      group: GET /groups/:gid/issues
      visitor: true
      aliases: ["ticket:read"]
    write: {project: {min_role: guest, operations: [POST /projects/:id/issues]}, group: , implies: ["issue:read"]}
  code:
    read: {project: "GET /projects/:id/code", public_read: true, visitor: true}
    write: {project: {min_role: developer, operations: [PUT /projects/:id/code]}, implies: ["code:read"]}
  team:
    write: {group: {min_role: owner, operations: [POST /groups/:gid/team]}}
  runner:
    read:
      project: GET /runners/:runner
      group: GET /runners/:runner
      instance: {min_role: none, operations: [GET /runners/:runner]}
    write: {project: , group: , instance: }
  key:
    read: {user: "GET /users/:uid/keys -> self {uid}"}
    write: {user: POST /user/keys}
  package:
    read: {group: GET /namespaces/:nid/packages, user: GET /namespaces/:nid/packages}
operations:
  GET /search/code: code:read@project
  GET /groups/:gid/code: {needs: ["code:read@project"], target: "below group :gid"}
  POST /groups/:gid/code: {needs: ["code:write@project"], target: "below group :gid"}
  PUT /projects/:id/merge:
    needs:
      - all_of: ["code:write", "issue:write@project"]
      - {all_of: ["code:write"], when: {action.soft: "true"}, min_role: developer}
  GET /projects/:id/badge: {needs: ["code:read"], public_read: true}
  GET /projects/:id/events: {open: true}
  GET /projects/:id/admin: {needs: ["code:write"], closed: true}
flags:
  open: GET /version
bundles:
  api: {permissions: all, operations: all, any_operation: all}
  read_api: {permissions: ["issue:read", "code:read"], any_operation: read}
"""

FORGE_2 = """
catalog: forge
version: 2
base_path: /api
roles:
  minimal: {inherits: false}
  guest: [minimal]
  planner: [guest]
  developer: [guest]
  owner: [developer, planner]
top_role: owner
targets:
  /projects/:id: project
  /groups/:gid: group
permissions:
  issue:
    read: {project: "GET /projects/:id/issues", group: "GET /groups/:gid/issues", public_read: true}
    write: {project: {min_role: planner, operations: [POST /projects/:id/issues]}, group: , implies: ["issue:read"]}
    close: {project: , implies: ["issue:write"]}
  source:
    read: {project: "GET /projects/:id/code", aliases: ["code:read"]}
    write:
      project: {min_role: developer, operations: [PUT /projects/:id/code]}
      implies: ["source:read"]
      aliases: ["code:write"]
  runner:
    read: {project: , group: , instance: {min_role: none}}
  key:
    read: {user: GET /user/keys}
bundles:
  api: {permissions: all, operations: all, any_operation: all}
"""

GATE_1 = """
catalog: gate
version: 1
roles: {guest: , owner: [guest]}
top_role: owner
attribute_parameters: {resource.status: status}
targets: {/doors/:id: project, /houses/:gid: group}
permissions:
  door:
    open: {project: "POST /doors/:id/open", group: , when: {subject.team: red}}
    read: {project: "GET /doors/:id/:status", group: , when: {resource.status: open}, public_read: true}
    shut: {project: , group: "POST /houses/:gid/shut", when: {subject.role: owner}}
    knock: {project: {min_role: guest, operations: [POST /doors/:id/knock]}, implies: ["door:read"]}
operations:
  POST /doors/:id/kick:
    needs:
      - all_of: ["door:knock"]
      - {all_of: ["door:open"], when: {context.touches_workflows: true}, min_role: owner}
"""
"""What is held depends on attributes here, so that nothing of it is answered the short way."""

HUB_1 = """
catalog: hub
version: 1
single_owner: true
case_sensitive: true
roles: {member: {inherits: false}, write: , admin: [write]}
top_role: admin
targets:
  "/repos/{owner}/{repo}": project
  /orgs/:org: group
levels: [read, write, admin]
implies: {project: "metadata:read"}
permissions:
  contents:
    read: {project: "GET /repos/{owner}/{repo}/contents"}
    write: {project: "PUT /repos/{owner}/{repo}/contents"}
    admin: [project]
  metadata: {read: {project: "GET /repos/{owner}/{repo}", public_read: true}}
  members:
    read: {group: "GET /orgs/:org/members"}
    write: {group: {min_role: write, operations: ["PUT /orgs/:org/members"]}}
  email: {read: {user: GET /user/emails}}
"""

ORDERS_1 = """
catalog: orders
version: 1
owner_check: upstream
roles: {clerk: , boss: [clerk]}
top_role: boss
targets: {/shops/:shop: project, /chains/:chain: group}
permissions:
  order:
    read: {project: GET /shops/:shop/orders, group: }
    write: {project: {min_role: boss, operations: [POST /shops/:shop/orders]}, implies: ["order:read"]}
  chain: {read: {group: GET /chains/:chain}}
  profile: {read: user}
operations:
  GET /chains/:chain/orders: {needs: ["order:read@project"], target: "below group :chain"}
  GET /orders: {needs: ["order:read@project"], target: anywhere}
bundles: {api: {permissions: all, operations: all, any_operation: all}}
"""

CATALOGS = (FORGE_1, GATE_1, HUB_1, ORDERS_1)
"""What is installed from the start; `FORGE_2` comes later."""
