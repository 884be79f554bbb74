"""Images read straight from an S3 server (moto) on loopback, with faults put between it and the client."""

import itertools
import pickle
import random
import socket
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from bucket_server import NAMES, make_images, serving
from torch.utils.data import DataLoader

from bpsutils import streaming as module
from bpsutils.bucket import BUCKET, PREFIX
from bpsutils.bucketing import collate_fn_pad
from bpsutils.config import Config
from bpsutils.datasets import ImageDataset, ImageStream
from bpsutils.download import download_images, stream_table
from bpsutils.images import ImageError
from bpsutils.metadata import build_metadata
from bpsutils.splits import split_table
from bpsutils.streaming import fetch_ahead
from bpsutils.transforms import AddNoise, Compose, HorizontalFlip, QuarterTurn

AUGMENT = Compose([QuarterTurn(), HorizontalFlip(), AddNoise(sigma=50.0)])
PATHS = [f"s3://{BUCKET}/{PREFIX}/{name}" for name in sorted(NAMES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def images(folder):
    return make_images(folder)


@pytest.fixture(scope="module")
def loaded(images):
    with serving(images) as server:
        yield server


@pytest.fixture
def server(loaded, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.01, 0.01))
    loaded.reset()
    yield loaded
    assert threads() == []


@pytest.fixture
def table(loaded):
    return stream_table(endpoint=loaded.url)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch-ahead")]


def by_index(samples):
    return sorted(samples, key=lambda sample: sample["index"])


def check_same(found, expected):
    """The same samples, but for where they come from."""
    for sample, other in zip(found, expected, strict=True):
        assert torch.equal(sample["image"], other["image"])
        assert sample["path"].rpartition("/")[2] == other["path"].rpartition("/")[2]
        assert {key: sample[key] for key in ("index", "label", "group")} == {
            key: other[key] for key in ("index", "label", "group")
        }


# -------------------------------------------------------------------------------------------------------- table


def test_table_has_the_rows_and_columns_of_a_download(server, tmp_path):
    options = {"particle": ["Fe"], "limit": 12, "endpoint": server.url}
    download_images(tmp_path, progress=False, **options)
    local, remote = build_metadata(tmp_path, tmp_path / "index.parquet"), stream_table(**options)
    assert remote["path"].tolist() == [f"s3://{BUCKET}/{PREFIX}/{path.rpartition('/')[2]}" for path in local["path"]]
    unknown = ["path", "height", "width", "dtype", "channels", "simulated"]  # the test's files are drawn
    pd.testing.assert_frame_equal(remote.drop(columns=["path", "simulated"]), local.drop(columns=unknown))
    assert not remote["simulated"].any()
    assert not any(name.endswith(".tif") for name in server.gets if server.gets[name] > 1)


def test_table_can_be_split(server, table):
    config = Config(irradiated_only=False, fractions=(0.5, 0.0, 0.5))
    parts = split_table(table, config)
    assert set(parts["group"]) == {"Fe/A6", "Fe/C7", "X-ray/A6", "X-ray/C7"}
    train = parts[parts["split"] == "train"]
    assert {sample["group"] for sample in ImageStream(train, endpoint=server.url)} == set(train["group"])


def test_table_names_what_a_filter_could_be(server):
    with pytest.raises(ValueError, match="plates: no image has P999; there are P242, P249, P278, P284"):
        stream_table(plates=["P999"], endpoint=server.url)
    with pytest.raises(ConnectionError, match="cannot fetch .*meta.csv from http://127.0.0.1:9: .*refused"):
        stream_table(endpoint="http://127.0.0.1:9")


# ------------------------------------------------------------------------------------------------------ samples


def test_samples_are_those_of_local_files(server, table, folder):
    local = ImageDataset(table.assign(path=[str(folder / name) for name in sorted(NAMES)]), AUGMENT, seed=2)
    stream = ImageStream(table, AUGMENT, seed=2, endpoint=server.url)
    for epoch in (0, 1):
        local.set_epoch(epoch)
        stream.set_epoch(epoch)
        check_same(stream, local)


def test_each_epoch_has_an_order_of_its_own(server, table):
    stream = ImageStream(table, shuffle=True, endpoint=server.url)
    orders = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        samples = list(stream)
        assert [sample["path"] for sample in samples] == [PATHS[sample["index"]] for sample in samples]
        orders.append([sample["index"] for sample in samples])
        assert orders[-1] == stream.share().tolist()
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))


def test_files_and_objects_may_be_mixed(server, table, folder):
    files = [str(folder / name) for name in sorted(NAMES)]
    mixed = table.assign(path=[pair[number % 2] for number, pair in enumerate(zip(PATHS, files, strict=True))])
    check_same(ImageStream(mixed, endpoint=server.url), ImageDataset(table.assign(path=files)))
    assert sum(server.gets.values()) == 1 + 20  # the table is one


def test_local_files_need_no_server_and_no_thread(table, folder):
    local = table.assign(path=[str(folder / name) for name in sorted(NAMES)])
    for _ in ImageStream(local, endpoint="http://127.0.0.1:9"):
        assert threads() == []


# ------------------------------------------------------------------------------------------- workers and ranks


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_workers_on_two_ranks_give_every_image_once(server, table, folder, method):
    """Though this process has used the client of downloads, and is in the middle of a stream of its own."""
    if method == "fork" and sys.platform == "win32":
        pytest.skip("Windows cannot fork")
    server.gets.clear()
    samples = []
    for rank in (0, 1):
        stream = ImageStream(table, AUGMENT, shuffle=True, rank=rank, world_size=2, read_ahead=3, endpoint=server.url)
        own = iter(stream)
        next(own)
        loader = DataLoader(stream, batch_size=4, num_workers=2, collate_fn=list, multiprocessing_context=method)
        samples += itertools.chain.from_iterable(loader)
        own.close()
    check_same(
        by_index(samples),
        ImageDataset(table.assign(path=[str(folder / name) for name in sorted(NAMES)]), AUGMENT),
    )
    assert sum(server.gets.values()) <= 40 + 2 * 4  # what was taken and under way here


def test_workers_that_live_on_fetch_in_each_epoch(server, table):
    stream = ImageStream(table, shuffle=True, endpoint=server.url)
    loader = DataLoader(stream, batch_size=8, num_workers=1, collate_fn=collate_fn_pad, persistent_workers=True)
    orders = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        orders.append([index for batch in loader for index in batch["indices"].tolist()])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))


def test_a_stream_that_was_used_can_be_sent_to_a_worker(server, table):
    stream = ImageStream(table, endpoint=server.url)
    samples = iter(stream)
    next(samples)
    assert len(list(pickle.loads(pickle.dumps(stream)))) == 40
    samples.close()


# --------------------------------------------------------------------------------------------------- read-ahead


def test_requests_run_ahead_but_no_further_than_told(server):
    """While two images are held, three more are under way or wait."""
    bodies = fetch_ahead(iter(PATHS), ahead=3, endpoint=server.url)
    for taken in (1, 2):
        next(bodies)
        assert wait_for(lambda: sum(server.gets.values()), 3 + taken) == 3 + taken
    bodies.close()
    assert sum(server.gets.values()) == 5


def wait_for(count, expected):
    """Wait until so many are counted; then a moment longer, in which a request too many would come."""
    moment = threading.Event()
    for _ in range(500):
        if count() >= expected:
            break
        moment.wait(0.01)
    moment.wait(0.1)
    return count()


def test_many_requests_are_under_way_at_once(server):
    """Each answer waits for the other seven: one at a time, none would ever come."""
    meeting = threading.Barrier(8, timeout=20)

    def meet(*_):
        meeting.wait()

    server.fault = meet
    assert len(list(fetch_ahead(PATHS[:16], ahead=8, endpoint=server.url))) == 16


def test_order_is_kept_when_the_first_answer_comes_last(server, images):
    others = threading.Semaphore(0)

    def hold(name, _, __):
        if name == sorted(NAMES)[0]:
            assert all(others.acquire(timeout=20) for _ in range(3))
        else:
            others.release()

    server.fault = hold
    bodies = list(fetch_ahead(PATHS, ahead=4, endpoint=server.url))
    assert bodies == [images[name] for name in sorted(NAMES)]


def test_nothing_is_asked_for_before_the_first_is_taken(server):
    fetch_ahead(PATHS, endpoint=server.url)
    assert threads() == []
    assert sum(server.gets.values()) == 0


def test_leaving_the_loop_leaves_no_thread_and_starts_no_request(server, table):
    stream = ImageStream(table, read_ahead=8, endpoint=server.url)
    server.gets.clear()
    for sample in stream:
        assert sample["index"] == 0
        assert threads()
        break
    assert threads() == []
    assert wait_for(lambda: sum(server.gets.values()), 1) <= 9


def test_leaving_a_loader_ends_its_workers(server, table):
    loader = DataLoader(ImageStream(table, endpoint=server.url), batch_size=2, num_workers=2, collate_fn=list)
    batches = iter(loader)
    next(batches)
    workers = batches._workers
    del batches
    assert not any(worker.is_alive() for worker in workers)


def test_leaving_the_loop_does_not_sit_out_the_waits(server, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", (1000.0,))
    server.fault = lambda name, *_: ("503 Slow Down", b"") if name != sorted(NAMES)[0] else None
    bodies = fetch_ahead(PATHS, ahead=4, endpoint=server.url)
    next(bodies)
    wait_for(lambda: sum(server.gets.values()), 5)
    bodies.close()  # and the fixture looks for threads


# ------------------------------------------------------------------------------------------------------- faults


def test_requests_that_fail_are_tried_again(server, images):
    server.fault = lambda _, count, body: ("503 Slow Down", body) if count <= 4 else None
    state = random.getstate()
    assert list(fetch_ahead(PATHS, endpoint=server.url)) == [images[name] for name in sorted(NAMES)]
    assert set(server.gets.values()) == {5}
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (lambda body: ("500 Internal Server Error", b""), "status 500 Internal Server Error"),
        (lambda body: ("200 OK", body[:-7]), "IncompleteRead"),
        (lambda body: ("200 OK", body[:-1] + bytes([body[-1] ^ 1])), "the content does not match its checksum"),
    ],
    ids=["refused", "truncated", "flipped"],
)
def test_an_object_that_cannot_be_had_is_named(server, table, fault, cause):
    bad = sorted(NAMES)[6]
    server.fault = lambda name, _, body: fault(body) if name == bad else None
    stream, indices = iter(ImageStream(table, endpoint=server.url)), []
    with pytest.raises(ConnectionError, match=f"{PATHS[6]} cannot be fetched from {server.url}: .*{cause}"):
        indices.extend(sample["index"] for sample in stream)
    assert indices == list(range(6))  # those before it
    assert server.gets[bad] == 5


def test_a_missing_object_is_named_and_not_asked_for_again(server, images, table):
    gone = sorted(NAMES)[2]
    server.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{gone}")
    try:
        with pytest.raises(FileNotFoundError, match=f"{PATHS[2]} is not in its bucket at {server.url}"):
            list(ImageStream(table, endpoint=server.url))
    finally:
        server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{gone}", Body=images[gone])
    assert server.gets[gone] == 1


def test_an_object_that_is_no_image_is_named(server, images, table):
    bad = sorted(NAMES)[2]
    server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{bad}", Body=b"<html>")
    try:
        with pytest.raises(ImageError, match=PATHS[2]):
            list(ImageStream(table, endpoint=server.url))
    finally:
        server.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{bad}", Body=images[bad])


def test_no_server_is_said(server):
    with pytest.raises(ConnectionError, match=f"{PATHS[0]} cannot be fetched from http://127.0.0.1:9: .*refused"):
        list(fetch_ahead(PATHS, endpoint="http://127.0.0.1:9"))


# -------------------------------------------------------------------------------------------------- connections


@pytest.fixture
def keeping(tmp_path):
    """A server that keeps connections, and counts them; ``hang_up`` makes it close them after each answer unsaid."""
    state = SimpleNamespace(connections=0, hang_up=False)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            state.connections += 1
            super().setup()

        def do_GET(self):
            super().do_GET()
            self.close_connection = state.hang_up

        def log_message(self, *_):
            pass

    (tmp_path / "bucket").mkdir()
    for number in range(20):
        (tmp_path / "bucket" / f"{number} é.tif").write_bytes(bytes([number]) * 100)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.url, state.paths = f"http://127.0.0.1:{http.server_port}", [f"s3://bucket/{n} é.tif" for n in range(20)]
    yield state
    http.shutdown()
    http.server_close()


def test_connections_are_kept(keeping):
    assert [body[0] for body in fetch_ahead(keeping.paths, 3, keeping.url)] == list(range(20))
    assert keeping.connections <= 3


def test_a_connection_that_was_closed_meanwhile_is_opened_again_at_once(keeping, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", ())
    keeping.hang_up = True
    assert [body[0] for body in fetch_ahead(keeping.paths, 3, keeping.url)] == list(range(20))
    assert keeping.connections == 20


def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", ())
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        asked = []

        def refuse():
            for _ in range(2):
                with proxy.accept()[0] as connection:
                    asked.append(connection.recv(1000).split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        with pytest.raises(ConnectionError, match="Tunnel connection failed: 403 Forbidden"):
            list(fetch_ahead(PATHS[:1], 1, "https://s3.example.org"))
    assert {line.split(b" HTTP")[0] for line in asked} == {b"CONNECT s3.example.org:443"}


# ----------------------------------------------------------------------------------------------------- refusals


def test_a_dataset_does_not_read_from_a_bucket(table):
    with pytest.raises(ValueError, match=f"{PATHS[0]} is in a bucket: read it by ImageStream, or copy it first"):
        ImageDataset(table)[0]


def test_what_cannot_work_is_refused_before_the_first_request(table):
    with pytest.raises(ValueError, match="read_ahead must be at least 1, got 0"):
        ImageStream(table, read_ahead=0)
    with pytest.raises(ValueError, match="endpoint must be an https:// URL"):
        ImageStream(table, endpoint="http://example.org")
