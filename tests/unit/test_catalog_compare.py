"""Two versions side by side, as people read them."""

from __future__ import annotations

from authz_service.catalog.compare import Change, compare_catalogs
from authz_service.catalog.loader import load_catalog

OLD = """\
catalog: shops
version: 1
roles: {member: , owner: [member]}
top_role: owner
targets: {/shops/:shop: project}
permissions:
  order:
    read: {project: "GET /shops/:shop/orders"}
    cancel: {project: "DELETE /shops/:shop/orders/:order"}
bundles:
  all: {permissions: all}
"""


def compared(*changes: tuple[str, str]):
    text = OLD.replace("version: 1", "version: 2")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return compare_catalogs(load_catalog(OLD), load_catalog(text))


def test_versions_that_differ_in_words_for_people_alone_are_the_same():
    assert not compared()
    assert not compared(("read: {project", "read: {description: See orders, project"))


def test_permissions_and_operations_are_added_and_removed():
    found = compared(
        ('    cancel: {project: "DELETE /shops/:shop/orders/:order"}', '    ship: {project: "PUT /shops/:shop/orders"}')
    )
    assert (found.old, found.new) == ("shops@1", "shops@2")
    assert (found.permissions.added, found.permissions.removed) == (("order:ship",), ("order:cancel",))
    assert found.operations.added == ("PUT /shops/:shop/orders",)
    assert found.operations.removed == ("DELETE /shops/:shop/orders/:order",)
    [bundle] = found.bundles.changed
    assert set(bundle.changes) == {
        Change("permission order:cancel", "yes", None),
        Change("permission order:ship", None, "yes"),
    }


def test_a_renamed_permission_that_keeps_its_name_as_an_alias_is_no_new_one():
    found = compared(("    cancel: {project", "    revoke: {aliases: order:cancel, project"))
    assert not found.permissions.added
    assert not found.permissions.removed
    [renamed] = found.permissions.changed
    assert (renamed.name, renamed.former, renamed.changes) == ("order:revoke", "order:cancel", ())


def test_boundaries_roles_and_implications_are_told_part_by_part():
    found = compared(
        ("read: {project", "read: {group: , project"),
        ('cancel: {project: "DELETE', 'cancel: {implies: order:read, project: {min_role: owner, operations: "DELETE'),
        ('orders/:order"}', 'orders/:order"}}'),
    )
    changes = {changed.name: changed.changes for changed in found.permissions.changed}
    assert changes["order:read"] == (Change("at group", None, "yes"),)
    assert set(changes["order:cancel"]) == {
        Change("at project", "yes", "min_role owner"),
        Change("implies", None, "order:read"),
    }


def test_an_operation_with_another_requirement_shows_both_as_a_file_writes_them():
    text = OLD.replace('    read: {project: "GET /shops/:shop/orders"}', "    read: project")
    text += "operations:\n  GET /shops/:shop/orders: [order:read, {all_of: [order:cancel], when: {context.x: '1'}}]\n"
    found = compare_catalogs(load_catalog(OLD), load_catalog(text))
    [operation] = found.operations.changed
    assert operation.changes == (
        Change(
            "needs",
            "order:read@project -> project {shop}",
            'order:read@project -> project {shop}; or order:cancel@project -> project {shop}, when context.x is "1"',
        ),
    )


def test_settings_and_roles_are_compared_too():
    found = compared(
        ("top_role: owner", "top_role: member\nbase_path: /api\nwords: {project: shop}\nencoded_parameters: [order]"),
        ("owner: [member]", "owner: [member], guest: {inherits: false}"),
    )
    assert set(found.settings) == {
        Change("top_role", "owner", "member"),
        Change("base_path", None, "/api"),
        Change("word for project", None, "shop"),
        Change("encoded parameter {order}", None, "yes"),
    }
    assert found.roles.added == ("guest",)
