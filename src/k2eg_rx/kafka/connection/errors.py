"""Translates confluent_kafka's errors into `TransportError`, with advice and without secrets.

No exception of confluent_kafka leaves this package untranslated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException

from k2eg_rx.errors import TransportError
from k2eg_rx.settings import Settings, is_secret
from k2eg_rx.transport import MissingTopicError, RecordTooLargeError, TransientError, UnconfirmedError

_UNREACHABLE = (
    "the broker {broker} cannot be reached: check kafka_broker_url, that the broker runs, and that no firewall is in"
    " between"
)
_UNRESOLVED = "the host name of the broker {broker} is not known: check kafka_broker_url"
_ADVERTISED = (
    "broker {number} is advertised as {address}, which cannot be reached from here: check advertised.listeners of the"
    " broker, that it runs, and that no firewall is in between"
)
_REFUSED = (
    "the broker {broker} did not accept the credentials: check security.protocol, sasl.mechanism, sasl.username and"
    " sasl.password in [kafka]"
)
_TLS = (
    "no TLS connection to the broker {broker}: check in [kafka] that security.protocol is what this port speaks, and"
    " that ssl.ca.location holds the authority that signed the broker's certificate"
)
_BROKER_CERTIFICATE = (
    "the certificate of the broker {broker} is not accepted: check that ssl.ca.location in [kafka] holds the authority"
    " that signed it, that it has not expired, and that it is for the host name by which the broker is reached"
)
_CLIENT_CERTIFICATE = (
    "the broker {broker} did not accept the certificate of this client: check ssl.certificate.location and"
    " ssl.key.location in [kafka], that the certificate has not expired, and that the broker trusts its issuer"
)
_NO_TOPIC = "{topic} does not exist; to create it: {create}"
_TOPIC_FORBIDDEN = (
    "this user has no permission for {topic}: ask for ACLs (READ or WRITE, and DESCRIBE;"
    " CREATE if the client is to create it)"
)
_TOO_LARGE = (
    "a record for {topic} is larger than the broker accepts: raise max.message.bytes of the topic"
    " (message.max.bytes of the broker), and message.max.bytes in [kafka] if it is set there"
)
_NOT_DELIVERED = (
    "not delivered to {topic} in time (message.timeout.ms): the broker {broker} cannot be reached, or the topic does"
    " not exist there and may not be created"
)
_GROUP_FORBIDDEN = "this user has no permission to join the consumer {group}: ask for an ACL (READ on the group)"
_CLUSTER_FORBIDDEN = (
    "this user has no permission for that: ask for ACLs (WRITE on {topic} to send to it; otherwise those on the"
    " cluster)"
)
_BAD_PROPERTY = "a property in [kafka] is wrong"
_CLOSED = "closed before it was sent"

_ADVICE: Mapping[int, str] = {
    KafkaError._TRANSPORT: _UNREACHABLE,
    KafkaError._ALL_BROKERS_DOWN: _UNREACHABLE,
    KafkaError._TIMED_OUT: _UNREACHABLE,
    KafkaError._FAIL: _UNREACHABLE,
    KafkaError.BROKER_NOT_AVAILABLE: _UNREACHABLE,
    KafkaError.NETWORK_EXCEPTION: _UNREACHABLE,
    KafkaError._RESOLVE: _UNRESOLVED,
    KafkaError._AUTHENTICATION: _REFUSED,
    KafkaError.SASL_AUTHENTICATION_FAILED: _REFUSED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _REFUSED,
    KafkaError.ILLEGAL_SASL_STATE: _REFUSED,
    KafkaError._SSL: _TLS,
    KafkaError._UNKNOWN_TOPIC: _NO_TOPIC,
    KafkaError._UNKNOWN_PARTITION: _NO_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART: _NO_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID: _NO_TOPIC,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _TOPIC_FORBIDDEN,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _GROUP_FORBIDDEN,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _CLUSTER_FORBIDDEN,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _CLUSTER_FORBIDDEN,
    KafkaError.MSG_SIZE_TOO_LARGE: _TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: _TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE: _TOO_LARGE,
    KafkaError._MSG_TIMED_OUT: _NOT_DELIVERED,
    KafkaError._TIMED_OUT_QUEUE: _NOT_DELIVERED,
    KafkaError.REQUEST_TIMED_OUT: "the broker {broker} did not answer in time: it is overloaded or starting",
    KafkaError.TOPIC_EXCEPTION: "Kafka does not accept the name of {topic}: letters, digits, '.', '_' and '-' only",
    KafkaError.POLICY_VIOLATION: "a policy of the broker forbids that for {topic}; to create it: {create}",
    KafkaError.INVALID_REPLICATION_FACTOR: "the broker needs another replication factor for {topic}: {create}",
    KafkaError.NOT_ENOUGH_REPLICAS: "too few replicas of {topic} are in sync: some brokers are down",
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: "too few replicas of {topic} are in sync: some brokers are down",
    KafkaError._QUEUE_FULL: "too many records wait to be sent: the broker {broker} accepts them too slowly or is away",
    KafkaError._PURGE_QUEUE: _CLOSED,
    KafkaError._INVALID_ARG: _BAD_PROPERTY,
    KafkaError._NOT_CONFIGURED: _BAD_PROPERTY,
    KafkaError._UNSUPPORTED_FEATURE: "this broker is too old for the request",
    KafkaError.UNSUPPORTED_VERSION: "this broker is too old for the request",
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: "{topic} does not accept compression.type of [kafka]",
}

# Errors of the connection, by how specific they are: librdkafka reports both cause and effect.
_TROUBLE: Mapping[int, int] = {
    KafkaError._ALL_BROKERS_DOWN: 1,
    KafkaError._TRANSPORT: 2,
    KafkaError._RESOLVE: 3,
    KafkaError._SSL: 4,
    KafkaError._AUTHENTICATION: 4,
    KafkaError.SASL_AUTHENTICATION_FAILED: 4,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: 4,
    KafkaError.ILLEGAL_SASL_STATE: 4,
}

_TOO_LARGE_CODES = frozenset(code for code, advice in _ADVICE.items() if advice == _TOO_LARGE)
_GONE = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
_FINAL = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)

_TRANSIENT = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TIMED_OUT,
        KafkaError._QUEUE_FULL,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)

_FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})

# OpenSSL's texts: librdkafka reports a failed handshake either as _SSL or as _TRANSPORT.
_NOT_VERIFIED = "certificate verify failed"
_ALERT = re.compile(r"alert (?:.*certificate|unknown ca|access denied|handshake failure)")

_QUOTED_VALUE = re.compile(r'(value )"[^"]*" (for configuration property)|(value )\S+( is outside)')
# A broker's name at the beginning of librdkafka's texts. Brokers of kafka_broker_url have "bootstrap" for a number.
_BROKER_NAME = re.compile(r"(?:GroupCoordinator: )?(?:\w+://)?(?P<address>\S+?:\d+)(?:/(?P<number>\w+))?: ")
_STATE = re.compile(r" \(after \d+ms in state .*\)")  # differs each time and does not help a user
_SHORTEST_SECRET = 4  # masking a shorter one would reveal it by the positions of the mask


def secrets_in(properties: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the values of the properties that are secret, by their names."""
    return tuple(value for name, value in properties.items() if value and is_secret(name))


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Returns the secrets among the properties of an environment."""
    return secrets_in(settings.kafka_of_producers) + secrets_in(settings.kafka_of_consumers)


def kafka_error(failure: KafkaError | KafkaException) -> KafkaError:
    """Returns the error of an exception; a `KafkaError` is returned as it is."""
    if isinstance(failure, KafkaError):
        return failure
    first = failure.args[0] if failure.args else None
    return first if isinstance(first, KafkaError) else KafkaError(KafkaError._FAIL, str(failure))


def is_gone(error: KafkaError) -> bool:
    """Whether a topic or partition does not exist."""
    return error.code() in _GONE


def is_final(error: KafkaError) -> bool:
    """Whether a retry for the topic fails until its permissions or its name are changed."""
    return error.code() in _FINAL


def weight_of_trouble(error: KafkaError) -> int:
    """Returns how specific an error is about the connection, from 1; 0 if it is not about the connection."""
    return _TROUBLE.get(error.code(), 0)


def failed_broker(error: KafkaError) -> str:
    """Returns the address of the broker that an error says cannot be reached; empty if it names none."""
    name = _BROKER_NAME.match(error.str())
    return name["address"] if name is not None and _ADVICE.get(error.code()) in (_UNREACHABLE, _UNRESOLVED) else ""


def is_forbidden(error: KafkaError) -> bool:
    """Whether this user has no permission for a topic or a group."""
    return error.code() in _FORBIDDEN


def is_untrusted_certificate(error: KafkaError) -> bool:
    """Whether librdkafka rejected the broker's certificate."""
    return _NOT_VERIFIED in error.str()


def is_transient(error: KafkaError) -> bool:
    """Whether the broker is away or overloaded, so that the same request may succeed later."""
    return error.code() in _TRANSIENT


def is_refusal(error: KafkaError) -> bool:
    """Whether retries fail until credentials or certificates are changed.

    An interrupted handshake is no refusal: a broker that shuts down causes it too.
    """
    return (
        _ADVICE.get(error.code()) == _REFUSED
        or is_untrusted_certificate(error)
        or _ALERT.search(error.str()) is not None
    )


class ErrorTranslator:
    """Translates errors for one environment.

    Args:
        broker_url: The bootstrap servers, named in the texts.
        secrets: Strings to mask in every text.
        command_topics: The command topics: Kafka is to set their time stamps.
    """

    def __init__(self, broker_url: str, secrets: Iterable[str] = (), command_topics: Collection[str] = ()) -> None:
        self._broker_url = broker_url
        self._urls = frozenset(url.strip().rpartition("://")[2] for url in broker_url.split(","))
        self._command_topics = frozenset(command_topics)
        self._secrets = tuple(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)

    def create_command(self, topic: str) -> str:
        """Returns the shell command that creates a topic."""
        time_stamps = " --config message.timestamp.type=LogAppendTime" if topic in self._command_topics else ""
        return (
            f"kafka-topics.sh --bootstrap-server {self._broker_url} --create --topic {topic}"
            " --partitions 1 --config retention.ms=3600000"
            f"{time_stamps}"
        )

    def reason(self, failure: KafkaError | KafkaException, topic: str = "", group: str = "") -> str:
        """Returns the text of an error: the advice, then librdkafka's text in parentheses."""
        error = kafka_error(failure)
        detail = _STATE.sub("", _QUOTED_VALUE.sub(r"\1\3\2\4", error.str())).strip()
        template = _ADVICE.get(error.code())
        if is_untrusted_certificate(error):
            template, detail = _BROKER_CERTIFICATE, _NOT_VERIFIED  # the rest of librdkafka's text is a guess
        elif _ALERT.search(detail):
            template = _CLIENT_CERTIFICATE
        elif error.code() == KafkaError._TRANSPORT and "SSL" in error.str():
            template = _TLS  # a failed handshake reported as a lost connection
        name = _BROKER_NAME.match(detail) if template in (_UNREACHABLE, _UNRESOLVED) else None
        if name is not None and (name["number"] or "").isdecimal() and name["address"] not in self._urls:
            return self.advertised(name["number"], name["address"], detail)
        text = detail
        if template is not None:
            advice = template.format(
                broker=self._broker_url,
                topic=f"topic {topic!r}" if topic else "the topic",
                group=f"group {group!r}" if group else "group",
                create=self.create_command(topic or "TOPIC"),
            )
            text = f"{advice} ({detail})"
        return self.without_secrets(text)

    def advertised(self, number: object, address: str, detail: str) -> str:
        """Returns the text of a broker that cannot be reached under the address that the cluster names for it."""
        return self.without_secrets(f"{_ADVERTISED.format(number=number, address=address)} ({detail})")

    def without_secrets(self, text: str) -> str:
        """Returns a text with the secrets masked."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def error(
        self, failure: KafkaError | KafkaException, doing: str, topic: str = "", group: str = ""
    ) -> TransportError:
        """Returns the `TransportError` for an error, of the subclass for it.

        Args:
            failure: confluent_kafka's error.
            doing: The failed operation, first in the text: ``creating topic 'x'``.
            topic: The topic concerned, if any.
            group: The consumer group concerned, if any.
        """
        text = f"{doing}: {self.reason(failure, topic, group)}"
        error = kafka_error(failure)
        if topic and is_gone(error):
            return MissingTopicError(text, topic)
        if error.code() in _TOO_LARGE_CODES:
            return RecordTooLargeError(text)
        return TransientError(text) if is_transient(error) else TransportError(text)

    def unconfirmed(self, topic: str, cause: str) -> UnconfirmedError:
        """Returns the error of a record that the broker may have stored."""
        text = f"sent to {topic!r} but not confirmed, so it may have been stored or may be lost: {cause}"
        return UnconfirmedError(self.without_secrets(text))
