"""Environments: files, variables, defaults, and errors that contain no secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2eg_rx.settings import (
    DEMO_BROKER_VARIABLE,
    DEMO_KAFKA,
    FOLDER_VARIABLE,
    Settings,
    configuration_folder,
    demo_broker_file,
    environments,
    load_settings,
    shipped_folder,
    unknown_names,
    unset_variables,
)

PLAIN = "[DEFAULT]\nkafka_broker_url=broker:9092\nk2eg_cmd_topic=commands\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def write(folder: Path, text: str, name: str = "site") -> None:
    (folder / f"{name}.ini").write_text(text)


def test_the_documented_file_is_an_environment(folder: Path) -> None:
    write(folder, PLAIN + "reply_topic=replies\n")
    settings = load_settings("site", "app-name")
    assert settings == Settings(
        environment_id="site",
        broker_url="broker:9092",
        command_topic="commands",
        reply_topic="replies",
        source=folder / "site.ini",
    )


def test_the_number_of_pvs_from_which_a_stream_uses_the_events_topic(folder: Path) -> None:
    write(folder, PLAIN)
    assert load_settings("site", "app").events_topic_from == 100
    write(folder, PLAIN + "events_topic=shared\nevents_topic_from=2\n")
    assert load_settings("site", "app").events_topic_from == 2
    write(folder, PLAIN + "events_topic_from=-1\n")
    with pytest.raises(ValueError, match="events_topic_from must be a whole number above 0, got '-1'"):
        load_settings("site", "app")


@pytest.mark.parametrize(
    ("line", "topic"),
    [
        ("", "app-reply"),
        ("reply_topic=\n", "app-reply"),
        ("reply_topic={app_name}-reply\n", "app-reply"),
        ("reply_topic=lab.{app_name}.out\n", "lab.app.out"),
        ("reply_topic=fixed\n", "fixed"),
    ],
)
def test_the_reply_topic_may_contain_the_application_name(folder: Path, line: str, topic: str) -> None:
    write(folder, PLAIN + line)
    assert load_settings("site", "app").reply_topic == topic


def test_the_kafka_section_goes_to_librdkafka_with_variables_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_PASSWORD", "hush")
    write(folder, PLAIN + "[kafka]\nsasl.password=${SITE_PASSWORD}\nfetch.wait.max.ms=5\n")
    settings = load_settings("site", "app")
    assert dict(settings.kafka) == {"sasl.password": "hush", "fetch.wait.max.ms": "5"}


def test_variables_work_in_the_default_section_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_BROKER", "other:9094")
    write(folder, PLAIN.replace("broker:9092", "${SITE_BROKER}"))
    assert load_settings("site", "app").broker_url == "other:9094"


def test_a_percent_sign_is_literal(folder: Path) -> None:
    write(folder, PLAIN + "[kafka]\nsasl.password=100%%s%(x)s\n")
    assert load_settings("site", "app").kafka["sasl.password"] == "100%%s%(x)s"


def test_other_sections_are_kept_without_the_defaults(folder: Path) -> None:
    write(folder, PLAIN + "[gateway]\nthreads=4\n")
    settings = load_settings("site", "app")
    assert dict(settings.section("gateway")) == {"threads": "4"}
    assert dict(settings.section("other")) == {}


def test_a_key_of_the_defaults_keeps_its_own_value_in_another_section(folder: Path) -> None:
    write(folder, PLAIN + "max_message_bytes=5\n[gateway]\nmax_message_bytes=7\n")
    settings = load_settings("site", "app")
    assert (settings.max_message_bytes, dict(settings.section("gateway"))) == (5, {"max_message_bytes": "7"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN + "[Kafka]\nsecurity.protocol=hush\n", "unknown section [Kafka]: did you mean kafka?"),
        (PLAIN + "[gatway]\ngroup=hush\n", "unknown section [gatway]: did you mean gateway?"),
        (PLAIN.replace("DEFAULT", "Default"), "unknown section [Default]: did you mean DEFAULT?"),
        (PLAIN.replace("DEFAULT", "DEFALT"), "unknown section [DEFALT]: did you mean DEFAULT?"),
        (
            PLAIN + "[archive]\na=hush\n",
            "unknown section [archive]: known are DEFAULT, kafka, kafka.producer, kafka.consumer, gateway",
        ),
        (
            PLAIN + "max_mesage_bytes=hush\n",
            "unknown key max_mesage_bytes in [DEFAULT]: did you mean max_message_bytes?",
        ),
        (PLAIN + "security.protocol=hush\n", "unknown key security.protocol in [DEFAULT]: librdkafka's properties"),
        (PLAIN + "color=hush\n", "unknown key color in [DEFAULT]: known are kafka_broker_url"),
    ],
)
def test_an_unknown_section_or_key_is_an_error_with_the_nearest_known_name(folder: Path, text: str, words: str) -> None:
    write(folder, text)
    with pytest.raises(ValueError, match=r"site\.ini:\d+: unknown") as caught:
        load_settings("site", "app")
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def test_each_unknown_name_is_reported_with_its_line(folder: Path) -> None:
    write(
        folder, "; site\n" + PLAIN + "; max_mesage_bytes=1\nMAX_MESAGE_BYTES : 5\n[Kafka]\nk2eg_cmd_topic=x\n[gatway]\n"
    )
    file = folder / "site.ini"
    assert unknown_names(file) == [
        f"{file}:6: unknown key max_mesage_bytes in [DEFAULT]: did you mean max_message_bytes?",
        f"{file}:7: unknown section [Kafka]: did you mean kafka?",
        f"{file}:9: unknown section [gatway]: did you mean gateway?",
    ]


def test_each_unset_variable_is_reported_with_its_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_USER", "me")
    monkeypatch.delenv("SITE_PASSWORD", raising=False)
    write(folder, PLAIN + "[kafka]\nsasl.username=${SITE_USER}\nsasl.password=${SITE_PASSWORD}\n[gateway]\na=${X}\n")
    file = folder / "site.ini"
    assert unset_variables(file) == [f"{file}:6: the environment variable SITE_PASSWORD is not set"]


def test_secrets_are_not_shown(folder: Path) -> None:
    write(folder, PLAIN + "[kafka]\nsasl.password=hush\n[gateway]\ntoken=hush\n")
    assert "hush" not in repr(load_settings("site", "app"))


@pytest.mark.parametrize(
    "text",
    [
        "sasl.password=hush\n",
        PLAIN + "[kafka]\nsasl.password=hush\nsasl.password=hush\n",
        PLAIN + "[kafka]\nhush\n",
    ],
)
def test_a_broken_file_is_named_without_its_contents(folder: Path, text: str) -> None:
    write(folder, text)
    with pytest.raises(ValueError, match=r"site\.ini:\d+: is not a valid \.ini file") as caught:
        load_settings("site", "app")
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "site.ini").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"site\.ini: cannot be read"):
        load_settings("site", "app")


@pytest.mark.parametrize("key", ["kafka_broker_url", "k2eg_cmd_topic"])
@pytest.mark.parametrize("rest", [[], ["{}="], ["{}=  "]])
def test_a_missing_or_empty_key_is_named(folder: Path, key: str, rest: list[str]) -> None:
    lines = [line for line in PLAIN.splitlines() if not line.startswith(key)]
    write(folder, "\n".join([*lines, *(line.format(key) for line in rest)]))
    with pytest.raises(ValueError, match=rf"site\.ini: \[DEFAULT\] must have a value for {key}"):
        load_settings("site", "app")


def test_a_variable_that_is_not_set_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SITE_PASSWORD", raising=False)
    write(folder, PLAIN + "[kafka]\nsasl.password=${SITE_PASSWORD}\n")
    with pytest.raises(
        ValueError, match=r"\[kafka\] sasl\.password: the environment variable SITE_PASSWORD is not set"
    ):
        load_settings("site", "app")


def test_a_missing_environment_lists_the_folder_and_its_environments(folder: Path) -> None:
    write(folder, PLAIN, "one")
    write(folder, PLAIN, "two")
    with pytest.raises(ValueError, match="no environment 'site'") as caught:
        load_settings("site", "app")
    assert f"in {folder}; available: one, two" in str(caught.value)
    assert FOLDER_VARIABLE in str(caught.value)


def test_a_folder_without_environments_says_so(folder: Path) -> None:
    with pytest.raises(ValueError, match="available: none"):
        load_settings("site", "app")


@pytest.mark.parametrize("name", ["../site", "sub/site", "", "site.ini"])
def test_an_environment_is_a_name_and_not_a_path(folder: Path, name: str) -> None:
    write(folder, PLAIN)
    with pytest.raises(ValueError, match="no environment"):
        load_settings(name, "app")


@pytest.mark.parametrize(
    ("name", "text"),
    [("", "app_name must not be empty"), ("a b", "must consist of letters"), ("a/b", "must consist of letters")],
)
def test_an_application_name_must_fit_a_topic_name(folder: Path, name: str, text: str) -> None:
    write(folder, PLAIN)
    with pytest.raises(ValueError, match=text):
        load_settings("site", name)


def test_the_folder_is_the_named_one_or_the_shipped_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configuration_folder() == folder
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert configuration_folder() == shipped_folder()
    assert {"demo", "local", "secured-site"} <= set(environments())


def test_a_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(FOLDER_VARIABLE, "~/conf")
    assert configuration_folder() == tmp_path / "conf"


def test_the_shipped_environments_are_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broker = tmp_path / "broker"
    broker.write_text("127.0.0.1:1234\n")
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(broker))
    monkeypatch.setenv("K2EG_KAFKA_USER", "user")
    monkeypatch.setenv("K2EG_KAFKA_PASSWORD", "password")
    settings = {name: load_settings(name, "app", shipped_folder()) for name in environments(shipped_folder())}
    assert settings["demo"].broker_url == "127.0.0.1:1234"
    assert all(one.reply_topic == "app-reply" for one in settings.values())


def test_the_demo_environment_without_a_demo_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"no demo is running .* start one with `k2eg demo`"):
        load_settings("demo", "app", shipped_folder())


def test_the_demo_file_is_one_per_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(DEMO_BROKER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert demo_broker_file() == tmp_path / "k2eg-demo-broker"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo_broker_file() == tmp_path / ".cache" / "k2eg-demo-broker"


def test_an_environment_that_the_folder_lacks_is_the_shipped_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings("local", "app").source == shipped_folder() / "local.ini"
    write(folder, PLAIN, "local")
    assert load_settings("local", "app").source == folder / "local.ini"
    with pytest.raises(ValueError, match=r"no environment 'lokal' in .*available: local .*part of k2eg: demo, local"):
        load_settings("lokal", "app")
    with pytest.raises(ValueError, match="no environment 'demo'"):  # a folder that is given is the only one
        load_settings("demo", "app", folder)


def test_an_environment_at_the_demos_broker_has_its_properties(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(folder / "broker"))
    (folder / "broker").write_text("broker:9092\n")
    write(folder, PLAIN + "[kafka]\nsession.timeout.ms=9000\n")
    assert load_settings("site", "app").kafka == {**DEMO_KAFKA, "session.timeout.ms": "9000"}
    (folder / "broker").write_text("other:9092\n")
    assert load_settings("site", "app").kafka == {"session.timeout.ms": "9000"}


def test_the_bits_of_pulse_ids_are_those_of_the_file(folder: Path) -> None:
    write(folder, PLAIN)
    assert load_settings("site", "app", folder).pulse_id_mask == 0x1FFFF
    write(folder, PLAIN + "pulse_id_mask=0xFF0\n")
    assert load_settings("site", "app", folder).pulse_id_mask == 0xFF0
    for wrong in ("5", "x", "-1"):
        write(folder, PLAIN + f"pulse_id_mask={wrong}\n")
        with pytest.raises(ValueError, match=r"site\.ini: pulse_id_mask must be .* got '" + wrong):
            load_settings("site", "app", folder)
