"""Reports and batches survive any way in which a stream may cut them."""

import io
import random

import pytest

from nodeserver.core.errors import ProtocolError
from nodeserver.wire import lane
from nodeserver.wire.lane import BIG_BODY, REPORT_HEAD, Ended, ReportReader
from nodeserver.wire.outcome import Outcome, decode_outcome, encode_outcome


@pytest.mark.parametrize('seed', range(10))
def test_reports_are_found_however_they_are_cut(seed: int) -> None:
    choice = random.Random(seed)
    sizes = [choice.choice([0, 1, 100, BIG_BODY, BIG_BODY + 1, 3 * BIG_BODY]) for _ in range(12)]
    reports = [(1, i, i / 2, choice.randbytes(size)) for i, size in enumerate(sizes)]
    stream = b''.join(
        REPORT_HEAD.pack(kind, job, seconds, len(body)) + body
        for kind, job, seconds, body in reports
    )
    reader, found, at = ReportReader(), [], 0
    while at < len(stream):
        count = choice.choice([1, 10, REPORT_HEAD.size, 65536, 1 << 20])
        found += reader.feed(stream[at : at + count])
        at += count
    assert found == reports
    assert reader.missing == 0


@pytest.mark.parametrize('count', [1, 2, 64])
def test_batch_is_read_as_it_was_written(count: int) -> None:
    jobs = [(n, n + 1, b'x' * n * 1000) for n in range(count)]
    ids, attempts, payloads = (list(column) for column in zip(*jobs, strict=True))
    data = b''.join(lane.encode_batch(ids, attempts, payloads))
    stream = io.BytesIO(data)
    assert lane.read_batch(stream) == [lane.Order(*job) for job in jobs]
    assert lane.read_batch(stream) == []


@pytest.mark.parametrize('kept', [0, 3, 27, 28, 34])
@pytest.mark.parametrize('count', [1, 2])
def test_batch_cut_short_is_the_end(count: int, kept: int) -> None:
    data = b''.join(lane.encode_batch([1] * count, [1] * count, [b'12345678'] * count))
    assert lane.read_batch(io.BytesIO(data[:kept])) == []


def test_orders_and_answers_are_read_as_they_were_written() -> None:
    settings = lane.TemplateSettings(2**63 - 1, '/somewhere', 'job', 'name', '1.2.3.4')
    assert lane.decode_open(lane.encode_open(settings)) == settings
    assert lane.decode_work(lane.encode_work(3, [5, 6])) == (3, [5, 6])
    assert lane.decode_forked(lane.encode_forked(77)) == 77
    ended = [Ended(5, -9, 1 << 40), Ended(6, 0, 0)]
    assert lane.decode_ended(lane.encode_ended(ended)) == ended


def test_outcome_is_read_as_it_was_written() -> None:
    outcome = Outcome(b'r', 'o', 'e', 'x')
    assert decode_outcome(encode_outcome(b'r', 'o', 'e', 'x')) == (outcome, b'r')
    assert decode_outcome(b'') == (Outcome(), b'')
    assert len(encode_outcome(b'12345')) == 11


def test_outcome_text_that_is_not_unicode_is_escaped() -> None:
    assert decode_outcome(encode_outcome(exception='bad \udc80'))[0].exception == 'bad \\udc80'


def test_malformed_outcome_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode_outcome(b'\x93\x01\x02\x03')


def test_remarks_of_any_length_fit_into_the_word_that_a_template_is_ready() -> None:
    assert lane.decode_ready(lane.encode_ready('')) == ''
    assert lane.decode_ready(lane.encode_ready('é: x\ny')) == 'é: x\ny'
    long = lane.encode_ready('aé' * lane.MAX_MESSAGE)
    assert len(long) < lane.MAX_MESSAGE
    assert lane.decode_ready(long).startswith('aéaé')


def test_gpus_are_read_as_they_were_written_and_nothing_of_what_follows() -> None:
    stream = io.BytesIO(lane.encode_gpus(['GPU-1', '0']) + b'rest')
    assert lane.read_gpus(stream) == 'GPU-1,0'
    assert stream.read() == b'rest'
    assert lane.read_gpus(io.BytesIO(b'\x01')) == ''


def test_batches_of_any_number_of_any_jobs_are_read_as_they_were_written() -> None:
    choice = random.Random(3)
    for count in (1, 2, 3, 7, 100):
        ids = [choice.getrandbits(64) for _ in range(count)]
        attempts = [choice.getrandbits(32) for _ in range(count)]
        payloads = [choice.randbytes(choice.randrange(50)) for _ in range(count)]
        stream = io.BytesIO(b''.join(lane.encode_batch(ids, attempts, payloads)))
        orders = lane.read_batch(stream)
        assert [(one.job, one.attempt, one.payload) for one in orders] == list(
            zip(ids, attempts, payloads, strict=True)
        )
