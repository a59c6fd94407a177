"""Formatting is right only for a cluster that never existed; a foreign file is never started."""

from __future__ import annotations

from itertools import product

import pytest

from cluster import config
from cluster.refusal import Refusal
from cluster.tigerbeetle.data_file import (
    ACCEPTED,
    REPLACED,
    RESTORING,
    Identity,
    Past,
    decide,
    file_name,
    is_half_restored,
    parse_superblock,
    refuse_half_restored,
    refuse_others,
)

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))

#: As `tigerbeetle inspect superblock` of 0.17.9 prints them, the other fields left out.
SUPERBLOCK = """\
|||| version=2
|||| release_format=0.17.9
|||| cluster=0x00000000000000000000000000000000
|||| vsr_state.checkpoint.release=0.17.9
|||| vsr_state.replica_id=0xe86c59ee4d7863c5ee4bfeb05f40a210
|||| vsr_state.members[0]=0x04fd2e0ee4f9e71c59289a79962587c1
|||| vsr_state.members[1]=0xe86c59ee4d7863c5ee4bfeb05f40a210
|||| vsr_state.members[2]=0x64de0facf4e470fb745c6e7727e04db9
|||| vsr_state.members[3]=0x57fde8fd01a82e8de537f41c8b3a2a8e
|||| vsr_state.members[4]=0x2c8a40766c1debd1d399faa3102f6f49
|||| vsr_state.members[5]=0x5dcab844acce32136b657ed3616f755a
|||| vsr_state.replica_count=3
"""


def own(index: int) -> Identity:
    return Identity(CLUSTER.id, index, 3, CLUSTER.release)


def test_the_superblock_says_cluster_replica_count_and_release() -> None:
    assert parse_superblock(SUPERBLOCK).identity == Identity(0, 1, 3, "0.17.9")


@pytest.mark.parametrize(
    "missing", ["cluster=", "vsr_state.replica_id", "vsr_state.replica_count", "checkpoint.release"]
)
def test_a_superblock_without_a_field_is_not_read(missing: str) -> None:
    lines = [line for line in SUPERBLOCK.splitlines() if missing not in line]
    with pytest.raises(Refusal, match="expected a formatted data file"):
        parse_superblock("\n".join(lines))


@pytest.mark.parametrize("marks", ["|||_", "||_|", "|_||", "_|||"])
def test_one_torn_copy_is_outvoted(marks: str) -> None:
    torn = SUPERBLOCK.replace("|||| cluster=", f"{marks} cluster=")
    assert parse_superblock(torn).identity == Identity(0, 1, 3, "0.17.9")
    assert parse_superblock(torn).agreed == 3


@pytest.mark.parametrize("marks", ["||__", "_||_", "|__|", "|___", "____"])
def test_copies_that_disagree_are_not_read(marks: str) -> None:
    torn = SUPERBLOCK.replace("|||| cluster=", f"{marks} cluster=")
    with pytest.raises(Refusal, match="do not format over it"):
        parse_superblock(torn)


def test_four_copies_that_agree_are_not_torn() -> None:
    # Each copy has its number, and so differs from the others in that.
    numbered = SUPERBLOCK + "|___ copy=0\n_|__ copy=1\n__|_ copy=2\n___| copy=3\n"
    assert not parse_superblock(numbered).is_torn


@pytest.mark.parametrize(
    ("newer", "older", "commit", "agreed"),
    [
        ("||||", "____", 9, 4),
        ("|||_", "___|", 9, 3),
        ("||__", "__||", 9, 2),
        ("__||", "||__", 9, 2),
        ("|___", "_|||", 7, 3),  # one new copy is no quorum: the server goes back to the old ones
        ("__|_", "||__", 7, 2),  # and one more is torn
        ("||__", "__|_", 9, 2),
    ],
)
def test_of_a_write_that_was_cut_short_the_newest_two_copies_count(
    newer: str, older: str, commit: int, agreed: int
) -> None:
    found = parse_superblock(
        SUPERBLOCK
        + f"{newer} sequence=12\n{newer} vsr_state.commit_max=9\n"
        + f"{newer} vsr_state.checkpoint.header=Prepare{{ .op=5, .size=256 }}\n"
        + f"{older} sequence=11\n{older} vsr_state.commit_max=7\n"
        + f"{older} vsr_state.checkpoint.header=Prepare{{ .op=5, .size=256 }}\n"
    )
    assert (found.commit_max, found.op_checkpoint, found.agreed) == (commit, 5, agreed)
    assert found.is_torn == (agreed < 4)


def test_no_two_copies_that_agree_are_not_read() -> None:
    told = SUPERBLOCK + "".join(f"{'_' * i}|{'_' * (3 - i)} sequence={i}\n" for i in range(4))
    with pytest.raises(Refusal, match="expected a formatted data file"):
        parse_superblock(told)


def test_the_error_quotes_what_the_server_said() -> None:
    with pytest.raises(Refusal, match="superblock not found"):
        parse_superblock("thread 7 panic: superblock not found\n")


@pytest.mark.parametrize("present", list(product([False, True], repeat=3)))
def test_only_none_or_all_of_the_files_are_a_cluster(present: tuple[bool, ...]) -> None:
    found = {i: own(i) if there else None for i, there in enumerate(present)}
    if all(present):
        assert decide(found, CLUSTER, is_bootstrapping=False) == "keep"
    elif not any(present):
        assert decide(found, CLUSTER, is_bootstrapping=False) == "format"
    else:
        advice = "make recover .*REPLICA=" if sum(present) == 2 else "make restore .*FROM="
        with pytest.raises(Refusal, match=advice):
            decide(found, CLUSTER, is_bootstrapping=False)


@pytest.mark.parametrize("present", list(product([False, True], repeat=3)))
def test_an_interrupted_first_format_may_go_on(present: tuple[bool, ...]) -> None:
    found = {i: own(i) if there else None for i, there in enumerate(present)}
    expected = "keep" if all(present) else "format"
    assert decide(found, CLUSTER, is_bootstrapping=True) == expected


FOREIGN = [
    (Identity(7, 1, 3, "0.17.9"), "cluster 7"),
    (Identity(0, 2, 3, "0.17.9"), "replica 2 of 3"),
    (Identity(0, 1, 6, "0.17.9"), "of 6"),
]


@pytest.mark.parametrize(("foreign", "says"), FOREIGN)
@pytest.mark.parametrize("is_bootstrapping", [False, True])
def test_a_foreign_file_is_refused(foreign: Identity, says: str, is_bootstrapping: bool) -> None:
    found = {0: own(0), 1: foreign, 2: own(2)}
    with pytest.raises(Refusal, match=f"found that of .*{says}"):
        decide(found, CLUSTER, is_bootstrapping=is_bootstrapping)


def test_a_file_of_an_older_release_is_ours() -> None:
    found = {i: Identity(0, i, 3, "0.17.4") for i in range(3)}
    assert decide(found, CLUSTER, is_bootstrapping=False) == "keep"


def test_the_file_name_is_cluster_and_replica() -> None:
    assert file_name(0, 2) == "0_2.tigerbeetle"


@pytest.mark.parametrize("found", [[], ["7_0.tigerbeetle"]])
def test_a_directory_without_another_data_file_is_fine(found: list[str]) -> None:
    refuse_others(0, "7_0.tigerbeetle", found)


def test_a_new_cluster_is_not_made_beside_an_old_one() -> None:
    with pytest.raises(Refusal, match=r"found 0_0\.tigerbeetle\. Fix: set .*CLUSTER_ID back"):
        refuse_others(0, "7_0.tigerbeetle", ["0_0.tigerbeetle"])


@pytest.mark.parametrize("present", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("is_bootstrapping", [False, True])
@pytest.mark.parametrize("is_asked_for", [False, True])
@pytest.mark.parametrize("answering", [(), (1,), (0, 1, 2)])
def test_a_format_needs_a_word_empty_servers_and_silence(
    present: tuple[bool, ...],
    is_bootstrapping: bool,
    is_asked_for: bool,
    answering: tuple[int, ...],
) -> None:
    def plan() -> str:
        return decide(
            {i: own(i) if there else None for i, there in enumerate(present)},
            CLUSTER,
            is_bootstrapping=is_bootstrapping,
            is_asked_for=is_asked_for,
            answering=answering,
        )

    may_format = is_bootstrapping or (is_asked_for and not any(present))
    if all(present):
        assert plan() == "keep"
    elif may_format and not answering:
        assert plan() == "format"
    else:
        with pytest.raises(Refusal):
            plan()


def test_empty_servers_are_not_formatted_without_being_asked_to() -> None:
    with pytest.raises(Refusal, match=r"none on any server.*BOOTSTRAP=yes"):
        decide({0: None, 1: None, 2: None}, CLUSTER, is_bootstrapping=False, is_asked_for=False)


def test_nothing_is_formatted_while_a_replica_answers() -> None:
    with pytest.raises(Refusal, match="replica 2: expected no replica to answer"):
        decide({0: None, 1: None, 2: None}, CLUSTER, is_bootstrapping=False, answering=[2])


@pytest.mark.parametrize(
    ("lost", "count", "recover"), [(1, 3, True), (2, 3, False), (2, 6, True), (3, 6, False)]
)
def test_what_too_few_are_left_for_is_never_to_be_recovered(
    lost: int, count: int, recover: bool
) -> None:
    past = Past(recover="make recover", restore="make restore FROM=there")
    fix = past.fix(range(lost), count)
    assert ("make recover REPLICA=0" in fix) == recover
    assert ("make restore FROM=there" in fix) != recover
    assert "BOOTSTRAP" not in fix
    alone = Past(recover="", restore="make restore FROM=there").fix(range(lost), count)
    assert "make restore FROM=there" in alone  # the emulator: nobody recovers from anybody


def test_a_cluster_that_has_existed_is_made_anew_only_by_a_word() -> None:
    gone: dict[int, Identity | None] = {0: None, 1: None, 2: None}
    past = Past(place="in there", traces=("backup b",), restore="make restore FROM=b", anew="anew")
    with pytest.raises(Refusal, match=r"none in there, though it has existed: backup b") as refused:
        decide(gone, CLUSTER, is_bootstrapping=False, is_asked_for=False, past=past)
    assert "`make restore FROM=b`" in str(refused.value)
    assert "`anew`" in str(refused.value)
    assert decide(gone, CLUSTER, is_bootstrapping=False, past=past) == "format"
    assert decide(gone, CLUSTER, is_bootstrapping=True, is_asked_for=False, past=past) == "format"


@pytest.mark.parametrize(
    ("suffixes", "is_half"),
    [
        (([], [], []), False),
        (([RESTORING], [RESTORING], [RESTORING]), False),  # cut off while it unpacked
        (([REPLACED], [RESTORING], [RESTORING]), True),
        (([REPLACED], [REPLACED, RESTORING], [RESTORING]), True),
        (([REPLACED], [REPLACED], [REPLACED]), False),  # all renamed: of one moment
        (([REPLACED], [], [REPLACED]), True),  # cut off while it was undone
        (([ACCEPTED], [REPLACED], [REPLACED]), False),  # cut off after the cluster committed
        (([], [ACCEPTED], [ACCEPTED]), False),
    ],
)
def test_files_of_two_moments_are_known_by_what_a_restore_has_left(
    suffixes: tuple[list[str], ...], is_half: bool
) -> None:
    files = {i: [f"0_{i}.tigerbeetle{s}" for s in ["", *own]] for i, own in enumerate(suffixes)}
    assert is_half_restored(files) == is_half
    if is_half:
        with pytest.raises(Refusal, match=r"expected all of one moment.* make restore FROM=b, or"):
            refuse_half_restored(files, "make restore FROM=b")
    else:
        refuse_half_restored(files, "make restore FROM=b")
