-- What replicas send whose code needs this schema, as their server saw it: frozen. A later schema that says it serves them
-- has to take every one of these. One statement a paragraph; `$1` and so on are their parameters.

select to_regclass('alembic_version');

select authz_now();

select version_num from alembic_version;

select set_config('synchronous_commit', 'on', true), set_config('statement_timeout', $1, true),
set_config('lock_timeout', $1, true);

SELECT node.id FROM node WHERE node.id = $1::BIGINT FOR NO KEY UPDATE;

SELECT count(*) AS count_1 FROM account WHERE account.admin AND account.state = $1::VARCHAR;

select n.id, n.source, n.kind, n.parent_id, n.name, n.external_id, n.namespace_id, n.visibility, n.archived,
n.attributes, n.deleted_at is not null as deleted, a.state, a.admin, a.external, a.service_account, a.home_id,
a.same_as from unnest(cast($1 as text[]), cast($2 as text[])) as w(source, key) join node n on n.source = w.source
and n.name_key = w.key and n.parent_id is null and n.deleted_at is null left join account a on a.node_id = n.id;

select nextval(pg_get_serial_sequence('node', 'id')) from generate_series(1, cast($1 as integer));

insert into node (id, source, kind, parent_id, name, name_key, external_id, namespace_id, visibility, archived,
attributes, deleted_at) select id, source, kind, parent_id, name, lower(name), external_id, namespace_id,
visibility, archived, cast(attributes as jsonb), case when deleted then authz_now() end from unnest(cast($1 as
bigint[]), cast($2 as bigint[]), cast($3 as text[]), cast($4 as text[]), cast($5 as text[]), cast($6 as smallint[]),
cast($7 as boolean[]), cast($8 as text[]), cast($9 as text[]), cast($10 as text[]), cast($11 as boolean[])) as w(id,
parent_id, name, external_id, namespace_id, visibility, archived, attributes, source, kind, deleted);

insert into account (node_id, state, admin, external, service_account, home_id, same_as) select * from
unnest(cast($1 as bigint[]), cast($2 as text[]), cast($3 as boolean[]), cast($4 as boolean[]), cast($5 as
boolean[]), cast($6 as bigint[]), cast($7 as bigint[])) on conflict (node_id) do update set state = excluded.state,
admin = excluded.admin, external = excluded.external, service_account = excluded.service_account, home_id =
excluded.home_id, same_as = excluded.same_as;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch FROM revision;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, anon_1.id, anon_1.source, anon_1.kind,
anon_1.parent_id, anon_1.name, anon_1.name_key, anon_1.external_id, anon_1.namespace_id, anon_1.visibility,
anon_1.archived, anon_1.attributes, anon_1.deleted_at, anon_1.state, anon_1.admin, anon_1.external,
anon_1.service_account, anon_1.home_id, anon_1.same_as FROM revision LEFT OUTER JOIN (SELECT node.id AS id,
node.source AS source, node.kind AS kind, node.parent_id AS parent_id, node.name AS name, node.name_key AS name_key,
node.external_id AS external_id, node.namespace_id AS namespace_id, node.visibility AS visibility, node.archived AS
archived, node.attributes AS attributes, node.deleted_at AS deleted_at, account.state AS state, account.admin AS
admin, account.external AS external, account.service_account AS service_account, account.home_id AS home_id,
account.same_as AS same_as FROM node JOIN account ON account.node_id = node.id WHERE node.source = $1::VARCHAR AND
node.parent_id IS NULL AND node.name_key = $2::VARCHAR AND node.deleted_at IS NULL AND node.kind = $3::VARCHAR) AS
anon_1 ON true ORDER BY anon_1.id;

SELECT authz_now() AS authz_now_1;

SELECT account.state FROM account WHERE account.node_id = $1::BIGINT FOR SHARE;

INSERT INTO token (id, digest, kid, kind, name, owner_id, owner_name, catalogs, scopes, legacy_scopes, evaluates,
resource_owner_id, resource_owner_name, not_before, expires_at, conditions, parent_id, family_id, reason,
may_rotate_self, created_by_token, created_by_user) VALUES ($1::VARCHAR, $2::BYTEA, $3::VARCHAR, $4::VARCHAR,
$5::VARCHAR, $6::BIGINT, $7::VARCHAR, $8::JSONB, $9::JSONB, $10::TEXT[], $11::TEXT[], $12::BIGINT, $13::VARCHAR,
$14::TIMESTAMP WITH TIME ZONE, $15::TIMESTAMP WITH TIME ZONE, $16::JSONB, $17::VARCHAR, $18::VARCHAR, $19::VARCHAR,
$20::BOOLEAN, $21::VARCHAR, $22::BIGINT) RETURNING token.created_at;

UPDATE revision SET rev=(revision.rev + $1::BIGINT) RETURNING revision.rev, revision.epoch, revision.hash,
authz_now() AS at;

INSERT INTO change_log (rev, seq, kind, key, hash, prev_hash, at) VALUES ($1::BIGINT, $2::INTEGER, $3::VARCHAR,
$4::VARCHAR, $5::BYTEA, $6::BYTEA, $7::TIMESTAMP WITH TIME ZONE);

UPDATE revision SET hash=$1::BYTEA;

INSERT INTO audit (actor_token, actor_user, action, subject, details, revision) VALUES ($1::VARCHAR, $2::BIGINT,
$3::VARCHAR, $4::VARCHAR, $5::JSONB, $6::BIGINT) RETURNING audit.id;

SELECT replica.id, replica.name, replica.epoch, replica.applied_rev, replica.beat, replica.at,
replica.max_staleness, replica.connections FROM replica ORDER BY replica.id;

insert into replica (id, name, epoch, applied_rev, beat, at, max_staleness, connections) values ($1, $2, null, -1,
0, authz_now(), $3, $4) on conflict (id) do update set beat = replica.beat + 1;

select r.rev as head, r.epoch, r.hash as tip, r.began, pg_is_in_recovery() as in_recovery, authz_now() as clock,
c.rev, c.seq, c.kind, c.key, c.hash, c.at from revision r left join change_log c on c.rev >= $1 and c.rev <=
coalesce( (select rev from change_log where rev >= $1 order by rev, seq offset $2 limit 1), r.rev) where r.id = 1
order by c.rev, c.seq;

update replica set epoch = $2, applied_rev = $3, beat = beat + 1, at = authz_now() where id = $1 and
set_config('synchronous_commit', 'off', true) is not null;

select * from replica;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, token.id, token.kid, token.kind, token.name,
token.owner_id, token.owner_name, token.catalogs, token.scopes, token.legacy_scopes, token.evaluates,
token.resource_owner_id, token.resource_owner_name, token.created_at, token.not_before, token.expires_at,
token.conditions, token.parent_id, token.family_id, token.reason, token.may_rotate_self, token.created_by_token,
token.created_by_user, token.revoked_at, token.revoked_reason, token.last_used_at, node.name AS username,
account.state, account.admin, account.external, account.service_account, account.home_id, held.member_nodes,
held.member_roles FROM revision LEFT OUTER JOIN token ON token.digest = $1::BYTEA LEFT OUTER JOIN account ON
account.node_id = token.owner_id LEFT OUTER JOIN node ON node.id = token.owner_id LEFT OUTER JOIN LATERAL (SELECT
array_agg(membership.node_id) AS member_nodes, array_agg(membership.role) AS member_roles FROM membership WHERE
membership.user_id = token.owner_id) AS held ON true;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, token.id, token.kid, token.kind, token.name,
token.owner_id, token.owner_name, token.catalogs, token.scopes, token.legacy_scopes, token.evaluates,
token.resource_owner_id, token.resource_owner_name, token.created_at, token.not_before, token.expires_at,
token.conditions, token.parent_id, token.family_id, token.reason, token.may_rotate_self, token.created_by_token,
token.created_by_user, token.revoked_at, token.revoked_reason, token.last_used_at, node.name AS username,
account.state, account.admin, account.external, account.service_account, account.home_id, held.member_nodes,
held.member_roles FROM revision LEFT OUTER JOIN token ON token.id = $1::VARCHAR LEFT OUTER JOIN account ON
account.node_id = token.owner_id LEFT OUTER JOIN node ON node.id = token.owner_id LEFT OUTER JOIN LATERAL (SELECT
array_agg(membership.node_id) AS member_nodes, array_agg(membership.role) AS member_roles FROM membership WHERE
membership.user_id = token.owner_id) AS held ON true;

SELECT node.id FROM node WHERE node.id = $1::BIGINT FOR SHARE;

SELECT token.family_id FROM token WHERE token.id = $1::VARCHAR;

SELECT token.id FROM token WHERE token.id = $1::VARCHAR FOR UPDATE;

SELECT token.id, token.kid, token.kind, token.name, token.owner_id, token.owner_name, token.catalogs, token.scopes,
token.legacy_scopes, token.evaluates, token.resource_owner_id, token.resource_owner_name, token.created_at,
token.not_before, token.expires_at, token.conditions, token.parent_id, token.family_id, token.reason,
token.may_rotate_self, token.created_by_token, token.created_by_user, token.revoked_at, token.revoked_reason,
token.last_used_at FROM token WHERE token.id = $1::VARCHAR FOR UPDATE;

select n.id, n.source, n.kind, n.parent_id, n.name, n.external_id, n.namespace_id, n.visibility, n.archived,
n.attributes, n.deleted_at is not null as deleted, a.state, a.admin, a.external, a.service_account, a.home_id,
a.same_as from unnest(cast($1 as text[]), cast($2 as text[]), cast($3 as text[])) as w(source, kind, id) join node n
on n.source = w.source and n.kind = w.kind and n.external_id = w.id left join account a on a.node_id = n.id;

select n.id, n.source, n.kind, n.parent_id, n.name, n.external_id, n.namespace_id, n.visibility, n.archived,
n.attributes, n.deleted_at is not null as deleted, a.state, a.admin, a.external, a.service_account, a.home_id,
a.same_as from unnest(cast($1 as text[]), cast($2 as text[])) as w(source, id) join node n on n.source = w.source
and n.namespace_id = w.id left join account a on a.node_id = n.id;

insert into membership (user_id, node_id, role) select * from unnest(cast($1 as bigint[]), cast($2 as bigint[]),
cast($3 as text[])) on conflict (user_id, node_id) do update set role = excluded.role where membership.role <>
excluded.role returning user_id, xmax = 0 as created;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, anon_1.name, anon_1.version, anon_1.digest,
anon_1.installed_at, anon_1.installed_by, anon_1.text FROM revision LEFT OUTER JOIN (SELECT catalog_version.name AS
name, catalog_version.version AS version, catalog_version.digest AS digest, catalog_version.installed_at AS
installed_at, catalog_version.installed_by AS installed_by, NULL AS text FROM catalog_version) AS anon_1 ON true
ORDER BY anon_1.name, anon_1.version DESC;

WITH RECURSIVE up(start, kind, parent_id, name, height) AS (SELECT node.id AS start, node.kind AS kind,
node.parent_id AS parent_id, node.name AS name, $2::INTEGER AS height FROM node WHERE node.id = any($3::BIGINT[])
AND node.deleted_at IS NULL UNION ALL SELECT up.start AS start, up.kind AS kind, parent.parent_id AS parent_id,
parent.name AS name, up.height + $4::INTEGER AS anon_1 FROM up, node AS parent WHERE parent.id = up.parent_id)
SELECT up.start, up.kind, string_agg(up.name, $1::VARCHAR ORDER BY up.height DESC) AS path FROM up GROUP BY
up.start, up.kind;

WITH RECURSIVE walk(id, source, kind, parent_id, name, name_key, external_id, namespace_id, visibility, archived,
attributes, deleted_at, depth) AS (SELECT node.id AS id, node.source AS source, node.kind AS kind, node.parent_id AS
parent_id, node.name AS name, node.name_key AS name_key, node.external_id AS external_id, node.namespace_id AS
namespace_id, node.visibility AS visibility, node.archived AS archived, node.attributes AS attributes,
node.deleted_at AS deleted_at, $1::INTEGER AS depth FROM node WHERE node.source = $2::VARCHAR AND node.parent_id IS
NULL AND node.name_key = $3::VARCHAR AND node.deleted_at IS NULL UNION ALL SELECT child.id AS id, child.source AS
source, child.kind AS kind, child.parent_id AS parent_id, child.name AS name, child.name_key AS name_key,
child.external_id AS external_id, child.namespace_id AS namespace_id, child.visibility AS visibility, child.archived
AS archived, child.attributes AS attributes, child.deleted_at AS deleted_at, walk.depth + $4::INTEGER AS anon_1 FROM
node AS child, walk WHERE child.parent_id = walk.id AND child.name_key = split_part($5::VARCHAR, $6::VARCHAR,
walk.depth + $7::INTEGER) AND child.deleted_at IS NULL) SELECT revision.rev AS stamp_rev, revision.epoch AS
stamp_epoch, walk.id, walk.source, walk.kind, walk.parent_id, walk.name, walk.name_key, walk.external_id,
walk.namespace_id, walk.visibility, walk.archived, walk.attributes, walk.deleted_at, walk.depth FROM revision LEFT
OUTER JOIN walk ON true ORDER BY walk.depth;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, anon_1.id, anon_1.source, anon_1.kind,
anon_1.parent_id, anon_1.name, anon_1.name_key, anon_1.external_id, anon_1.namespace_id, anon_1.visibility,
anon_1.archived, anon_1.attributes, anon_1.deleted_at, anon_1.state, anon_1.admin, anon_1.external,
anon_1.service_account, anon_1.home_id, anon_1.same_as FROM revision LEFT OUTER JOIN (SELECT node.id AS id,
node.source AS source, node.kind AS kind, node.parent_id AS parent_id, node.name AS name, node.name_key AS name_key,
node.external_id AS external_id, node.namespace_id AS namespace_id, node.visibility AS visibility, node.archived AS
archived, node.attributes AS attributes, node.deleted_at AS deleted_at, account.state AS state, account.admin AS
admin, account.external AS external, account.service_account AS service_account, account.home_id AS home_id,
account.same_as AS same_as FROM node JOIN account ON account.node_id = node.id WHERE node.id = $1::BIGINT) AS anon_1
ON true ORDER BY anon_1.id;

INSERT INTO token_node (token_id, node_id) VALUES ($1::VARCHAR, $2::BIGINT);

UPDATE token SET revoked_at=authz_now(), revoked_reason=$1::VARCHAR WHERE token.id = $2::VARCHAR AND
token.revoked_at IS NULL RETURNING token.id;

SELECT token.id, token.kid, token.kind, token.name, token.owner_id, token.owner_name, token.catalogs, token.scopes,
token.legacy_scopes, token.evaluates, token.resource_owner_id, token.resource_owner_name, token.created_at,
token.not_before, token.expires_at, token.conditions, token.parent_id, token.family_id, token.reason,
token.may_rotate_self, token.created_by_token, token.created_by_user, token.revoked_at, token.revoked_reason,
token.last_used_at FROM token WHERE token.parent_id = $1::VARCHAR ORDER BY token.created_at DESC, token.id DESC;

SELECT token.id, token.kid, token.kind, token.name, token.owner_id, token.owner_name, token.catalogs, token.scopes,
token.legacy_scopes, token.evaluates, token.resource_owner_id, token.resource_owner_name, token.created_at,
token.not_before, token.expires_at, token.conditions, token.parent_id, token.family_id, token.reason,
token.may_rotate_self, token.created_by_token, token.created_by_user, token.revoked_at, token.revoked_reason,
token.last_used_at FROM token WHERE token.id = $1::VARCHAR;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, page.id, page.kid, page.kind, page.name,
page.owner_id, page.owner_name, page.catalogs, page.scopes, page.legacy_scopes, page.evaluates,
page.resource_owner_id, page.resource_owner_name, page.created_at, page.not_before, page.expires_at,
page.conditions, page.parent_id, page.family_id, page.reason, page.may_rotate_self, page.created_by_token,
page.created_by_user, page.revoked_at, page.revoked_reason, page.last_used_at, page.sort_key, page.number FROM
revision LEFT OUTER JOIN (SELECT token.id AS id, token.kid AS kid, token.kind AS kind, token.name AS name,
token.owner_id AS owner_id, token.owner_name AS owner_name, token.catalogs AS catalogs, token.scopes AS scopes,
token.legacy_scopes AS legacy_scopes, token.evaluates AS evaluates, token.resource_owner_id AS resource_owner_id,
token.resource_owner_name AS resource_owner_name, token.created_at AS created_at, token.not_before AS not_before,
token.expires_at AS expires_at, token.conditions AS conditions, token.parent_id AS parent_id, token.family_id AS
family_id, token.reason AS reason, token.may_rotate_self AS may_rotate_self, token.created_by_token AS
created_by_token, token.created_by_user AS created_by_user, token.revoked_at AS revoked_at, token.revoked_reason AS
revoked_reason, token.last_used_at AS last_used_at, CAST(token.created_at AS TEXT) AS sort_key, row_number() OVER
(ORDER BY token.created_at DESC, token.id DESC) AS number FROM token ORDER BY token.created_at DESC, token.id DESC
LIMIT $1::INTEGER) AS page ON true ORDER BY page.number;

WITH RECURSIVE up(id, source, kind, parent_id, name, name_key, external_id, namespace_id, visibility, archived,
attributes, deleted_at, depth) AS (SELECT node.id AS id, node.source AS source, node.kind AS kind, node.parent_id AS
parent_id, node.name AS name, node.name_key AS name_key, node.external_id AS external_id, node.namespace_id AS
namespace_id, node.visibility AS visibility, node.archived AS archived, node.attributes AS attributes,
node.deleted_at AS deleted_at, $1::INTEGER AS depth FROM node WHERE node.id = $2::BIGINT AND node.deleted_at IS NULL
UNION ALL SELECT parent.id AS id, parent.source AS source, parent.kind AS kind, parent.parent_id AS parent_id,
parent.name AS name, parent.name_key AS name_key, parent.external_id AS external_id, parent.namespace_id AS
namespace_id, parent.visibility AS visibility, parent.archived AS archived, parent.attributes AS attributes,
parent.deleted_at AS deleted_at, up.depth + $3::INTEGER AS anon_1 FROM node AS parent, up WHERE parent.id =
up.parent_id) SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, up.id, up.source, up.kind,
up.parent_id, up.name, up.name_key, up.external_id, up.namespace_id, up.visibility, up.archived, up.attributes,
up.deleted_at, up.depth FROM revision LEFT OUTER JOIN up ON true ORDER BY up.depth;

SELECT revision.rev AS stamp_rev, revision.epoch AS stamp_epoch, anon_1.id, anon_1.source, anon_1.kind,
anon_1.parent_id, anon_1.name, anon_1.name_key, anon_1.external_id, anon_1.namespace_id, anon_1.visibility,
anon_1.archived, anon_1.attributes, anon_1.deleted_at FROM revision LEFT OUTER JOIN (SELECT node.id AS id,
node.source AS source, node.kind AS kind, node.parent_id AS parent_id, node.name AS name, node.name_key AS name_key,
node.external_id AS external_id, node.namespace_id AS namespace_id, node.visibility AS visibility, node.archived AS
archived, node.attributes AS attributes, node.deleted_at AS deleted_at FROM node WHERE node.deleted_at IS NULL AND
node.id > $1::BIGINT AND node.id != $2::BIGINT ORDER BY node.id LIMIT $3::INTEGER) AS anon_1 ON true ORDER BY
anon_1.id;
