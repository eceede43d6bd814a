"""The files of `deploy/`, compared with the command line, the options, and each other."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from k2eg.cli.arguments import parse_arguments
from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.gateway.epics.access_file import AccessFile
from k2eg_rx.gateway.epics.pv_list import PVDeniedError, PVList
from k2eg_rx.pv import PVAddress
from k2eg_rx.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: dict[str, Any] = {
    each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes" / "gateway.yaml").read_text())
}
ENDPOINTS = ("/metrics", "/healthz", "/readyz")
PORT = 9464


def unit() -> ConfigParser:
    """Returns the systemd unit; a key that stands twice, as systemd allows, would be an error."""
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "systemd" / "k2eg-gateway.service").read_text())
    return parser


def instructions(name: str) -> list[str]:
    """Returns the arguments of an instruction of the Containerfile, one per occurrence."""
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE.replace("\\\n", " "), re.MULTILINE)


def environment_of_the_image() -> dict[str, str]:
    words = [word.partition("=") for line in instructions("ENV") for word in shlex.split(line)]
    return {name: value for name, _, value in words}


def container() -> Any:
    (found,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


COMMANDS: list[tuple[str, Sequence[str]]] = [
    ("systemd", shlex.split(unit()["Service"]["ExecStart"])[1:]),
    ("Containerfile", yaml.safe_load(instructions("CMD")[0])),
    ("compose", COMPOSE["services"]["gateway"]["command"]),
    ("Kubernetes", container()["args"]),
]


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[place for place, _ in COMMANDS])
def test_the_command_runs_a_gateway_with_its_endpoint(
    place: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "Containerfile":
        for name, value in environment_of_the_image().items():
            monkeypatch.setenv(name, value)
    arguments = parse_arguments(words)
    assert (arguments.command, arguments.environment, arguments.metrics_port) == ("gateway", "site", PORT)
    # outside of a container, metrics stay on the machine
    assert arguments.metrics_host == (None if place == "systemd" else "0.0.0.0")
    assert arguments.log_format == (None if place == "systemd" else "json")


def load(text: str, folder: Path) -> Settings:
    (folder / "site.ini").write_text(text)
    return load_settings("site", "app", folder)


def uncommented(text: str) -> str:
    """Returns an environment with the examples in its comments."""
    return re.sub(r"^; (\[|\w[\w.]*=)", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        (DEPLOY / "site.ini").read_text(),
        uncommented((DEPLOY / "site.ini").read_text()),
        KUBERNETES["ConfigMap"]["data"]["site.ini"],
    ],
    ids=["site.ini", "site.ini with its examples", "ConfigMap"],
)
def test_environments_are_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, f"value of {name}")
    settings = load(text, tmp_path)
    assert settings.broker_url == "value of K2EG_KAFKA_BROKERS"
    GatewayOptions.from_section(settings.section("gateway"))


def test_each_deployment_has_the_variables_of_its_environment_file() -> None:
    needed = set(re.findall(r"^[^;\n]*\$\{(\w+)\}", (DEPLOY / "site.ini").read_text(), re.MULTILINE))
    of_systemd = dict(
        line.split("=", 1)
        for line in (DEPLOY / "systemd" / "gateway.env").read_text().splitlines()
        if not line.startswith("#")
    )
    assert needed <= of_systemd.keys()
    assert needed <= COMPOSE["services"]["gateway"]["environment"].keys()
    addresses = {"EPICS_CA_ADDR_LIST", "EPICS_PVA_ADDR_LIST"}
    assert addresses <= of_systemd.keys()
    assert addresses <= environment_of_the_image().keys()
    assert addresses <= COMPOSE["services"]["gateway"]["environment"].keys()
    assert addresses <= {variable["name"] for variable in container()["env"]}
    in_kubernetes = set(re.findall(r"\$\{(\w+)\}", KUBERNETES["ConfigMap"]["data"]["site.ini"]))
    text = (DEPLOY / "kubernetes" / "gateway.yaml").read_text()
    assert all(f"--from-literal={name}=" in text for name in in_kubernetes)


def test_the_unit_waits_for_the_gateway_and_restarts_it() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["TimeoutStartSec"] == "infinity", "a gateway waits for Kafka without limit"
    assert int(service["WatchdogSec"]) > 2
    assert service["Restart"] == "on-failure"
    assert "AF_UNIX" in service["RestrictAddressFamilies"].split(), "for the socket of READY=1"
    assert service["DynamicUser"] == "yes"


def test_the_image_is_pinned_and_has_no_root() -> None:
    (base,) = instructions("FROM")
    assert re.fullmatch(r"docker\.io/library/python:3\.1[123]\.\d+-slim-\w+", base)
    assert instructions("USER")[-1] == "10001:10001"
    assert f"--uid {10001}" in instructions("RUN")[0]
    assert instructions("EXPOSE") == [str(PORT)]
    assert yaml.safe_load(instructions("ENTRYPOINT")[0]) == ["k2eg"]


def test_the_image_installs_extras_that_exist_from_files_that_exist() -> None:
    (install,) = [line for line in instructions("RUN") if "pip" in line]
    words = shlex.split(install)
    assert words[:5] == ["python", "-m", "pip", "install", "--no-cache-dir"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = re.fullmatch(r"\.\[(.+)\]", words[5])
    assert extras is not None
    assert set(extras[1].split(",")) == {"gateway", "metrics"} <= set(project["project"]["optional-dependencies"])
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*project["project"]["license-files"], project["project"]["readme"], "pyproject.toml"}
    needed |= {path.split("/")[0] for path in (*build["packages"], *build["force-include"])}
    missing = {path for path in needed if not {path, *map(str, Path(path).parents)} & copied}
    assert not missing, "what the wheel is built of"


def test_images_of_compose_have_a_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert images
    assert all(re.fullmatch(r"[\w./-]+:\d+(\.\d+)+", image) for image in [*images, container()["image"]])


def test_compose_names_files_and_ports_that_exist() -> None:
    gateway = COMPOSE["services"]["gateway"]
    assert (DEPLOY / gateway["build"]["context"] / gateway["build"]["dockerfile"]).samefile(DEPLOY / "Containerfile")
    (volume,) = gateway["volumes"]
    source, target, mode = volume.split(":")
    assert (DEPLOY / source).is_file()
    assert Path(target).parent == Path(environment_of_the_image()["K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"])
    assert mode == "ro"
    (port,) = gateway["ports"]
    assert port == f"127.0.0.1:{PORT}:{PORT}"
    checked = re.search(rf"http://127\.0\.0\.1:{PORT}(/\w+)", gateway["healthcheck"]["test"][-1])
    assert checked is not None
    assert checked[1] in ENDPOINTS
    compile(gateway["healthcheck"]["test"][-1], "healthcheck", "exec")
    topics = COMPOSE["services"]["topics"]["command"]
    assert topics[topics.index("--topic") + 1] in (DEPLOY / "site.ini").read_text()


def test_probes_ask_what_the_gateway_answers() -> None:
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert container()["ports"] == [{"name": "metrics", "containerPort": PORT}]
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    template = KUBERNETES["Deployment"]["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(PORT)
    assert template["metadata"]["annotations"]["prometheus.io/path"] in ENDPOINTS
    served = "\n".join(path.read_text() for path in (ROOT / "src" / "k2eg_rx" / "metrics").glob("*.py"))
    assert all(f'"{endpoint}"' in served for endpoint in ENDPOINTS)


def test_the_manifests_belong_together_and_need_no_rights() -> None:
    deployment, service = KUBERNETES["Deployment"], KUBERNETES["Service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert service["spec"]["ports"][0]["targetPort"] == "metrics"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["volumes"][0]["configMap"]["name"] == KUBERNETES["ConfigMap"]["metadata"]["name"]
    assert container()["volumeMounts"][0]["mountPath"] == "/etc/k2eg"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container()["securityContext"]["allowPrivilegeEscalation"] is False
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_list_of_pvs_does_what_its_lines_say() -> None:
    pvs = PVList(str(DEPLOY / "pvlist"))
    assert pvs.entry(PVAddress.parse("ca://gun:phase")).real.uri == "ca://linac:gun:phase"
    assert pvs.entry(PVAddress.parse("ca://beam.DESC")).group == "BEAM"
    for denied in ("ca://interlock:a", "pva://a:calibration.value"):
        with pytest.raises(PVDeniedError):
            pvs.entry(PVAddress.parse(denied))


def test_the_access_file_does_what_its_rules_say() -> None:
    access = AccessFile(str(DEPLOY / "site.acf"))
    assert access.denial("feedback", "DEFAULT", 0, is_put=True) == ""
    assert access.denial("gun-laser", "GUN", 1, is_put=True) == ""
    assert access.denial("operators", "GUN", 1, is_put=True)
    assert access.denial("operators", "BEAM", 0, is_put=True)
    assert access.denial("anonymous", "GUN", 0, is_put=False) == ""
