"""Files in both cores: what is sent next, what may arrive, and what waits for it."""

import dataclasses
import random

import pytest

from nodeserver.core import effects as do
from nodeserver.core import filemessages as f
from nodeserver.core import messages as m
from nodeserver.core import recoveryeffects as keep
from nodeserver.core.errors import ProtocolError
from nodeserver.core.events import (
    DeadlinePassed,
    FileOffered,
    FilesToSay,
    JobsRecalled,
    MessageArrived,
    PeerConnected,
    PeerLost,
    TemplateClosed,
    TemplateFailed,
)
from nodeserver.core.fleetmessages import CloseNode
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.nodefiles import OFFER_SECONDS
from nodeserver.core.recoverymessages import JobsHeld, KeepOutcomes, ResendLetters
from nodeserver.core.status import JobStatus
from nodeserver.core.transfer import (
    BLOCK,
    BUDGET,
    MOST_PIECES,
    PIECE,
    WINDOW,
    Incoming,
    Outgoing,
    window,
)
from tests.core.test_node import Bench, opening
from tests.support.desk import CLIENT, Desk
from tests.support.nodebench import claim

MANIFEST = b'manifest'


# pieces


@pytest.mark.parametrize('seed', range(20))
def test_all_that_was_asked_for_arrives_in_order_and_within_the_credit(seed: int) -> None:
    choice = random.Random(seed)
    sizes = [choice.choice([0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK]) for _ in range(30)]
    wanted = sorted(choice.sample(range(30), 20))
    outgoing, incoming = Outgoing(sizes), Incoming(sizes, wanted)
    outgoing.grant(wanted, WINDOW)
    granted, sent, ended = WINDOW, 0, []
    while not incoming.is_done:
        pieces = outgoing.take()
        if not pieces:
            more = choice.randint(1, 2 * BLOCK)
            granted += more
            outgoing.grant([], more)
        assert len(pieces) <= MOST_PIECES
        assert sum(length for _, _, length in pieces) <= BLOCK
        for file, offset, length in pieces:
            sent += length
            if incoming.take(file, offset, length):
                ended.append(file)
        assert sent <= granted
    assert (ended, outgoing.is_done, outgoing.take()) == (wanted, True, [])
    assert sent == sum(sizes[file] for file in wanted)


def test_many_small_files_go_in_few_messages() -> None:
    outgoing = Outgoing([4096] * 1000)
    outgoing.grant(range(1000), WINDOW)
    assert sum(1 for _ in iter(outgoing.take, [])) <= 5


def test_many_transfers_to_one_receiver_share_its_memory() -> None:
    assert window(1) == WINDOW
    assert all(window(count) * count <= max(BUDGET, PIECE * count) for count in range(1, 200))
    assert window(1000) == PIECE


def test_files_that_were_not_offered_are_not_sent() -> None:
    outgoing = Outgoing([1, 1])
    outgoing.grant([-1, 2, 99], -7)
    assert outgoing.take() == []
    assert outgoing.is_done


@pytest.mark.parametrize('piece', [(1, 0, 1), (0, 1, 1), (0, 0, 3), (7, 0, 1)])
def test_a_piece_that_was_not_to_come_is_not_taken(piece: tuple[int, int, int]) -> None:
    with pytest.raises(ProtocolError):
        Incoming([2, 2], [0, 1]).take(*piece)


# the node


def placed(transfer: int, reason: str = '') -> FilesToSay:
    return FilesToSay(f.FilesPlaced(7, 'n', transfer, reason))


def open_with_files(bench: Bench) -> None:
    bench.hears(dataclasses.replace(opening(), manifest=MANIFEST))


def test_a_template_is_made_when_the_computations_own_files_lie_there() -> None:
    bench = Bench()
    open_with_files(bench)
    assert [order.manifest for order in bench.take(do.OpenFiles)] == [MANIFEST]
    assert not bench.take(do.OpenTemplate)
    fetch = f.FetchFiles(7, 'n', f.OWN_FILES, [0], 100)
    bench.tell(FilesToSay(fetch))
    assert bench.take(f.FetchFiles) == [fetch]
    blocks = f.FileBlocks(7, 'n', f.OWN_FILES, [0], [0], [b'x'])
    bench.hears(blocks)
    assert [effect.message for effect in bench.take(do.HearOfFiles)] == [blocks]
    bench.tell(placed(f.OWN_FILES))
    bench.tell(placed(f.OWN_FILES))
    assert len(bench.take(do.OpenTemplate)) == 1
    assert not bench.take(f.FilesPlaced)


def test_a_computation_whose_files_cannot_be_had_is_refused_and_leaves_nothing() -> None:
    bench = Bench()
    open_with_files(bench)
    bench.tell(placed(f.OWN_FILES, 'the disk is full'))
    assert [refused.reason for refused in bench.take(m.ComputationRefused)] == ['the disk is full']
    assert [effect.removes for effect in bench.take(do.CloseFiles)] == [True]
    assert bench.take(do.CloseTemplate)
    bench.tell(TemplateClosed(7))
    bench.hears(opening())
    assert bench.take(do.OpenTemplate)


def run_with_files(bench: Bench, *ids: int) -> None:
    count = len(ids)
    manifests = [MANIFEST] * count
    bench.hears(m.RunJobs(7, list(ids), [1] * count, [b'x'] * count, manifests=manifests))


def test_a_job_waits_for_its_files_and_they_go_with_it() -> None:
    bench = Bench()
    bench.open()
    run_with_files(bench, 1)
    bench.run(2)
    wanted = [effect.message for effect in bench.take(do.HearOfFiles)]
    assert wanted == [f.PlaceFiles(7, 'n', 1, MANIFEST)]
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[2]]
    bench.tell(placed(1))
    assert [give.ids for give in bench.take(do.GiveJobs)] == [[1]]
    assert not bench.take(do.ReleaseFiles)
    bench.reported(2, 1)
    bench.reported(1, 2)
    assert [effect.transfers for effect in bench.take(do.ReleaseFiles)] == [[1]]


def test_files_of_jobs_that_are_taken_back_from_a_worker_go_before_these_can_come_again() -> None:
    bench = Bench(cpus=1)
    bench.open('worker', workers=1)
    bench.run(1)
    bench.reported(1, 1, seconds=1e-4)  # they are short, so that a worker gets many
    run_with_files(bench, 2, 3, 4)
    for job in (2, 3, 4):
        bench.tell(placed(job))
    bench.hears(m.RecallJobs(7, 2))
    assert not bench.take(m.JobsReturned)  # not before the worker has answered
    bench.tell(JobsRecalled(7, 1, 3, 4))
    assert [sorted(back.ids) for back in bench.take(m.JobsReturned)] == [[3, 4]]
    assert [sorted(effect.transfers) for effect in bench.take(do.ReleaseFiles)] == [[3, 4]]


def test_a_job_waits_for_both_its_files_and_its_data() -> None:
    for files_first in (True, False):
        bench = Bench()
        bench.open()
        order = m.RunJobs(7, [1], [1], [b'x'], shared=[[5]], manifests=[MANIFEST])
        bench.hears(order)
        steps = [placed(1), MessageArrived('s', m.ShareData(7, 5, b'data'))]
        for step in steps if files_first else reversed(steps):
            assert not bench.take(do.GiveJobs)
            bench.tell(step)
        assert [give.ids for give in bench.take(do.GiveJobs)] == [[1]]


def test_a_job_whose_files_cannot_be_had_ends_and_says_so() -> None:
    bench = Bench()
    bench.open()
    run_with_files(bench, 1)
    bench.tell(placed(1, 'big.dat is too big'))
    (done,) = bench.take(m.JobsDone)
    assert (done.ids, done.statuses) == ([1], [JobStatus.TERMINATED])
    assert 'big.dat is too big' in done.reasons[0]
    assert bench.take(do.ReleaseFiles)


def test_files_of_a_job_that_is_taken_back_or_cancelled_are_let_go() -> None:
    bench = Bench()
    bench.open()
    run_with_files(bench, 1, 2)
    bench.hears(m.StopJobs(7, [1], [1]))
    assert [done.statuses for done in bench.take(m.JobsDone)] == [[JobStatus.CANCELLED]]
    bench.hears(m.RecallJobs(7, 5))
    assert [back.ids for back in bench.take(m.JobsReturned)] == [[2]]
    released = [job for effect in bench.take(do.ReleaseFiles) for job in effect.transfers]
    assert released == [1, 2]
    bench.tell(placed(2))  # it came too late
    assert not bench.take(do.GiveJobs)


def run_again_with_files(bench: Bench) -> None:
    bench.hears(m.RunJobs(7, [1], [2], [b'x'], manifests=[b'next']))


def test_files_of_the_next_attempt_come_when_those_of_the_one_that_is_stopped_are_gone() -> None:
    """Whoever takes over stops what runs and runs it again, perhaps on the same node."""
    bench = Bench()
    bench.open()
    run_with_files(bench, 1)
    bench.tell(placed(1))
    bench.take(do.HearOfFiles)
    bench.hears(m.StopJobs(7, [1], [1]))
    run_again_with_files(bench)
    bench.tell(placed(1))  # of the first attempt, for all that one can tell
    assert not bench.take(do.HearOfFiles)
    bench.reported(1, 1)
    in_order = [e for e in bench.effects if isinstance(e, do.ReleaseFiles | do.HearOfFiles)]
    wanted = do.HearOfFiles(f.PlaceFiles(7, 'n', 1, b'next'))
    assert in_order == [do.ReleaseFiles(7, [1]), wanted]
    bench.take(do.GiveJobs)
    bench.tell(placed(1))
    assert [give.attempts for give in bench.take(do.GiveJobs)] == [[2]]


def test_files_of_an_attempt_that_waits_go_before_those_of_the_next_one_come() -> None:
    bench = Bench(cpus=1)
    bench.open()
    bench.run(2)
    run_with_files(bench, 1)
    bench.take(do.HearOfFiles)
    stopped = MessageArrived('s', m.StopJobs(7, [1], [1]))
    bench.effects += bench.core.handle(stopped, bench.now)
    run_again_with_files(bench)  # in the same turn
    in_order = [e for e in bench.effects if isinstance(e, do.ReleaseFiles | do.HearOfFiles)]
    assert [type(effect) for effect in in_order] == [do.ReleaseFiles, do.HearOfFiles]
    bench.hears(m.StopJobs(7, [1], [2]))
    assert [effect.transfers for effect in bench.take(do.ReleaseFiles)][-1] == [1]


def test_a_next_attempt_that_is_stopped_before_its_files_came_lets_go_of_none() -> None:
    bench = Bench()
    bench.open()
    run_with_files(bench, 1)
    bench.tell(placed(1))
    bench.hears(m.StopJobs(7, [1], [1]))
    run_again_with_files(bench)
    bench.take(do.HearOfFiles)
    bench.hears(m.StopJobs(7, [1], [2]))
    assert not bench.take(do.ReleaseFiles)  # the first one is not gone yet
    bench.reported(1, 1)
    assert [effect.transfers for effect in bench.take(do.ReleaseFiles)] == [[1]]
    assert not bench.take(do.HearOfFiles)


def test_transfers_end_with_the_program_that_wanted_them() -> None:
    bench = Bench()
    bench.open()
    run_with_files(bench, 1)
    bench.tell(PeerLost('s', 'gone'))
    assert bench.take(do.EndTransfers)
    assert not bench.take(do.CloseFiles)  # jobs that run go on, and use what is here
    bench.tell(FilesToSay(f.FetchFiles(7, 'n', 1, [0], 1)))
    assert not bench.take(f.FetchFiles)


def test_a_file_of_a_job_is_offered_for_its_current_attempt() -> None:
    bench = Bench()
    bench.core = type(bench.core)(NodeFacts('n', 'n', 2, 'Linux', '3.11', max_file_size=100))
    bench.tell(PeerConnected('s', ''))
    bench.open()
    bench.tell(FileOffered(7, 1, 9, MANIFEST, 5))  # by a worker that has no job
    bench.run(3)
    bench.tell(FileOffered(7, 1, 10, MANIFEST, 101))
    answers = [effect.message for effect in bench.take(do.HearOfFiles)]
    assert [(answer.transfer, bool(answer.reason)) for answer in answers] == [(9, True), (10, True)]
    assert '101 bytes' in answers[1].reason
    bench.tell(FileOffered(7, 1, 11, MANIFEST, 100))
    assert bench.take(f.OfferFile) == [f.OfferFile(7, 'n', 11, 3, 1, MANIFEST)]


def sending() -> Bench:
    """Job 3 of a computation sends a file; the transfer has the number 11."""
    bench = Bench()
    bench.open()
    bench.run(3)
    bench.tell(FileOffered(7, 1, 11, MANIFEST, 100))
    assert bench.take(f.OfferFile)
    return bench


def test_a_file_that_a_job_sends_waits_for_who_takes_its_computation_over() -> None:
    bench = sending()
    bench.tell(PeerLost('s', 'gone'))
    bench.tell(FileOffered(7, 1, 12, MANIFEST, 100))  # and so does the next one
    assert not bench.take(do.HearOfFiles)
    assert not bench.take(f.OfferFile)
    bench.tell(PeerConnected('t', ''))
    bench.hears(claim(), 't')
    kinds = [getattr(each, 'message', each) for each in bench.effects]
    kinds = [each for each in map(type, kinds) if each in (JobsHeld, keep.OfferAgain)]
    assert kinds == [JobsHeld, keep.OfferAgain]  # before that nobody would know the job
    bench.tell(FileOffered(7, 1, 11, MANIFEST, 100))
    assert bench.take(f.OfferFile) == [f.OfferFile(7, 'n', 11, 3, 1, MANIFEST)]


def test_a_file_is_offered_again_when_the_client_is_back() -> None:
    bench = sending()
    bench.hears(KeepOutcomes(7))
    assert not bench.take(keep.OfferAgain)
    bench.hears(ResendLetters(7, []))
    assert bench.take(keep.OfferAgain) == [keep.OfferAgain(7)]


def test_a_clusters_own_files_are_fetched_anew_when_the_client_is_back() -> None:
    bench = Bench()
    open_with_files(bench)
    bench.hears(KeepOutcomes(7))
    bench.tell(FilesToSay(f.FetchFiles(7, 'n', f.OWN_FILES, [0], 100)))  # nobody hears this
    bench.effects.clear()
    bench.hears(ResendLetters(7, []))
    kinds = (do.CloseFiles, do.OpenFiles)
    assert [type(e) for e in bench.effects if isinstance(e, kinds)] == [*kinds]
    bench.tell(placed(f.OWN_FILES))
    assert len(bench.take(do.OpenTemplate)) == 1
    bench.effects.clear()
    bench.hears(ResendLetters(7, []))
    assert not bench.take(do.OpenFiles)  # they are here


def test_a_job_does_not_wait_for_ever_for_somebody_who_takes_its_file() -> None:
    bench = sending()
    bench.tell(PeerLost('s', 'gone'))
    begun = bench.now
    for seconds in (OFFER_SECONDS - 0.1, OFFER_SECONDS):
        assert not bench.take(keep.RefuseOffers)
        bench.now = begun + seconds
        assert bench.core.next_deadline() == begun + OFFER_SECONDS
        bench.tell(DeadlinePassed())
    (refused,) = bench.take(keep.RefuseOffers)
    assert refused.reason == 'its program is gone, and none came within 15 s to take it'
    assert bench.core.next_deadline() != begun + OFFER_SECONDS
    bench.tell(FileOffered(7, 1, 12, MANIFEST, 100))
    (answer,) = bench.take(do.HearOfFiles)
    assert answer.message.reason == refused.reason
    bench.tell(PeerConnected('t', ''))  # who comes later is asked as ever, and is lost as ever
    bench.hears(claim(), 't')
    bench.tell(FileOffered(7, 1, 13, MANIFEST, 100))
    assert bench.take(f.OfferFile)
    bench.tell(PeerLost('t', 'gone'))
    bench.tell(FileOffered(7, 1, 14, MANIFEST, 100))
    assert not bench.take(do.HearOfFiles)


def test_a_node_takes_files_also_after_a_job_has_sent_one() -> None:
    bench = Bench()
    bench.open()
    bench.run(3)
    bench.tell(FileOffered(7, 1, 11, MANIFEST, 100))
    bench.hears(f.PlaceFiles(7, 'n', -1, MANIFEST))
    kinds = [type(effect) for effect in bench.take(do.OpenFiles) + bench.take(do.HearOfFiles)]
    assert kinds == [do.OpenFiles, do.HearOfFiles]


def test_a_file_for_a_node_that_does_not_have_the_computation_is_refused() -> None:
    bench = Bench()
    wish = f.PlaceFiles(7, 'n', -1, MANIFEST)
    bench.hears(wish)
    assert [answer.reason for answer in bench.take(f.FilesPlaced)] == [
        'the computation is not open on this node'
    ]
    bench.open()
    bench.hears(wish)
    assert [effect.message for effect in bench.take(do.HearOfFiles)] == [wish]
    bench.tell(placed(-1, 'why not'))
    assert bench.take(f.FilesPlaced) == [f.FilesPlaced(7, 'n', -1, 'why not')]


def test_a_template_that_is_replaced_finds_the_files_where_they_were() -> None:
    bench = Bench()
    open_with_files(bench)
    bench.tell(placed(f.OWN_FILES))
    bench.open()
    bench.take(do.OpenTemplate)
    bench.tell(TemplateFailed(7, 'it was killed'))
    assert [effect.keeps_files for effect in bench.take(do.CloseTemplate)] == [True]
    bench.tell(TemplateClosed(7))
    assert len(bench.take(do.OpenTemplate)) == 1
    assert not bench.take(do.CloseFiles)


# the scheduler


def test_manifests_go_with_their_jobs_and_what_is_said_of_them_to_the_other_side() -> None:
    desk = Desk()
    desk.join('a')
    manifests = [b'', MANIFEST]
    desk.hears(CLIENT, m.SubmitJobs(7, '', [1, 2], [b'x'] * 2, manifests=manifests))
    runs = desk.sent(m.RunJobs)
    assert [(i, f) for run in runs for i, f in zip(run.ids, run.manifests, strict=True)] == [
        (1, b''),
        (2, MANIFEST),
    ]
    fetch = f.FetchFiles(7, 'a', 2, [0], 10)
    desk.hears('a', fetch)
    assert desk.sent(f.FetchFiles, CLIENT) == [fetch]
    blocks = f.FileBlocks(7, 'a', 2, [0], [0], [b'x'])
    desk.hears(CLIENT, blocks)
    assert desk.sent(f.FileBlocks, 'a') == [blocks]


def test_nobody_speaks_of_files_for_another() -> None:
    desk = Desk()
    desk.join('a')
    desk.join('b', address='10.0.0.2')
    desk.hears('b', f.FetchFiles(7, 'a', 0, [0], 10))
    desk.hears('somebody', f.FileBlocks(7, 'a', 0, [0], [0], [b'x']))
    desk.hears(CLIENT, f.FileBlocks(8, 'a', 0, [0], [0], [b'x']))
    assert not desk.sent(f.FetchFiles)
    assert not desk.sent(f.FileBlocks)


def test_a_file_of_an_attempt_that_is_not_the_current_one_is_not_passed_on() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    desk.hears('a', f.OfferFile(7, 'a', 1, 1, 2, MANIFEST))
    assert not desk.sent(f.OfferFile)
    assert [answer.reason for answer in desk.sent(f.FilesPlaced, 'a')] == [
        'the job is not wanted any more'
    ]
    offer = f.OfferFile(7, 'a', 2, 1, 1, MANIFEST)
    desk.hears('a', offer)
    assert desk.sent(f.OfferFile, CLIENT) == [offer]


def test_who_sends_to_a_node_that_is_lost_or_not_there_is_told() -> None:
    desk = Desk()
    desk.join('a')
    wish = f.PlaceFiles(7, 'z', -1, MANIFEST)
    desk.hears(CLIENT, wish)
    assert [answer.reason for answer in desk.sent(f.FilesPlaced, CLIENT)] == [
        'the cluster does not use this node'
    ]
    desk.hears(CLIENT, f.PlaceFiles(7, 'a', -2, MANIFEST))
    desk.tell(PeerLost('a', 'its port refuses'))
    (failed,) = desk.sent(f.FilesFailed, CLIENT)
    assert (failed.node, failed.transfer) == ('a', f.OWN_FILES)


def test_after_a_job_has_sent_a_file_others_still_get_theirs() -> None:
    bench = Bench()
    bench.open()
    bench.run(3)
    bench.tell(FileOffered(7, 1, 11, MANIFEST, 100))
    assert bench.take(f.OfferFile)
    run_with_files(bench, 4)
    assert len(bench.take(do.OpenFiles)) == 1


def test_who_sends_to_a_node_that_leaves_the_cluster_meanwhile_is_told() -> None:
    desk = Desk()
    desk.join('a')
    desk.hears(CLIENT, f.PlaceFiles(7, 'a', -1, MANIFEST))
    desk.hears(CLIENT, CloseNode(7, 1, '10.0.0.1', False, False))
    assert not desk.sent(f.FilesFailed, CLIENT)
    desk.hears('a', m.ComputationClosed(7))
    (failed,) = desk.sent(f.FilesFailed, CLIENT)
    assert (failed.node, failed.transfer) == ('a', f.OWN_FILES)
    assert failed.reason


def test_who_sends_to_a_node_whose_service_hours_end_is_told() -> None:
    desk = Desk()
    desk.join('a')
    desk.hears(CLIENT, f.PlaceFiles(7, 'a', -1, MANIFEST))
    desk.hears('a', m.ComputationRefused(7, 'over', 'its hours have ended'))
    (failed,) = desk.sent(f.FilesFailed, CLIENT)
    assert (failed.node, failed.transfer, failed.reason) == (
        'a',
        f.OWN_FILES,
        'its hours have ended',
    )
