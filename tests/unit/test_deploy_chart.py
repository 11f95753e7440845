"""The Helm chart: rendered by Helm's own library, each object valid in every version of Kubernetes that it names."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from tests.support.chart import (
    CHART,
    CLOUD_NATIVE_PG,
    EVERYTHING,
    MANAGED,
    ROOT,
    default_values,
    environment_of,
    find,
    merged,
    refusal,
    render,
    render_text,
)
from tests.support.crds import PROMETHEUS_RULE, SERVICE_MONITOR

from authz_service import __version__
from authz_service.config import Settings, load_settings, unknown_settings

KUBERNETES = ("1.27", "1.32", "1.37")
"""The oldest that the chart takes, one in the middle, the newest that there are schemas of."""
CRDS = {"ServiceMonitor": SERVICE_MONITOR, "PrometheusRule": PROMETHEUS_RULE}
PEPPER = base64.b64encode(bytes(range(32))).decode()
POOLED = merged(CLOUD_NATIVE_PG, {"database": {"cloudNativePG": {"pooler": "pg-pooler"}}})
SECRETS = {
    ("authz-database", "url"): "postgresql://authz:hush@db.example/authz",
    ("authz-database", "direct"): "postgresql://authz:hush@primary.example/authz",
    ("authz-owner", "url"): "postgresql://owner:hush@db.example/authz",
    ("pg-authz", "username"): "authz",
    ("pg-authz", "password"): "hush",
    ("pg-app", "uri"): "postgresql://app:hush@pg-rw.prod:5432/app",
    ("otel", "h"): "x",
}
SETUPS = {
    "managed": MANAGED,
    "a pooler": merged(MANAGED, {"database": {"directUrlKey": "direct"}}),
    "everything": merged(MANAGED, EVERYTHING),
    "CloudNativePG": CLOUD_NATIVE_PG,
    "CloudNativePG and its pooler": merged(POOLED, EVERYTHING),
    "the bare least": merged(
        MANAGED,
        {
            "migration": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
            "topologySpread": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "serviceAccount": {"create": False},
        },
    ),
}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("setup", SETUPS)
def test_every_object_is_valid(setup, version):
    for one in render(SETUPS[setup]):
        if one["kind"] in CRDS:
            jsonschema.validate(one, CRDS[one["kind"]])
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_an_object_that_is_not_valid_is_noticed():
    deployment = find(render(MANAGED), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)
    monitor = find(render(merged(MANAGED, EVERYTHING)), "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, SERVICE_MONITOR)


def test_helm_finds_nothing_to_say():
    helm = pytest.importorskip("helm_python", reason="the Helm library is for Linux on x86-64")
    report = helm.lint(CHART, MANAGED, strict=True)
    said = [one for one in report["messages"] if one["severity"] > 1]
    assert (said, report["errors"]) == ([], [])


def test_the_chart_is_of_the_version_that_it_installs():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_objects_have_names_of_their_own_whatever_the_release_is_called():
    for release in ("authz", "x" * 53, "my-authz-service"):
        objects = render(merged(MANAGED, EVERYTHING), release=release)
        names = [(one["kind"], one["metadata"]["name"]) for one in objects]
        assert len(names) == len(set(names))
        assert all(len(name) <= 63 for _, name in names)
        assert {one["metadata"]["namespace"] for one in objects} == {"prod"}


# what a pod runs as


@pytest.mark.parametrize("setup", SETUPS)
def test_every_pod_is_unprivileged_and_writes_to_memory_alone(setup):
    objects = render(SETUPS[setup])
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("Deployment", "Job")]
    assert len(pods) == (1 if setup == "the bare least" else 2)
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == image_user()
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") or volumes[mount["name"]]["emptyDir"]["medium"] == "Memory"
        assert all(
            volume["secret"].get("defaultMode", 0o440) == 0o440 for volume in pod["volumes"] if "secret" in volume
        )


def image_user() -> int:
    [user] = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return int(user)


@pytest.mark.parametrize("setup", SETUPS)
def test_no_secret_stands_in_an_object(setup):
    texts = "\n".join(render_text(SETUPS[setup]).values())
    assert "kind: Secret\n" not in texts
    assert "hush" not in texts
    for url in re.findall(r"postgresql://[^@]*@", texts):
        assert url == "postgresql://$(DATABASE_ROLE):$(DATABASE_PASSWORD)@"


# what a pod finds


@pytest.mark.parametrize("setup", SETUPS)
def test_the_service_starts_with_what_the_pod_finds(setup, tmp_path):
    pod = find(render(SETUPS[setup]), "Deployment")["spec"]["template"]["spec"]
    environ = environment_of(pod, SECRETS)
    assert unknown_settings(environ) == []
    assert Path(environ["AUTHZ_PEPPERS_FILE"]).parent in mounts_of(pod)
    (tmp_path / "peppers").write_text(f"k1:{PEPPER}\n")
    settings = load_settings(environ | {"AUTHZ_PEPPERS_FILE": str(tmp_path / "peppers")})
    assert (settings.host, settings.port) == ("0.0.0.0", pod["containers"][0]["ports"][0]["containerPort"])
    assert settings.dsn.startswith("postgresql://authz:hush@"), "never the owner"
    assert (settings.direct_dsn is not None) == ("pooler" in setup)
    assert settings.drain == 10
    assert settings.metrics_dir is not None
    assert settings.metrics_dir.parent in mounts_of(pod)


def mounts_of(pod) -> set[Path]:
    return {Path(mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("setup", [name for name in SETUPS if name != "the bare least"])
def test_the_migration_runs_as_the_owner_and_nobody_else_does(setup):
    job = find(render(SETUPS[setup]), "Job")
    environ = environment_of(job["spec"]["template"]["spec"], SECRETS)
    assert unknown_settings(environ) == []
    assert load_settings(environ, without_peppers=True).dsn.startswith(("postgresql://owner:", "postgresql://app:"))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate", "--patience", "300", "--service-role", "authz"]
    assert job["spec"]["activeDeadlineSeconds"] > 300


def test_behind_cloudnativepg_s_pooler_the_direct_url_goes_to_the_primary():
    pod = find(render(POOLED), "Deployment")["spec"]["template"]["spec"]
    environ = environment_of(pod, SECRETS)
    assert environ["AUTHZ_DATABASE_URL"] == "postgresql://authz:hush@pg-pooler:5432/app?sslmode=require"
    assert environ["AUTHZ_DATABASE_DIRECT_URL"] == "postgresql://authz:hush@pg-rw:5432/app"
    assert environ["PGSSLMODE"] == "verify-full"
    assert Path(environ["PGSSLROOTCERT"]).parent in mounts_of(pod)
    [authority] = [one["secret"] for one in pod["volumes"] if one["name"] == "database-ca"]
    assert authority["secretName"] == "pg-ca"


def test_a_number_reaches_the_service_as_it_was_written():
    given = {"AUTHZ_CACHE_TOKENS": 1_000_000, "AUTHZ_TRACES_SAMPLE": 0.05, "AUTHZ_BELL": False, "AUTHZ_WORKERS": None}
    pod = find(render(merged(MANAGED, {"settings": given})), "Deployment")["spec"]["template"]["spec"]
    environ = environment_of(pod, SECRETS)
    assert environ["AUTHZ_CACHE_TOKENS"] == "1000000"
    assert environ["AUTHZ_TRACES_SAMPLE"] == "0.05"
    assert environ["AUTHZ_BELL"] == "false"
    assert "AUTHZ_WORKERS" not in environ


def test_every_setting_but_the_chart_s_own_and_secrets_may_stand_in_the_values():
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = set(schema["properties"]["settings"]["properties"])
    known = {f"AUTHZ_{name.upper()}" for name in Settings.model_fields}
    assert allowed <= known, "run `make reference`"
    assert not {"AUTHZ_PEPPERS", "AUTHZ_DATABASE_URL", "AUTHZ_DATABASE_DIRECT_URL", "AUTHZ_PORT"} & allowed
    assert {"AUTHZ_MAX_STALENESS", "AUTHZ_PUBLIC_URL", "AUTHZ_TRACES_ENDPOINT"} <= allowed
    assert set(default_values()["settings"]) <= allowed


# life and death of a pod


def test_a_pod_lives_long_enough_to_finish_what_it_promised():
    pod = find(render(MANAGED), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 10 + 15 + 10, "drain, shutdown, and what the supervisor waits beyond"
    slower = merged(MANAGED, {"settings": {"AUTHZ_DRAIN": 30, "AUTHZ_SHUTDOWN_TIMEOUT": 60.5}})
    pod = find(render(slower), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 106, "30, 60.5 and 15, upwards"
    assert "terminationGracePeriodSeconds" in refusal(merged(slower, {"terminationGracePeriodSeconds": 60}))


def test_a_pod_goes_on_answering_longer_than_its_readiness_takes_to_be_seen():
    pod = find(render(MANAGED), "Deployment")["spec"]["template"]["spec"]
    probe = pod["containers"][0]["readinessProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    assert probe["periodSeconds"] * probe["failureThreshold"] < default_values()["settings"]["AUTHZ_DRAIN"]


def test_a_start_that_waits_for_a_migration_is_not_killed():
    pod = find(render(MANAGED), "Deployment")["spec"]["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]
    waits = default_values()["settings"]["AUTHZ_SCHEMA_PATIENCE"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= waits + 60


def test_a_database_that_is_away_restarts_no_pod():
    pod = find(render(MANAGED), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_probes_and_ports_are_routes_and_ports_of_the_service():
    objects = render(merged(MANAGED, EVERYTHING))
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]
    ports = {one["name"] for one in pod["containers"][0]["ports"]}
    documented = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        asked = pod["containers"][0][name]["httpGet"]
        assert asked["path"] in documented
        assert asked["port"] in ports
    assert {one["targetPort"] for one in find(objects, "Service")["spec"]["ports"]} <= ports
    monitor = find(objects, "ServiceMonitor")["spec"]["endpoints"][0]
    assert monitor["path"] in documented
    assert monitor["port"] in {one["name"] for one in find(objects, "Service")["spec"]["ports"]}


# who stands with whom


def test_what_selects_pods_selects_those_that_serve_and_not_the_migration():
    objects = render(merged(MANAGED, EVERYTHING))
    serving = find(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    migrating = find(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        find(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        find(objects, "Service")["spec"]["selector"],
        find(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(objects, "NetworkPolicy", "-server")["spec"]["podSelector"]["matchLabels"],
        *(
            one["labelSelector"]["matchLabels"]
            for one in find(objects, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector.items() <= serving.items()
        assert not selector.items() <= migrating.items()
    monitor = find(objects, "ServiceMonitor")["spec"]
    service = find(objects, "Service")["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= service.items()
    assert service[monitor["jobLabel"]] == "authz-service"


def test_only_those_named_may_ask_and_only_the_database_is_asked():
    objects = render(merged(MANAGED, EVERYTHING))
    policy = find(objects, "NetworkPolicy", "-server")["spec"]
    assert [rule["from"] for rule in policy["ingress"]] == [
        EVERYTHING["networkPolicy"]["gateways"],
        EVERYTHING["networkPolicy"]["metrics"],
    ]
    names, database, more = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert database == {"ports": [{"port": 5432, "protocol": "TCP"}], "to": EVERYTHING["networkPolicy"]["database"]}
    assert more == EVERYTHING["networkPolicy"]["egress"][0]
    migration = find(objects, "NetworkPolicy", "-migration")
    assert "ingress" not in migration["spec"]
    assert "Ingress" in migration["spec"]["policyTypes"], "nobody reaches it"
    assert migration["spec"]["egress"] == [names, database]
    hook = {name: value for name, value in migration["metadata"]["annotations"].items() if "weight" in name}
    assert int(hook["helm.sh/hook-weight"]) < 0, "before the Job that it lets out"


def test_without_names_all_pods_of_the_namespace_may_ask_and_no_others():
    policy = find(render(MANAGED), "NetworkPolicy", "-server")["spec"]
    assert policy["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"port": "http", "protocol": "TCP"}]}]


def test_with_cloudnativepg_only_its_pods_are_asked():
    policy = find(render(POOLED), "NetworkPolicy", "-server")["spec"]
    asked = [peer["podSelector"]["matchLabels"] for peer in policy["egress"][1]["to"]]
    assert asked == [{"cnpg.io/cluster": "pg"}, {"cnpg.io/poolerName": "pg-pooler"}]


def test_the_autoscaler_counts_replicas_in_the_deployment_s_place():
    objects = render(merged(MANAGED, EVERYTHING))
    deployment, scaler = find(objects, "Deployment"), find(objects, "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "cpu" in deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]


def test_alerts_and_dashboard_arrive_as_they_are():
    objects = render(merged(MANAGED, EVERYTHING))
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
    assert find(objects, "PrometheusRule")["spec"] == rules
    dashboard = find(objects, "ConfigMap", "-dashboard")
    assert json.loads(dashboard["data"]["authz-service.json"])["uid"] == "authz-service"
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_alerts_follow_the_job_s_name():
    renamed = find(render(merged(MANAGED, EVERYTHING, {"nameOverride": "gate"})), "PrometheusRule")
    assert 'job="gate"' in json.dumps(renamed["spec"]).replace('\\"', '"')
    assert 'job="authz-service"' not in json.dumps(renamed["spec"]).replace('\\"', '"')


# what the page says


def test_the_values_that_the_page_shows_make_objects_and_its_cluster_fits_them():
    page = (ROOT / "docs" / "operations" / "deploying.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    shown = [block for block in blocks if "kind" not in block]
    assert len(shown) == 2
    for values in shown:
        for one in render(values):
            kubernetes_validate.validate(one, KUBERNETES[-1], strict=True)
    [cluster] = [block for block in blocks if block.get("kind") == "Cluster"]
    [role] = cluster["spec"]["managed"]["roles"]
    database = shown[1]["database"]["cloudNativePG"]
    assert database["cluster"] == cluster["metadata"]["name"]
    assert role["name"] == shown[1]["migration"]["serviceRole"]
    assert role["passwordSecret"]["name"] == database["serviceRoleSecret"]


# bad values


def test_everything_that_is_missing_is_said_at_once():
    said = refusal({})
    for name in ("peppers.existingSecret", "database", "migration.existingSecret", "migration.serviceRole"):
        assert f"{name}: " in said


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"database": {"cloudNativePG": {"cluster": "pg", "serviceRoleSecret": "x"}}}, "not both"),
        ({"database": {"cloudNativePG": {"pooler": "x"}}}, "name the cluster too"),
        ({"database": {"ssl": {"mode": "verify-full"}}}, "database.ssl.caSecret"),
        ({"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "below minReplicas"),
        ({"database": {"maxConnections": 20}}, "4 replicas with 12 connections each are 48"),
        ({"terminationGracePeriodSeconds": 5}, "need 40"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(values, named):
    assert named in refusal(merged(MANAGED, values))


def test_behind_a_pooler_only_polls_and_the_bell_count():
    given = {"database": {"directUrlKey": "direct", "maxConnections": 8}, "settings": {"AUTHZ_WORKERS": 1}}
    render(merged(MANAGED, given))
    assert "maxConnections" in refusal(merged(MANAGED, given, {"settings": {"AUTHZ_WORKERS": 2}}))


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"replicas": 0},
        {"replicas": "three"},
        {"image": {"repository": ""}},
        {"image": {"digest": "sha256:abc"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"peppers": {"existingSecret": "Not_A_Name"}},
        {"peppers": {"value": "k1:inline"}},
        {"database": {"url": "postgresql://inline"}},
        {"database": {"cloudNativePG": {"database": "a b"}}},
        {"migration": {"serviceRole": "authz; drop table audit"}},
        {"migration": {"patience": -1}},
        {"settings": {"AUTHZ_PEPPERS": "k1:inline"}},
        {"settings": {"AUTHZ_DATABASE_URL": "postgresql://inline"}},
        {"settings": {"AUTHZ_MAX_STALENES": 5}},
        {"settings": {"AUTHZ_MAX_STALENESS": 0.5}},
        {"settings": {"AUTHZ_MAX_STALENESS": "soon"}},
        {"settings": {"AUTHZ_LOG_LEVEL": "loud"}},
        {"settings": {"AUTHZ_PORT": 9090}},
        {"extraEnv": [{"name": "AUTHZ_WORKERS", "value": "2"}]},
        {"extraEnv": [{"value": "2"}]},
        {"resources": {"limits": {"memory": "much"}}},
        {"networkPolicy": {"gateways": [{"cidr": "0.0.0.0/0"}]}},
        {"networkPolicy": {"gateways": [{}]}},
        {"autoscaling": {"targetCPUUtilizationPercentage": 120}},
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        {"service": {"type": "ExternalName"}},
        {"topologySpread": {"topologyKeys": []}},
        {"probes": {"periodSeconds": 0}},
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
    ],
)
def test_a_bad_value_is_refused_by_the_schema(values):
    said = refusal(merged(MANAGED, values))
    assert "- at '" in said, "the schema, not a template"
    assert next(iter(values)) in said
