"""The in-memory broker, without threads."""

from __future__ import annotations

from k2eg_rx.testing import MemoryBroker
from k2eg_rx.testing.memory_broker import Group, Offsets, Topic
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus


def test_a_key_selects_the_partition():
    broker = MemoryBroker(partitions=4)
    for n in range(40):
        broker.append("t", b"%d" % n, b"key %d" % (n % 8), ())
    partitions = {record.key: set() for record in broker.records("t")}
    for record in broker.records("t"):
        partitions[record.key].add(record.partition)
    assert all(len(used) == 1 for used in partitions.values())
    assert len(set.union(*partitions.values())) > 1


def test_offsets_count_by_partition():
    broker = MemoryBroker(partitions=2)
    for n in range(6):
        broker.append("t", b"%d" % n, None, ())
    assert [(record.partition, record.offset) for record in broker.records("t")] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
    ]


def test_headers_are_encoded_as_bytes():
    broker = MemoryBroker()
    broker.append("t", b"v", None, [("a", "text"), ("b", b"bytes"), ("c", None)])
    assert broker.records("t")[0].headers == (("a", b"text"), ("b", b"bytes"), ("c", None))


def test_sending_creates_topics_unless_switched_off():
    creating, refusing = MemoryBroker(), MemoryBroker(creates_topics=False)
    assert creating.append("t", b"v", None, ()) is None
    error = refusing.append("t", b"v", None, ())
    assert error is not None
    assert "'t' does not exist" in str(error)
    refusing.create_topic("t")
    assert refusing.append("t", b"v", None, ()) is None
    assert (creating.topics(), refusing.topics()) == (["t"], ["t"])


def test_deleting_a_topic_deletes_its_records():
    broker = MemoryBroker()
    broker.append("t", b"v", None, ())
    broker.delete_topic("t")
    assert broker.topics() == []
    assert broker.records("t") == []


def test_listeners_receive_the_status_and_its_changes():
    broker, statuses = MemoryBroker(), []
    broker.watch(statuses.append)
    broker.go_down("power failure")
    broker.come_up()
    broker.unwatch(statuses.append)
    broker.go_down()
    assert statuses == [
        TransportStatus(ConnectionState.UP),
        TransportStatus(ConnectionState.DOWN, "power failure"),
        TransportStatus(ConnectionState.UP),
    ]
    assert not broker.is_up


def test_present_lists_the_applications():
    broker = MemoryBroker()
    broker.enter("b")
    broker.enter("a")
    broker.leave("b")
    assert broker.present() == ["a"]


def test_a_source_without_group_starts_at_the_end_and_forgets_topics_it_leaves():
    topic, offsets = Topic("t", 2), Offsets()
    topic.append(b"v", b"k", ())
    offsets.start_at_end(topic)
    assert sorted(offsets.next.values()) == [0, 1]
    offsets.leave("t", None)
    assert offsets.next == {}


def test_a_group_shares_the_partitions_among_its_readers():
    topic, group, readers = Topic("t", 4), Group(), ["one", "two"]
    for reader in readers:
        group.join("t", reader)
    shares = [[n for n in range(4) if group.may_take((topic, n), reader)] for reader in readers]
    assert sorted(shares[0] + shares[1]) == [0, 1, 2, 3]
    assert [len(share) for share in shares] == [2, 2]
    group.leave("t", "one")
    assert all(group.may_take((topic, n), "two") for n in range(4))


def test_a_taken_partition_is_read_by_no_other_reader_of_the_group():
    topic, group = Topic("t", 1), Group()
    group.join("t", "one")
    group.mark_taken((topic, 0), 5)
    group.join("t", "two")
    assert not any(group.may_take((topic, 0), reader) for reader in ("one", "two"))
    group.mark_received((topic, 0), 5)
    assert group.next[topic, 0] == 5
    assert any(group.may_take((topic, 0), reader) for reader in ("one", "two"))


def test_a_group_continues_at_its_position():
    topic, group = Topic("t", 1), Group()
    group.join("t", "one")
    group.mark_received((topic, 0), 2)
    for _ in range(4):
        topic.append(b"v", None, ())
    group.leave("t", "one")
    group.join("t", "two")
    group.start_at_end(topic)
    assert group.next[topic, 0] == 2
