"""The owner of a partition, by the order of the log."""

from __future__ import annotations

from k2eg_rx.gateway.fleet.entries import Release
from k2eg_rx.gateway.fleet.tenancy import Tenancy


def test_an_entry_whose_epoch_is_not_greater_is_void() -> None:
    tenancy = Tenancy()
    assert tenancy.take("a", 10)
    assert not tenancy.take("b", 10)
    assert not tenancy.take("b", 9)
    assert (tenancy.owner, tenancy.epoch) == ("a", 10)
    assert tenancy.take("b", tenancy.next_epoch(5))
    assert (tenancy.owner, tenancy.epoch, tenancy.before(11)) == ("b", 11, 10)
    assert tenancy.next_epoch(1000) == 1000


def test_a_new_owner_waits_for_the_release_of_the_one_before() -> None:
    tenancy = Tenancy()
    assert tenancy.is_vacant
    tenancy.take("a", 10)
    assert tenancy.may_begin(10)
    assert not tenancy.is_vacant
    tenancy.take("b", 20)
    assert not tenancy.may_begin(20)
    tenancy.give_up(Release(5))
    assert not tenancy.may_begin(20), "that of an earlier owner"
    tenancy.give_up(Release(10, {"pv|topic": 7}))
    assert tenancy.may_begin(20)
    assert tenancy.release_before(20) == Release(10, {"pv|topic": 7})
    assert not tenancy.is_vacant


def test_an_owner_that_has_released_leaves_the_partition_vacant() -> None:
    tenancy = Tenancy()
    tenancy.take("a", 10)
    tenancy.give_up(Release(10))
    assert tenancy.is_vacant
    tenancy.take("b", 20)
    assert tenancy.may_begin(20)
    assert not tenancy.is_vacant


def test_each_owner_waits_for_the_one_before_it() -> None:
    tenancy = Tenancy()
    for epoch, owner in enumerate("abc", 1):
        tenancy.take(owner, epoch)
    assert (tenancy.may_begin(2), tenancy.may_begin(3)) == (False, False)
    tenancy.give_up(Release(1))
    assert (tenancy.may_begin(2), tenancy.may_begin(3)) == (True, False)
    tenancy.give_up(Release(2, {"pv|topic": 7}))
    tenancy.give_up(Release(1))  # written once more
    assert tenancy.release_before(3) == Release(2, {"pv|topic": 7})


def test_an_owner_that_withdraws_leaves_the_next_one_to_the_owner_before_it() -> None:
    tenancy = Tenancy()
    tenancy.take("a", 10)
    tenancy.announce(10, is_given_up=True)
    assert tenancy.is_handing_over
    tenancy.take("b", 20)
    assert tenancy.was_handing_over(20)
    tenancy.take("c", 30)
    tenancy.withdraw("x", 20)  # whose claim was void
    assert not tenancy.was_handing_over(30)
    tenancy.withdraw("b", 20)
    assert (tenancy.before(30), tenancy.was_handing_over(30), tenancy.may_begin(30)) == (10, True, False)
    tenancy.give_up(Release(10))
    assert tenancy.may_begin(30)


def test_an_owner_that_withdraws_before_there_is_another_one_is_none() -> None:
    tenancy = Tenancy()
    tenancy.take("a", 10)
    tenancy.take("b", 20)
    tenancy.withdraw("b", 20)
    assert not tenancy.is_vacant, "the one before has not stopped"
    tenancy.give_up(Release(10))
    assert tenancy.is_vacant
    tenancy.take("c", 30)
    assert tenancy.release_before(30) == Release(10)


def test_all_readers_of_a_log_agree_whatever_compaction_has_removed() -> None:
    entries: list[tuple[str, int]] = [("a", 10), ("b", 8), ("c", 12), ("a", 12), ("b", 15)]
    readers = [Tenancy() for _ in entries]
    for number, reader in enumerate(readers):
        for owner, epoch in entries[number:]:
            reader.take(owner, epoch)
    assert {(reader.owner, reader.epoch) for reader in readers} == {("b", 15)}
